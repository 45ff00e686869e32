"""What every model type on the shelf must satisfy, tied and untied, in tiny models of random weights."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

import kronpress
from kronpress.activations import stream as calibrate
from kronpress.activations.stream import BlockStream
from kronpress.checkpoint import adopt, structured_layers
from kronpress.factorize import CalibratedPruning, Factorize
from kronpress.factorize.reorder import reorder
from kronpress.families import FAMILIES, base_prefix, layout, select_sites
from kronpress.layers import weight_of
from tests import tiny

DECODER = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": tiny.DIM,
    "intermediate_size": tiny.WIDTH,
    "num_hidden_layers": tiny.DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": tiny.POSITIONS,
    "initializer_range": 0.2,
    "bos_token_id": 5,
    "eos_token_id": 6,
    "pad_token_id": None,
}
ENCODER = {key: value for key, value in DECODER.items() if key != "num_key_value_heads"} | {"pad_token_id": 0}
FIELDS: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "mistral": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER | {"head_dim": 8},  # projections wider than the model
    "smollm3": DECODER,
    "gpt2": {
        "vocab_size": tiny.VOCABULARY,
        "n_embd": tiny.DIM,
        "n_inner": tiny.WIDTH,
        "n_layer": tiny.DEPTH,
        "n_head": 4,
        "n_positions": tiny.POSITIONS,
        "initializer_range": 0.2,
        "bos_token_id": 5,
        "eos_token_id": 6,
    },
    "bert": ENCODER,
    "roberta": ENCODER | {"max_position_embeddings": tiny.POSITIONS + 1},
    "distilbert": {
        "vocab_size": tiny.VOCABULARY,
        "dim": tiny.DIM,
        "hidden_dim": tiny.WIDTH,
        "n_layers": tiny.DEPTH,
        "n_heads": 4,
        "max_position_embeddings": tiny.POSITIONS,
        "initializer_range": 0.2,
    },
}
EVERYTHING = "all,embedding,head"
CASES = pytest.mark.parametrize(
    ("model_type", "tied"), [(name, tied) for name in FAMILIES for tied in (True, False)], ids=str
)


def build(model_type: str, *, tied: bool = True, **more: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(model_type, **(FIELDS[model_type] | more), tie_word_embeddings=tied)
    auto = AutoModelForMaskedLM if FAMILIES[model_type].closing_norm else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto.from_config(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter, std=0.2)
    return model.eval()


def ids() -> torch.Tensor:
    return tiny.some_ids().clamp_min(2)  # no padding, which RoBERTa gives a position of its own


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "mixed_precision", lambda _: nullcontext())


def test_every_model_type_is_tried() -> None:
    assert set(FIELDS) == set(FAMILIES)


@CASES
def test_the_layout_names_every_matrix_of_the_model_once(model_type: str, tied: bool) -> None:
    model = build(model_type, tied=tied)
    plan = layout(model)
    paths = [site.path for site in plan.sites]
    assert len(set(paths)) == len(paths)
    blocks = {
        name
        for name, module in model.named_modules()
        if name.startswith(plan.block_paths) and len(getattr(module, "weight", torch.empty(0)).shape) == 2
    }
    assert {site.path for site in plan.sites if site.block is not None} == blocks
    assert model.get_submodule(plan.sites[0].path) is model.get_input_embeddings()
    assert model.get_submodule(plan.sites[-1].path) is model.get_output_embeddings()
    for feed_forward in plan.feed_forwards:
        assert tuple(weight_of(model.get_submodule(feed_forward.down)).shape) == (tiny.DIM, tiny.WIDTH)
        for path in feed_forward.expanding:
            assert tuple(weight_of(model.get_submodule(path)).shape) == (tiny.WIDTH, tiny.DIM)


@CASES
def test_a_full_rank_replacement_of_every_matrix_leaves_the_logits(model_type: str, tied: bool, tmp_path: Path) -> None:
    model = build(model_type, tied=tied)
    bench = tiny.bench(model, tmp_path)
    report = Factorize(init="van_loan", sites=EVERYTHING, right=(2, 2), terms=4).run(bench)
    assert len(structured_layers(bench.student)) == len(layout(model).sites)
    torch.testing.assert_close(tiny.logits(bench.student, ids()), tiny.logits(model, ids()), atol=1e-5, rtol=1e-5)
    assert max(module["relative_error"] for module in report["modules"]) < 1e-5


@CASES
def test_ties_stay_tied_and_are_counted_once(model_type: str, tied: bool, tmp_path: Path) -> None:
    model = build(model_type, tied=tied)
    bench = tiny.bench(model, tmp_path)
    report = Factorize(init="van_loan", sites=EVERYTHING, right=(1, 2), scales=True).run(bench)
    student = adopt(bench.student)
    embedding, head = student.get_input_embeddings(), tiny.factors_of(student.get_output_embeddings())
    for name in ("left", "right", "scales"):
        assert (getattr(embedding, name) is getattr(head, name)) is tied
    modules = report["modules"]
    assert len(modules) == len(layout(student).sites) - tied
    saved = sum(module["parameters_before"] - module["parameters_after"] for module in modules)
    assert count(model) - count(student) == saved
    assert report["parameters"] == count(student)


@CASES
def test_a_step_of_training_keeps_the_tie(model_type: str, tied: bool, tmp_path: Path) -> None:
    bench = tiny.bench(build(model_type, tied=tied), tmp_path)
    Factorize(init="van_loan", sites=EVERYTHING, right=(2, 2), terms=2).run(bench)
    student = adopt(bench.student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    student(input_ids=ids()).logits.square().mean().backward()
    optimizer.step()
    embedding, head = student.get_input_embeddings(), tiny.factors_of(student.get_output_embeddings())
    assert torch.equal(embedding.left, head.left) is tied
    assert all(
        parameter.grad is not None
        for path in structured_layers(student)
        for parameter in student.get_submodule(path).parameters()
    )


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.closing_norm is None])
def test_generation_with_a_cache_gives_what_it_gave(model_type: str, tmp_path: Path) -> None:
    model = build(model_type)
    bench = tiny.bench(model, tmp_path)
    Factorize(init="van_loan", sites=EVERYTHING, right=(2, 2), terms=4).run(bench)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    found, expected = (each.generate(ids(), **options) for each in (bench.student, model))
    assert torch.equal(found, expected)


@CASES
def test_the_stream_through_the_blocks_is_the_model(model_type: str, tied: bool, exact: None) -> None:
    model, windows = build(model_type, tied=tied), ids().view(4, 6)
    stream = BlockStream.begin(model, windows)
    states = model(input_ids=windows, output_hidden_states=True).hidden_states
    for block in range(tiny.DEPTH):
        torch.testing.assert_close(torch.cat(stream.hidden), states[block])
        stream.advance(model, block=block)
    last, base = torch.cat(stream.hidden), model.get_submodule(base_prefix(model).rstrip("."))
    closing = getattr(base, "norm", getattr(base, "ln_f", nn.Identity()))
    torch.testing.assert_close(closing(last), states[-1])


@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_a_narrow_model_is_what_its_config_says(model_type: str, tmp_path: Path) -> None:
    bench = tiny.bench(build(model_type), tmp_path)
    Factorize(init=CalibratedPruning(keep=0.5, tokens=2048, window=64)).run(bench)
    student = bench.student
    fresh = type(student)(copy.deepcopy(student.config))
    fresh.load_state_dict(student.state_dict())
    fresh.eval()
    assert torch.equal(tiny.logits(fresh, ids()), tiny.logits(student, ids()))


@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_the_base_model_alone_has_the_same_blocks(model_type: str) -> None:
    model = build(model_type)
    base = model.base_model
    assert base_prefix(base) == ""
    prefix = base_prefix(model)
    expected = [site.path.removeprefix(prefix) for site in layout(model).sites[:-1]]
    assert [site.path for site in layout(base).sites] == expected
    assert len(select_sites(base, "all")) == len(select_sites(model, "all"))


@pytest.mark.parametrize("head", ["tied", "untied", "dense"])
@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_each_head_over_a_factored_table_computes_saves_and_reopens(model_type: str, head: str, tmp_path: Path) -> None:
    bench = tiny.bench(build(model_type), tmp_path)
    Factorize(init="van_loan", sites="embedding", right=(1, 2), head=head).run(bench)
    student, weight = bench.student, bench.student.get_input_embeddings().dense_weight()
    assert student.config.tie_word_embeddings is (head == "tied")
    scored = weight_of(bench.teacher.get_output_embeddings()) if head == "dense" else weight
    found = student.get_output_embeddings()
    dense = found if isinstance(found, nn.Linear) else found.to_dense()
    torch.testing.assert_close(dense.weight, scored)
    extra = {"tied": 0, "untied": weight.numel() // 2 + 2, "dense": weight.numel()}[head]
    shared = any(name.endswith(("predictions.bias", "lm_head.bias")) for name, _ in bench.teacher.named_parameters())
    bias = tiny.VOCABULARY if head != "tied" and shared else 0
    assert count(student) == count(bench.teacher) - weight.numel() // 2 + 2 + extra + bias
    again = kronpress.load(kronpress.save(student, tmp_path / "saved"))
    assert torch.equal(tiny.logits(again, ids()), tiny.logits(student, ids()))
    assert count(again) == count(student)


@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_a_fold_in_another_order_leaves_the_logits(model_type: str) -> None:
    many_heads = {"num_key_value_heads": 4} if "num_key_value_heads" in FIELDS[model_type] else {}
    model = build(model_type, **many_heads)
    expected, found = tiny.logits(model, ids()), layout(model).folds
    assert len(found) == tiny.DEPTH * (2 if FAMILIES[model_type].rotary else 3)
    for fold in found:
        before = weight_of(model.get_submodule(fold.sides[0].path)).clone()
        size = before.shape[fold.sides[0].axis == "columns"] // fold.sides[0].shares
        segment = fold.segment or size
        order = torch.cat([start + torch.randperm(segment) for start in range(0, size, segment)])
        reorder(model, fold, order)
        assert not torch.equal(weight_of(model.get_submodule(fold.sides[0].path)), before)
    torch.testing.assert_close(tiny.logits(model, ids()), expected, atol=1e-5, rtol=1e-5)


def test_shared_key_heads_and_rotary_positions_are_no_folds() -> None:
    assert len(layout(build("llama")).folds) == tiny.DEPTH  # the feed-forward blocks alone


@pytest.mark.parametrize("permute", ["folded", "all"])
@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_a_permuted_start_is_no_worse_and_saves(model_type: str, permute: str, tmp_path: Path) -> None:
    model, errors = build(model_type), {}
    for how in ("none", permute):
        bench = tiny.bench(model, tmp_path)
        report = Factorize(init="van_loan", sites="all,embedding", right=(2, 2), permute=how).run(bench)
        errors[how] = {module["path"]: module["relative_error"] for module in report["modules"]}
    assert all(errors[permute][path] <= error * (1 + 1e-6) for path, error in errors["none"].items())
    assert sum(errors[permute].values()) < sum(errors["none"].values())
    kept = [layer for layer in structured_layers(bench.student).values() if list(layer.buffers())]
    assert bool(kept) is (permute == "all")
    again = kronpress.load(kronpress.save(bench.student, tmp_path / "saved"))
    assert torch.equal(tiny.logits(again, ids()), tiny.logits(bench.student, ids()))
