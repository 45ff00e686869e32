from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.checkpoint import load, save
from kronpress.errors import KronpressError
from kronpress.footprint import footprint
from kronpress.layers import is_learning, quantized_tensors
from kronpress.quantize import Quantize
from kronpress.records import QuantizationRecord
from kronpress.step import Workbench
from kronpress.validation import parse
from tests.tiny import bench, factorized, logits, tiny_bert, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.usefixtures("in_float32")
Build = Callable[[], PreTrainedModel]
BUILDERS = pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert], ids=["llama", "gpt2", "bert"])
FIT = {"tokens": 2048, "window": 64}


def quantized(model: PreTrainedModel, folder: Path, **fields: Any) -> tuple[Workbench, QuantizationRecord]:
    work, step = bench(model, folder), parse(Quantize, fields, place="the step")
    step.check(work)
    return work, step.run(work)


@BUILDERS
def test_the_record_tells_bits_bytes_and_errors(build: Build, tmp_path: Path) -> None:
    work, record = quantized(build(), tmp_path, weights={"bits": 4, "group": 8}, tables=8)
    assert is_learning(work.student)
    by_role = {layer.role: layer for layer in record.layers}
    assert by_role["down"].bits == 4 + 16 / 8
    assert by_role["embedding"].bits == 8 + 16 / 16
    assert all(0 < layer.relative_error < 0.2 and layer.output_error is None for layer in record.layers)
    assert all(layer.bytes_after < layer.bytes_before for layer in record.layers)
    assert sum(record.parts.values()) == record.bytes
    save(work.student, tmp_path / "model")
    opened = load(tmp_path / "model")
    assert record.bytes == sum(tensor.nbytes for tensor in opened.state_dict(keep_vars=True).values()) - _tied(opened)
    assert footprint(opened).parameters == footprint(work.teacher).parameters


@BUILDERS
def test_the_record_tells_bytes_by_part_before_and_after(build: Build, tmp_path: Path) -> None:
    work = bench(build(), tmp_path)
    whole = sum(tensor.nbytes for tensor in work.student.parameters())
    first, second = (
        parse(Quantize, fields, place="the step").run(work)
        for fields in ({"weights": 8, "tables": 32}, {"weights": 32, "tables": 4})
    )
    assert sum(first.parts_before.values()) == whole
    assert first.parts["tables"] == first.parts_before["tables"]
    assert first.parts["weights"] < 0.6 * first.parts_before["weights"]
    assert second.parts_before == first.parts
    assert second.parts["weights"] == first.parts["weights"], "those of layers that the step leaves alone count too"
    assert second.parts["tables"] < 0.3 * first.parts["tables"]
    assert first.parts_before["other"] == first.parts["other"] == second.parts["other"] > 0


def _tied(model: PreTrainedModel) -> int:
    """Return the bytes that a state dict names twice."""
    named = model.state_dict(keep_vars=True).values()
    return sum(tensor.nbytes for tensor in named) - sum({id(tensor): tensor.nbytes for tensor in named}.values())


@BUILDERS
@pytest.mark.parametrize("bits", [3, {"bits": 2, "quantizer": "mse", "shift": True, "group": 8}], ids=str)
def test_rounds_bring_outputs_nearer(build: Build, bits: Any, tmp_path: Path) -> None:
    model = build()
    _, plain = quantized(model, tmp_path / "a", weights=bits, tables=32)
    work, record = quantized(model, tmp_path / "b", weights=bits, tables=32, fit=FIT)
    _, unrefined = quantized(model, tmp_path / "c", weights=bits, tables=32, fit=FIT | {"rounds": 0})
    inside = [layer for layer in record.layers if layer.block is not None]
    assert all(layer.output_error is not None for layer in inside)
    mean = [sum(layer.output_error or 0 for layer in found.layers) for found in (record, unrefined)]
    assert mean[0] <= mean[1]
    weights = [sum(layer.relative_error for layer in found.layers) for found in (record, plain)]
    assert weights[0] > weights[1]  # the weights themselves are further away
    assert is_learning(work.student)


def test_text_keeps_what_the_model_predicts(tmp_path: Path) -> None:
    model = tiny_llama()
    ids = bench(model, tmp_path).training_windows(size=64, tokens=1024)
    expected = logits(model, ids)
    errors = []
    for fit in ("nearest", FIT):
        work, _ = quantized(model, tmp_path, weights={"bits": 3, "group": 8}, tables=32, fit=fit)
        errors.append(float((logits(work.student, ids) - expected).norm() / expected.norm()))
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("tied", [True, False])
def test_text_brings_the_output_head_nearer(tied: bool, tmp_path: Path) -> None:
    model = tiny_llama(tie_word_embeddings=tied)
    ids = bench(model, tmp_path).training_windows(size=64, tokens=1024)
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state
        expected = model.lm_head(hidden)
    errors = []
    for fit in ("nearest", FIT):
        work, record = quantized(
            model, tmp_path, weights=32, tables={"bits": 3, "group": 8}, skip=None if tied else "embedding", fit=fit
        )
        with torch.no_grad():
            given = work.student.get_output_embeddings()(hidden)
        errors.append(float((given - expected).norm() / expected.norm()))
        assert [layer.role for layer in record.layers] == ["embedding" if tied else "head"]
        assert (record.layers[0].output_error is None) == (fit == "nearest")
    assert errors[1] < 0.9 * errors[0]


def test_tables_stay_nearest_where_their_quantizer_would_not_keep_other_codes(tmp_path: Path) -> None:
    tables = {"bits": 4, "quantizer": "maxabs", "group": 8}
    works = [quantized(tiny_llama(), tmp_path, weights=32, tables=tables, fit=fit)[0] for fit in ("nearest", FIT)]
    first, second = (work.student.get_submodule("model.embed_tokens").weight for work in works)
    assert torch.equal(first, second)


def test_inputs_get_ranges_from_the_text(tmp_path: Path) -> None:
    work, record = quantized(tiny_llama(), tmp_path, weights=8, inputs={"bits": 4, "quantizer": "lsq"})
    layer = work.student.get_submodule("model.layers.1.mlp.down_proj")
    assert layer.spec.inputs is not None
    assert layer.inputs.learned["scale"].item() > 0
    by_path = {inputs.path: inputs for inputs in record.inputs}
    told = by_path["model.layers.1.mlp.down_proj"]
    assert (told.role, told.block, told.levels) == ("down", 1, "int4")
    assert told.scale == pytest.approx(layer.inputs.learned["scale"].item())
    assert told.low is not None and told.high is not None and told.low < 0 < told.high
    assert record.formats is not None and record.formats.inputs is not None
    assert (record.formats.inputs.bits, record.formats.inputs.quantizer) == (4, "lsq")


def test_layers_with_factors_are_quantized_too(tmp_path: Path) -> None:
    model = factorized(tiny_llama(), tmp_path, sites="feed_forward")
    work, record = quantized(model, tmp_path, weights=4, tables=32, fit=FIT)
    by_path = {layer.path: layer for layer in record.layers}
    assert by_path["model.layers.0.mlp.up_proj"].output_error is None
    assert by_path["model.layers.0.self_attn.q_proj"].output_error is not None
    assert all(tensor.grid.levels == "int4" for tensor in quantized_tensors(work.student))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": 4, "fit": "gptq"}, "unknown fit 'gptq'"),
        ({"weights": 4, "fit": {"rounds": -1}}, "rounds"),
        ({"weights": {"bits": 4, "quantizer": "maxabs"}, "fit": FIT}, "that maxabs would not keep; take lsq or mse"),
        ({"weights": {"bits": 4, "group": 7}}, r"embed_tokens: groups of 7 do not divide rows of 16"),
        ({"weights": 4, "skip": "no_such"}, "matches no module"),
        ({"weights": 4, "fit": {"window": 1024}}, "too long for LlamaForCausalLM"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_done(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(KronpressError, match=message):
        quantized(tiny_llama(), tmp_path, **fields)


def test_a_weight_that_is_no_number_names_its_layer(tmp_path: Path) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.up_proj.weight")[0, 0] = torch.inf
    with pytest.raises(KronpressError, match=r"model.layers.1.mlp.up_proj: NaN or infinity"):
        quantized(model, tmp_path, weights=4)
