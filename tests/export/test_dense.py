"""A dense export is the model, opens without kronpress, and is refused where it is not the model."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers.pytorch_utils import Conv1D

import kronpress
from kronpress.checkpoint import structured_layers, write_checkpoint
from kronpress.export import DenseExporter, Export, dense, multiply_out, parity
from kronpress.export.plain import fill, twin
from kronpress.factorize import Factorize
from kronpress.layers import (
    KroneckerLinear,
    KroneckerLinearSpec,
    LowRankLinear,
    StructuredLayer,
    StructuredSpec,
    TableSpec,
    linear,
)
from kronpress.prune import Prune
from tests.conformance.test_families import CASES, build, everything, ids
from tests.conformance.test_layers import CASES as LAYERS
from tests.conformance.test_layers import built
from tests.tiny import bench, factorized, logits, tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer

Spoiler = Callable[[StructuredLayer], nn.Module]


def export(model: PreTrainedModel, folder: Path, **options: Any) -> tuple[Export, PreTrainedModel]:
    """Export beside `folder`'s other files, and open the result as transformers does."""
    done = DenseExporter().write(model, folder / "dense", **options)
    opened = type(multiply_out(model)).from_pretrained(done.folder)
    return done, opened.eval()


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@CASES
def test_each_family_comes_back_as_its_base_architecture(model_type: str, tied: bool, tmp_path: Path) -> None:
    original = build(model_type, tied=tied)
    student = factorized(original, tmp_path, sites=everything(model_type))
    expected, before, spec = logits(student, ids()), state(student), student.config.to_dict()
    done, opened = export(student, tmp_path, tokenizer=tiny_tokenizer())

    assert type(opened) is type(original)
    assert {name: type(module) for name, module in opened.named_modules()} == {
        name: type(module) for name, module in original.named_modules()
    }
    assert done.parameters == count(opened) == count(original)
    assert done.done == f"{len(structured_layers(student))} layers with factors or codes made dense"
    torch.testing.assert_close(logits(opened, ids()), expected, atol=1e-4, rtol=0)
    assert max(done.parity.as_run, done.parity.exact) <= 1e-4
    assert done.parity.weights <= 2**-23

    config = config_of(done.folder)
    assert (config["model_type"], config["architectures"]) == (model_type, [type(original).__name__])
    assert "quantization_config" not in config
    assert opened.config.tie_word_embeddings is tied
    assert (opened.get_input_embeddings().weight is opened.get_output_embeddings().weight) is tied
    kronpress.verify(done.folder)

    after = state(student)
    assert all(torch.equal(before[name], after[name]) for name in before | after)
    assert student.config.to_dict() == spec
    assert torch.equal(logits(student, ids()), expected)


@pytest.mark.parametrize("head", ["tied", "untied", "dense"])
@pytest.mark.parametrize("model", [tiny_llama, tiny_gpt2, tiny_bert])
def test_a_head_is_tied_where_the_student_ties_it(
    model: Callable[[], PreTrainedModel], head: str, tmp_path: Path
) -> None:
    work = bench(model(), tmp_path)
    Factorize(method={"name": "van_loan", "right": (1, 2)}, sites="embedding,head", head=head).run(work)
    done, opened = export(work.student, tmp_path)
    weights = [end.weight for end in (opened.get_input_embeddings(), opened.get_output_embeddings())]
    assert config_of(done.folder)["tie_word_embeddings"] is (weights[0] is weights[1]) is (head == "tied")
    torch.testing.assert_close(logits(opened), logits(work.student), atol=1e-4, rtol=0)


@pytest.mark.parametrize("spec", LAYERS, ids=repr)
def test_each_kind_of_layer_fills_its_place(spec: StructuredSpec) -> None:
    layer = built(spec, dtype=torch.float32)
    rows, columns = layer.matrix
    places = [nn.Embedding(rows, columns)] if isinstance(spec, TableSpec) else [nn.Linear(columns, rows)]
    if isinstance(places[0], nn.Linear):
        places.append(Conv1D(rows, columns))
    for place in places:
        fill(place, twin(layer), dtype=torch.float32, place="here")
        assert parity.layer_error(layer, place) <= 2**-23
        place.weight.data *= 1 + 2**-20
        assert parity.layer_error(layer, place) > 2**-23


@pytest.mark.parametrize(
    "fields",
    [
        {"method": {"name": "svd", "ratio": 0.5}},
        {"method": {"name": "pruning", "right": (1, 2)}},
        {"method": {"name": "van_loan_normalized", "right": (2, 1), "scales": True}},
        {"method": {"name": "van_loan", "right": (2, 2), "terms": 3, "scales": True}, "sites": "all"},
        {
            "method": {"name": "van_loan", "right": (2, 2), "permute": "all"},
            "sites": "feed_forward,embedding",
            "blocks": [0],
        },
    ],
    ids=str,
)
@pytest.mark.parametrize("model", [tiny_llama, tiny_gpt2])
def test_each_kind_of_factors_is_multiplied_out(
    model: Callable[[], PreTrainedModel], fields: dict[str, Any], tmp_path: Path
) -> None:
    work = bench(model(), tmp_path)
    Factorize(**fields).run(work)
    _, opened = export(work.student, tmp_path)
    torch.testing.assert_close(logits(opened), logits(work.student), atol=1e-4, rtol=0)


def test_a_bias_that_was_dropped_becomes_zero(tmp_path: Path) -> None:
    student = factorized(tiny_gpt2(), tmp_path, sites="all")
    for layer in structured_layers(student).values():
        if isinstance(layer, KroneckerLinear):
            layer.bias = None
    _, opened = export(student, tmp_path)
    up = opened.transformer.h[0].mlp.c_fc
    assert isinstance(up, Conv1D)
    assert not up.bias.any()
    torch.testing.assert_close(logits(opened), logits(student), atol=1e-4, rtol=0)


def test_a_bias_without_a_place_is_refused(tmp_path: Path) -> None:
    student = factorized(tiny_llama(), tmp_path, sites="up")
    student.model.layers[1].mlp.up_proj.bias = nn.Parameter(torch.ones(24))
    with pytest.raises(kronpress.KronpressError, match=r"layers\.1\.mlp\.up_proj has a bias"):
        export(student, tmp_path)


def test_a_layer_of_another_width_is_refused(tmp_path: Path) -> None:
    student = factorized(tiny_llama(), tmp_path, sites="up")
    student.model.layers[1].mlp.up_proj = KroneckerLinearSpec(left=(6, 8), right=(2, 2), bias=False).build()
    with pytest.raises(kronpress.KronpressError, match=r"up_proj is \(12, 16\) where .* \(24, 16\)"):
        export(student, tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_stays_in_it(dtype: torch.dtype, tmp_path: Path) -> None:
    source = kronpress.save(factorized(tiny_llama(), tmp_path), tmp_path / "student")
    student = kronpress.load(source, dtype=dtype)
    done, opened = export(student, tmp_path)
    assert {parameter.dtype for parameter in opened.parameters()} == {dtype}
    assert done.parity.number_format == str(dtype).removeprefix("torch.")
    assert done.parity.exact <= 1e-4 < done.parity.as_run <= 10 * done.parity.rounding
    assert "whose rounding alone moves" in done.parity.sentence(tolerance=1e-4)


def test_an_encoder_without_a_head_is_compared_by_its_hidden_states(tmp_path: Path) -> None:
    whole = kronpress.save(factorized(tiny_bert(), tmp_path), tmp_path / "student")
    done, opened = export(AutoModel.from_pretrained(whole), tmp_path)
    assert done.parity.outputs == "hidden state"
    assert type(opened).__name__ == "BertModel"
    kronpress.verify(done.folder)


@pytest.mark.parametrize("narrow", [True, False])
def test_a_model_without_factors_is_written_as_it_is(narrow: bool, tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    if narrow:
        Prune(keep=0.5, fit={"tokens": 2048, "window": 64}).run(work)
    done, opened = export(work.student, tmp_path)
    assert (done.done, done.parity.as_run) == ("a plain model, as it is", 0)
    assert torch.equal(logits(opened), logits(work.student))
    assert "a plain model" in (done.folder / "README.md").read_text()


def test_the_model_keeps_its_mode_and_is_not_held_twice(tmp_path: Path) -> None:
    student = factorized(tiny_gpt2(resid_pdrop=0.5), tmp_path, sites="up").train()
    plain = multiply_out(student)
    assert plain.transformer.ln_f.weight.data_ptr() == student.transformer.ln_f.weight.data_ptr()
    export(student, tmp_path)
    assert all(module.training for module in student.modules())


def test_what_was_generated_is_generated_again(tmp_path: Path) -> None:
    student = factorized(tiny_llama(), tmp_path)
    student.generation_config.max_new_tokens = 7
    done, opened = export(student, tmp_path, tokenizer=tiny_tokenizer())
    assert opened.generation_config.max_new_tokens == 7
    assert torch.equal(opened.generate(ids(), do_sample=False), student.generate(ids(), do_sample=False))
    assert kronpress.load_with_tokenizer(done.folder)[1] is not None
    card = (done.folder / "README.md").read_text()
    assert "LlamaForCausalLM.from_pretrained" in card
    assert done.parity.sentence(tolerance=1e-4) in card


def test_it_opens_without_kronpress(tmp_path: Path) -> None:
    student = factorized(tiny_gpt2(), tmp_path)
    done, _ = export(student, tmp_path, tokenizer=tiny_tokenizer())
    torch.save(logits(student), tmp_path / "expected.pt")
    code = """
import sys, torch, transformers
folder, expected = sys.argv[1:]
transformers.AutoTokenizer.from_pretrained(folder)
model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
assert not any(info.values()), info
with torch.no_grad():
    found = model(input_ids=torch.linspace(0, 263, 24).long().view(2, 12)).logits
assert (found - torch.load(expected)).abs().max() <= 1e-4
assert "kronpress" not in sys.modules
"""
    arguments = [sys.executable, "-c", code, str(done.folder), str(tmp_path / "expected.pt")]
    finished = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def forget_the_scales(layer: StructuredLayer) -> nn.Module:
    layer.scales = None
    return layer.to_dense()


def scale_by_a_thousandth(layer: StructuredLayer) -> nn.Module:
    return linear(layer.to_dense().weight * 1.001, bias=layer.bias)


def forget_a_term(layer: StructuredLayer) -> nn.Module:
    layer.left.data[-1] = 0
    return layer.to_dense()


def swap_the_factors(layer: StructuredLayer) -> nn.Module:
    weight = sum(torch.kron(b, a) for a, b in zip(*layer.factors(), strict=True))
    return linear(weight, bias=layer.bias)


def transpose_a_factor(layer: StructuredLayer) -> nn.Module:
    layer.right.data = layer.right.data.transpose(1, 2).contiguous()
    return layer.to_dense()


def lose_the_order_of_rows(layer: StructuredLayer) -> nn.Module:
    return linear(layer.to_dense().weight.roll(1, dims=0), bias=layer.bias)


def swap_two_rows(layer: StructuredLayer) -> nn.Module:
    weight = layer.to_dense().weight
    return linear(torch.cat([weight[:2].flip(0), weight[2:]]), bias=layer.bias)


def forget_the_bias(layer: StructuredLayer) -> nn.Module:
    return linear(layer.to_dense().weight, bias=None)


SPOILERS = [
    forget_the_scales,
    scale_by_a_thousandth,
    forget_a_term,
    swap_the_factors,
    transpose_a_factor,
    lose_the_order_of_rows,
    swap_two_rows,
    forget_the_bias,
]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_wrong_product_is_refused_by_each_proof(
    spoil: Spoiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three layers is multiplied out wrongly; its weight tells, and so do the networks."""
    student = factorized_up(tmp_path)
    right = DenseExporter().write(student, tmp_path / "right").parity

    def spoiled(layer: StructuredLayer) -> nn.Module:
        precise = copy.deepcopy(layer).double()
        return spoil(precise) if layer is student.transformer.h[1].mlp.c_fc else precise.to_dense()

    with monkeypatch.context() as patched:
        patched.setattr("kronpress.export.plain.twin", spoiled)
        patched.setattr("kronpress.export.parity.twin", spoiled)
        with pytest.raises(kronpress.KronpressError, match=r"h\.1\.mlp\.c_fc is off the product") as refused:
            DenseExporter().write(student, tmp_path / "folder" / "wrong")
        assert str(tmp_path / "folder" / "wrong") in str(refused.value)
        with torch.no_grad():
            wrong = parity.measure(student, multiply_out(student), inputs=[ids()])
    assert wrong.exact > 1e-4 > 1e-9 > right.exact, "the networks in float64 tell as well"
    assert names(tmp_path) == {"right"}


def factorized_up(folder: Path) -> PreTrainedModel:
    """A GPT-2 with square factors, scales that are not 1, and several terms."""
    work = bench(tiny_gpt2(), folder)
    Factorize(method={"name": "van_loan", "right": (2, 2), "terms": 3, "scales": True}, sites="up").run(work)
    for layer in structured_layers(work.student).values():
        layer.scales.data = torch.tensor([1.5, 0.5, -2.0])
    return work.student


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    "key", ["transformer.ln_f.weight", "transformer.h.2.attn.c_attn.bias", "transformer.wte.weight"]
)
def test_what_is_not_factored_is_compared_too(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = factorized_up(tmp_path)

    def write_wrongly(folder: Path, model: PreTrainedModel, **options: Any) -> None:
        write_checkpoint(folder, model, **options)
        tensors = load_file(folder / "model.safetensors")
        tensors[key] += 0.01
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(dense, "write_checkpoint", write_wrongly)
    with pytest.raises(kronpress.KronpressError, match=r"in float64, where 0\.0001 is allowed"):
        DenseExporter().write(student, tmp_path / "wrong")
    assert not names(tmp_path)


def test_a_config_that_computes_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = factorized(tiny_llama(), tmp_path)

    def write_wrongly(folder: Path, model: PreTrainedModel, **options: Any) -> None:
        write_checkpoint(folder, model, **options)
        (folder / "config.json").write_text(json.dumps(config_of(folder) | {"rms_norm_eps": 1e-2}))

    monkeypatch.setattr(dense, "write_checkpoint", write_wrongly)
    with pytest.raises(kronpress.KronpressError, match=r"in float64, where 0\.0001 is allowed"):
        DenseExporter().write(student, tmp_path / "wrong")
    assert not names(tmp_path)


def test_more_than_rounding_explains_is_refused() -> None:
    found = {"outputs": "logit", "number_format": "float32", "exact": 0.0, "weights": 0.0, "worst": ""}
    parity.Parity(as_run=4e-3, rounding=1e-3, **found).check(tolerance=1e-4, place="here")
    parity.Parity(as_run=1e-4, rounding=0.0, **found).check(tolerance=1e-4, place="here")
    for as_run, rounding in ((1.1e-2, 1e-3), (1.1e-4, 1e-6), (float("nan"), 1e-3)):
        with pytest.raises(kronpress.KronpressError, match="allow more with --tolerance"):
            parity.Parity(as_run=as_run, rounding=rounding, **found).check(tolerance=1e-4, place="here")


@pytest.mark.parametrize("layer", [0, 2])
def test_numbers_that_are_none_are_refused(layer: int, tmp_path: Path) -> None:
    student = factorized_up(tmp_path)
    student.transformer.h[layer].mlp.c_fc.left.data[0, 0, 0] = float("nan")
    with pytest.raises(kronpress.KronpressError, match=rf"transformer\.h\.{layer}\.mlp\.c_fc\.weight holds NaN"):
        DenseExporter().write(student, tmp_path / "wrong")


def test_a_folder_that_holds_something_is_untouched(tmp_path: Path) -> None:
    (tmp_path / "dense").mkdir()
    (tmp_path / "dense" / "thesis.tex").write_text("precious")
    with pytest.raises(kronpress.KronpressError, match="already holds files"):
        DenseExporter().write(tiny_llama(), tmp_path / "dense")
    assert names(tmp_path / "dense") == {"thesis.tex"}


def test_folders_are_made_and_an_empty_one_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for folder in (Path("a/b/c"), Path("empty")):
        DenseExporter().write(tiny_llama(), folder)
        kronpress.verify(folder)
    assert names(tmp_path) == {"a", "empty"}


def test_low_rank_factors_in_a_loaded_checkpoint(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    Factorize(method={"name": "svd", "ratio": 0.5}, sites="all").run(work)
    student = kronpress.load(kronpress.save(work.student, tmp_path / "student", tokenizer=tiny_tokenizer()))
    assert isinstance(student.model.layers[0].mlp.up_proj, LowRankLinear)
    done, opened = export(student, tmp_path)
    torch.testing.assert_close(logits(opened), logits(student), atol=1e-4, rtol=0)
    again = DenseExporter().write(kronpress.load(done.folder), tmp_path / "again")
    assert again.done == "a plain model, as it is"
    assert count(opened) == count(tiny_llama())
