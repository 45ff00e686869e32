"""What of a model goes on which grid, and that the model computes with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, PreTrainedModel

from kronpress.checkpoint import adopt, load, save
from kronpress.errors import KronpressError
from kronpress.layers import Matrix, QuantizedEmbedding, QuantizedLinear, is_learning, matrices_of, pack, packed
from kronpress.quantizers import Scheme, keep_progress, learning, take_progress
from tests.tiny import factorized, logits, some_ids, tiny_bert, tiny_gpt2, tiny_llama

Build = Callable[[], PreTrainedModel]
BUILDERS = pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert], ids=["llama", "gpt2", "bert"])


def put(model: PreTrainedModel, scheme: Scheme) -> PreTrainedModel:
    for target in scheme.targets(model):
        layer = target.layer(model)
        for matrix in target.matrices(layer):
            target.put(matrix)
        target.round_inputs(layer, example=torch.randn(2, 3, layer.matrix[1]))
    return model


def scheme_of(**fields: object) -> Scheme:
    return Scheme.model_validate(fields)


@BUILDERS
def test_all_matrices_and_tables_go_on_grids(build: Build) -> None:
    model = put(build(), scheme_of(weights=4, tables=8))
    left = [name for name, parameter in model.named_parameters() if parameter.dim() > 1 and ".stored." not in name]
    assert [name for name in left if "predictions.transform" not in name] == []
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear | QuantizedEmbedding)]
    bits = {type(layer): {grid.levels for grid in layer.spec.stored.values()} for layer in layers}
    assert bits == {QuantizedLinear: {"int4"}, QuantizedEmbedding: {"int8"}}


@pytest.mark.parametrize("quantizer", ["mse", "lsq"])
@pytest.mark.parametrize("shift", [False, True])
def test_codes_that_were_found_stay_with_latent_numbers_near_to_those_before(quantizer: str, shift: bool) -> None:
    storage = {"bits": 3, "quantizer": quantizer, "group": 8, "shift": shift}
    (target, *_) = scheme_of(weights=storage, tables=32).targets(model := tiny_llama())
    (matrix,) = matrices_of(target.layer(model))
    before, grid = matrix.latent.clone(), target.storage.grid()
    nearest = target.storage.quantizer.coded(before, grid)
    codes = (
        nearest.codes + torch.randint(-1, 2, nearest.codes.shape, generator=torch.Generator().manual_seed(0))
    ).clamp(0, grid.base - 1)
    error = target.put(matrix, coded=nearest._replace(codes=codes))
    assert matrix.quantized is not None
    assert torch.equal(matrix.quantized.coded().codes, codes)
    assert 0 < float((matrix.latent - before).norm() / before.norm()) < 0.8 * error


@BUILDERS
def test_eight_bits_change_little_and_one_bit_much(build: Build) -> None:
    ids, dense = some_ids(), logits(build(), some_ids())
    errors = [float((logits(put(build(), scheme_of(weights=bits)), ids) - dense).norm() / dense.norm())
              for bits in (8, 4, 2, 1)]  # fmt: skip
    assert errors == sorted(errors)
    assert errors[0] < 0.02 < 0.5 < errors[-1]


@BUILDERS
def test_what_learns_computes_what_is_packed(build: Build, tmp_path: Path) -> None:
    model = put(build(), scheme_of(weights={"bits": 2, "quantizer": "lsq"}, tables=4, inputs=4)).eval()
    ids = some_ids()
    expected = logits(model, ids)
    with packed(model):
        assert not is_learning(model)
        assert torch.equal(logits(model, ids), expected)
    assert is_learning(model)
    save(adopt(model), tmp_path / "model")
    opened = load(tmp_path / "model")
    assert torch.equal(logits(opened, ids), expected)
    assert torch.equal(logits(load(tmp_path / "model", unpack=True), ids), expected)


@BUILDERS
def test_learning_goes_on_from_where_it_was_kept(build: Build, tmp_path: Path) -> None:
    model = put(build(), scheme_of(weights={"bits": 2, "quantizer": "lsq"}, inputs=4))
    with torch.no_grad():
        for _, part in learning(model):
            for parameter in part.parameters():
                parameter.add_(0.01 * torch.rand_like(parameter))
    save(adopt(model), tmp_path / "model")
    keep_progress(model, tmp_path / "progress.safetensors")
    opened = load(tmp_path / "model")
    assert not is_learning(opened)
    take_progress(opened, tmp_path / "progress.safetensors")
    before, after = dict(model.named_parameters()), dict(opened.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [part.rule for _, part in learning(opened)] == [part.rule for _, part in learning(model)]


def test_progress_cut_short_is_refused(tmp_path: Path) -> None:
    model = put(tiny_llama(), scheme_of(weights=4))
    path = tmp_path / "progress.safetensors"
    keep_progress(model, path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(KronpressError, match=r"progress.safetensors is damaged"):
        take_progress(model, path)


@pytest.mark.parametrize("least", [1, 64])
def test_factors_go_on_grids_but_for_small_ones(least: int, tmp_path: Path) -> None:
    model = factorized(tiny_bert(), tmp_path, sites="all,embedding")
    put(model, scheme_of(weights={"bits": 4, "least": least}))
    matrices: list[Matrix] = list(matrices_of(model))
    assert {matrix.name for matrix in matrices} >= {"left", "right"}
    small = [matrix for matrix in matrices if matrix.name != "weight" and math.prod(matrix.shape) < least]
    assert [matrix for matrix in matrices if matrix.quantized is None] == small
    assert bool(small) == (least == 64)
    ids, expected = some_ids(), logits(model, some_ids())
    pack(model)
    assert torch.equal(logits(model, ids), expected)


def test_fewer_bits_go_on_from_latent_numbers() -> None:
    model = put(tiny_llama(), scheme_of(weights=8))
    (target, *_), scheme = scheme_of(weights=2).targets(model), scheme_of(weights=2)
    latent = {id(matrix.layer): matrix.latent.clone() for matrix in matrices_of(model)}
    put(model, scheme)
    for matrix in matrices_of(model):
        assert torch.equal(matrix.latent, latent[id(matrix.layer)])
        tensor = matrix.quantized
        assert tensor is not None
        assert tensor.grid.levels == "int2"
        assert target.holds(matrix)


def test_inputs_are_rounded_once_however_often_that_is_said() -> None:
    model = put(tiny_llama(), scheme_of(weights=8, inputs=8))
    put(model, scheme_of(weights=8, inputs=2))
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    assert isinstance(layer, QuantizedLinear)
    assert len(layer._forward_pre_hooks) == 1
    assert layer.spec.inputs is not None
    assert layer.spec.inputs.levels == "int2"


def test_what_is_skipped_stays_dense() -> None:
    model = put(tiny_llama(), scheme_of(weights=4, skip="down,embedding"))
    assert type(model.get_submodule("model.layers.0.mlp.down_proj")) is torch.nn.Linear
    assert type(model.get_submodule("model.embed_tokens")) is torch.nn.Embedding
    assert isinstance(model.get_submodule("model.layers.0.mlp.up_proj"), QuantizedLinear)


@pytest.mark.parametrize("skip", ["head", "embedding"])
def test_a_tied_head_that_is_skipped_keeps_its_table(skip: str) -> None:
    model = put(tiny_llama(), scheme_of(weights=1, skip=skip))
    assert isinstance(model.get_output_embeddings(), torch.nn.Linear)
    assert isinstance(model.get_input_embeddings(), torch.nn.Embedding)
    assert all(isinstance(block.mlp.up_proj, QuantizedLinear) for block in model.model.layers)


def test_a_decoder_sees_no_later_tokens_by_the_rounding_of_its_inputs() -> None:
    with pytest.raises(KronpressError, match="tells a decoder of later tokens; set group: row"):
        scheme_of(weights=4, inputs={"bits": 8, "group": "tensor"}).targets(tiny_llama())
    model, ids = put(tiny_llama(), scheme_of(weights=4, inputs=8)).eval(), some_ids()
    other = ids.clone()
    other[:, 6:] = 7
    torch.testing.assert_close(logits(model, other)[:, :6], logits(model, ids)[:, :6], atol=1e-6, rtol=1e-6)
    found = {target.rounding.group for target in scheme_of(weights=4, inputs=8).targets(tiny_bert()) if target.rounding}
    assert found == {"tensor"}, "an encoder sees all tokens"


def test_a_group_that_does_not_divide_names_the_layer() -> None:
    with pytest.raises(KronpressError, match=r"embed_tokens: groups of 64 do not divide rows of 16; set group to row"):
        scheme_of(weights={"bits": 4, "group": 64}).require(tiny_llama())


def test_numbers_that_no_grid_has_name_the_layer() -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.up_proj.weight")[0, 0] = torch.nan
    with pytest.raises(KronpressError, match=r"model.layers.1.mlp.up_proj: NaN or infinity"):
        put(model, scheme_of(weights=4))


def test_a_base_model_alone_is_quantized_and_opens(tmp_path: Path) -> None:
    model = put(tiny_bert().base_model, scheme_of(weights=4))
    save(adopt(model), tmp_path / "model")
    ids = some_ids()
    opened = AutoModel.from_pretrained(tmp_path / "model")
    assert torch.equal(opened(input_ids=ids)[0], model(input_ids=ids)[0])
