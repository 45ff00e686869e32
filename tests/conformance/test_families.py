"""What every model type on the shelf must satisfy, tied and untied, in tiny models of random weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

import kronpress
from kronpress.activations import tracing
from kronpress.activations.attention import training_attention
from kronpress.activations.stream import BlockStream
from kronpress.checkpoint import adopt, structured_layers
from kronpress.factorize import Factorize
from kronpress.factorize.reorder import reorder
from kronpress.families import FAMILIES, base_prefix, layout, select_sites
from kronpress.layers import weight_of
from kronpress.prune import Prune
from kronpress.truncate import keep_blocks
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
GEMMA = DECODER | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4, "attn_logit_softcapping": 2.0}
MIXED = ["linear_attention", "full_attention", "linear_attention"]
LINEAR = {
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
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
    "opt": {key: value for key, value in ENCODER.items() if key not in ("intermediate_size", "initializer_range")}
    | {"ffn_dim": tiny.WIDTH, "init_std": 0.2, "pad_token_id": None},
    "phi3": DECODER,  # fewer key heads than query heads: unequal shares
    "gpt_neox": ENCODER | {"pad_token_id": None},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA | {"sliding_window_pattern": 2, "pad_token_id": 0},
    "qwen3_5_text": DECODER | LINEAR | {"head_dim": 8, "layer_types": MIXED, "initializer_range": 0.1},
    "lfm2": DECODER | {"full_attn_idxs": [1], "intermediate_size": 3 * tiny.WIDTH // 2, "block_multiple_of": 8},
    "olmo2": DECODER,
    "olmo3": DECODER | {"sliding_window": 4},
    "modernbert": ENCODER
    | {"num_hidden_layers": tiny.DEPTH, "local_attention": 4, "cls_token_id": 2, "sep_token_id": 3},
}
PERMUTED = {"name": "van_loan", "right": (2, 2)}
UNLIKE_SCORES = {"qwen3", "gemma3_text", "gpt_neox"}  # a norm over whole queries, or positions that turn a part of them
CASES = pytest.mark.parametrize(
    ("model_type", "tied"), [(name, tied) for name in FAMILIES for tied in (True, False)], ids=str
)


def build(model_type: str, *, tied: bool = True, **more: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(model_type, **(FIELDS[model_type] | more), tie_word_embeddings=tied)
    auto = AutoModelForCausalLM if FAMILIES[model_type].causal else AutoModelForMaskedLM
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = auto.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases and norms, whose zeros and ones would hide mistakes
                parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def ids() -> torch.Tensor:
    return tiny.some_ids().clamp_min(2)  # no padding, which RoBERTa gives a position of its own


def inside(model_type: str) -> str:
    """All that can be factorized inside of the blocks."""
    return "all" if FAMILIES[model_type].has_attention else "feed_forward"


def everything(model_type: str) -> str:
    """All that can be factorized."""
    return f"{inside(model_type)},embedding,head"


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


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
    known = {site.path for site in plan.sites if site.block is not None}
    assert known == blocks if plan.family.has_attention else known < blocks
    assert model.get_submodule(plan.sites[0].path) is model.get_input_embeddings()
    assert model.get_submodule(plan.sites[-1].path) is model.get_output_embeddings()
    for feed_forward in plan.feed_forwards:
        assert tuple(weight_of(model.get_submodule(feed_forward.down)).shape) == (tiny.DIM, tiny.WIDTH)
        shares = [
            share
            for path in feed_forward.expanding
            for share in feed_forward.split(weight_of(model.get_submodule(path)))
        ]
        assert [tuple(share.shape) for share in shares] == [(tiny.WIDTH, tiny.DIM)] * len(shares)
        assert len(shares) == 1 + (feed_forward.gate is not None)


@CASES
def test_a_full_rank_replacement_of_every_matrix_leaves_the_logits(model_type: str, tied: bool, tmp_path: Path) -> None:
    model = build(model_type, tied=tied)
    bench = tiny.bench(model, tmp_path)
    report = Factorize(method={"name": "van_loan", "right": (2, 2), "terms": 4}, sites=everything(model_type)).run(
        bench
    )
    assert len(structured_layers(bench.student)) == len(layout(model).sites)
    torch.testing.assert_close(tiny.logits(bench.student, ids()), tiny.logits(model, ids()), atol=3e-5, rtol=1e-5)
    assert max(module.relative_error for module in report.modules) < 1e-5


@CASES
def test_ties_stay_tied_and_are_counted_once(model_type: str, tied: bool, tmp_path: Path) -> None:
    model = build(model_type, tied=tied)
    bench = tiny.bench(model, tmp_path)
    report = Factorize(method={"name": "van_loan", "right": (1, 2), "scales": True}, sites=everything(model_type)).run(
        bench
    )
    student = adopt(bench.student)
    embedding, head = student.get_input_embeddings(), tiny.factors_of(student.get_output_embeddings())
    for name in ("left", "right", "scales"):
        assert (getattr(embedding, name) is getattr(head, name)) is tied
    modules = report.modules
    assert len(modules) == len(layout(student).sites) - tied
    saved = sum(module.parameters_before - module.parameters_after for module in modules)
    assert count(model) - count(student) == saved
    assert report.parameters == count(student)


@CASES
def test_a_step_of_training_keeps_the_tie(model_type: str, tied: bool, tmp_path: Path) -> None:
    bench = tiny.bench(build(model_type, tied=tied), tmp_path)
    Factorize(method={"name": "van_loan", "right": (2, 2), "terms": 2}, sites=everything(model_type)).run(bench)
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


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.causal])
def test_generation_with_a_cache_gives_what_it_gave(model_type: str, tmp_path: Path) -> None:
    model = build(model_type)
    bench = tiny.bench(model, tmp_path)
    Factorize(method={"name": "van_loan", "right": (2, 2), "terms": 4}, sites=everything(model_type)).run(bench)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    found, expected = (each.generate(ids(), **options) for each in (bench.student, model))
    assert torch.equal(found, expected)


@CASES
def test_the_stream_through_the_blocks_is_the_model(model_type: str, tied: bool, in_float32: None) -> None:
    model, windows = build(model_type, tied=tied), ids().view(4, 6)
    states: list[torch.Tensor] = []
    blocks = [model.get_submodule(path) for path in layout(model).block_paths]
    for block in blocks:
        block.register_forward_hook(lambda _, __, output: states.append(output[0] if type(output) is tuple else output))
    with torch.no_grad():
        model(input_ids=windows)
    expected = states.copy()
    stream = BlockStream.begin(model, windows)
    for block, state in enumerate(expected):
        stream.advance(model, block=block)
        assert torch.equal(torch.cat(stream.hidden), state)


@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_it_computes_the_same_with_the_attention_of_training(model_type: str) -> None:
    model = build(model_type)
    with training_attention(model):
        found = tiny.logits(model, ids())
    torch.testing.assert_close(found, tiny.logits(model, ids()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_what_a_loss_looks_at_has_the_shape_of_the_text(model_type: str) -> None:
    model = build(model_type)
    with torch.no_grad(), tracing(model, ("embedding", "blocks", "feed_forwards")) as trace:
        model(input_ids=ids())
    assert trace.taken().shape == (*ids().shape, 1 + 2 * tiny.DEPTH, tiny.DIM)


@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_a_narrow_model_is_what_its_config_says(model_type: str, tmp_path: Path) -> None:
    bench = tiny.bench(build(model_type), tmp_path)
    Prune(keep=0.5, fit={"tokens": 512, "window": 64, "rounds": 4}).run(bench)
    student = bench.student
    fresh = type(student)(copy.deepcopy(student.config))
    fresh.load_state_dict(student.state_dict())
    fresh.eval()
    assert torch.equal(tiny.logits(fresh, ids()), tiny.logits(student, ids()))


@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_a_truncated_model_is_what_its_config_says_and_generates_alike_with_a_cache(model_type: str) -> None:
    student = build(model_type)
    blocks = {"lfm2": [0, 1], "qwen3_5_text": [0, 1]}.get(model_type, [0, 2])  # one with attention among them
    keep_blocks(student, blocks)
    fresh = type(student)(copy.deepcopy(student.config)).eval()
    fresh.load_state_dict(student.state_dict())
    assert len(layout(fresh).block_paths) == 2
    assert torch.equal(tiny.logits(fresh, ids()), tiny.logits(student, ids()))
    if FAMILIES[model_type].causal:
        options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        cached, plain = (fresh.generate(ids(), use_cache=use, **options) for use in (True, False))
        assert torch.equal(cached, plain)


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.holder("up") != "up"])
def test_a_narrow_model_is_its_kronecker_form_where_gate_and_up_are_fused(
    model_type: str, in_float32: None, tmp_path: Path
) -> None:
    found = {}
    for form in ("narrow", "kronecker"):
        bench = tiny.bench(build(model_type), tmp_path)
        Prune(keep=0.5, form=form, fit={"tokens": 256, "window": 64, "rounds": 4}).run(bench)
        found[form] = tiny.logits(bench.student, ids())
    torch.testing.assert_close(found["narrow"], found["kronecker"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_the_base_model_alone_has_the_same_blocks(model_type: str) -> None:
    model = build(model_type)
    base = model.base_model
    assert base_prefix(base) == ""
    prefix = base_prefix(model)
    expected = [site.path.removeprefix(prefix) for site in layout(model).sites[:-1]]
    assert [site.path for site in layout(base).sites] == expected
    assert len(select_sites(base, inside(model_type))) == len(select_sites(model, inside(model_type)))


@pytest.mark.parametrize("head", ["tied", "untied", "dense"])
@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_each_head_over_a_factored_table_computes_saves_and_reopens(model_type: str, head: str, tmp_path: Path) -> None:
    bench = tiny.bench(build(model_type), tmp_path)
    Factorize(method={"name": "van_loan", "right": (1, 2)}, sites="embedding", head=head).run(bench)
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
    family = FAMILIES[model_type]
    assert len(found) == tiny.DEPTH * (1 + family.has_attention * (1 if family.rotary else 2))
    for fold in found:
        before = weight_of(model.get_submodule(fold.sides[0].path)).clone()
        size = fold.sides[0].take(before).shape[fold.sides[0].axis == "columns"]
        segment = fold.segment or size
        order = torch.cat([start + torch.randperm(segment) for start in range(0, size, segment)])
        reorder(model, fold, order)
        assert not torch.equal(weight_of(model.get_submodule(fold.sides[0].path)), before)
    torch.testing.assert_close(tiny.logits(model, ids()), expected, atol=1e-5, rtol=1e-5)


def test_shared_key_heads_and_rotary_positions_are_no_folds() -> None:
    assert len(layout(build("llama")).folds) == tiny.DEPTH  # the feed-forward blocks alone


@pytest.mark.parametrize(
    ("model_type", "permute"),
    [*((name, "folded") for name in ("gpt2", "llama", "bert", "phi3")), ("gpt2", "all")],  # each takes seconds
)
def test_a_permuted_start_is_no_worse_and_saves(model_type: str, permute: str, tmp_path: Path) -> None:
    model, errors = build(model_type), {}
    for how in ("none", permute):
        bench = tiny.bench(model, tmp_path)
        sites = f"{inside(model_type)},embedding"
        report = Factorize(method=PERMUTED | {"permute": how}, sites=sites, blocks=[0]).run(bench)
        errors[how] = {module.path: module.relative_error for module in report.modules}
    assert all(errors[permute][path] <= error * (1 + 1e-6) for path, error in errors["none"].items())
    assert sum(errors[permute].values()) < sum(errors["none"].values())
    kept = [layer for layer in structured_layers(bench.student).values() if list(layer.buffers())]
    assert bool(kept) is (permute == "all")
    again = kronpress.load(kronpress.save(bench.student, tmp_path / "saved"))
    assert torch.equal(tiny.logits(again, ids()), tiny.logits(bench.student, ids()))


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.has_attention])
def test_all_numbers_of_the_heads_in_other_coordinates_leave_the_logits(model_type: str, tmp_path: Path) -> None:
    model = build(model_type)
    bench = tiny.bench(model, tmp_path)
    shares = {"value_output": 1.0} | ({} if model_type in UNLIKE_SCORES else {"query_key": 1.0})
    record = Prune(keep=None, fit={"tokens": 2048, "window": 64, "ridge": 1e-1}, **shares).run(bench)
    family = FAMILIES[model_type]
    behind = family.closing_norm or family.attention_norm  # norms magnify what float32 rounds in a fit
    atol = 2e-3 if behind else 1e-4
    torch.testing.assert_close(tiny.logits(bench.student, ids()), tiny.logits(model, ids()), atol=atol, rtol=1e-4)
    assert all(change.relative_error < 5e-3 for change in record.modules)
    assert count(bench.student) == count(model) == record.parameters


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox", "bert"])  # separate, fused, alternating, no cache
def test_a_model_with_smaller_heads_opens_again(model_type: str, tmp_path: Path) -> None:
    bench = tiny.bench(build(model_type), tmp_path)
    shares = {"value_output": 0.5} | ({} if model_type in UNLIKE_SCORES else {"query_key": 0.5})
    record = Prune(keep=0.5, fit={"tokens": 512, "window": 64, "rounds": 4}, **shares).run(bench)
    saved = sum(change.parameters_before - change.parameters_after for change in record.modules)
    assert count(bench.teacher) - count(bench.student) == saved
    kronpress.save(bench.student, tmp_path / "small", tokenizer=bench.tokenizer)
    auto = AutoModelForCausalLM if FAMILIES[model_type].causal else AutoModelForMaskedLM
    again = auto.from_pretrained(tmp_path / "small")
    torch.testing.assert_close(tiny.logits(again, ids()), tiny.logits(bench.student, ids()))
    if FAMILIES[model_type].causal:
        options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        cached, plain = (again.generate(ids(), use_cache=use, **options) for use in (True, False))
        assert torch.equal(cached, plain)
