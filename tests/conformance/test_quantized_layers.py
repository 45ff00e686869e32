"""What every structured layer must satisfy when its tensors lie on grids."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
import torch

from kronpress.layers import (
    FactoredEmbedding,
    Grid,
    InputGrid,
    QuantizedTensor,
    RoundedInputs,
    StructuredLayer,
    StructuredSpec,
    TensorFormat,
    matrices_of,
    parse_spec,
    quantized_tensors,
    spanning,
)
from kronpress.quantizers import LeastSquares
from tests.conformance.test_layers import EXAMPLES, an_input, built, spec_of

GRIDS = [
    Grid(levels="int4", group="tensor"),
    Grid(levels="uint3", group="row", shift=True),
    Grid(levels="binary", group="row", scale="float32"),
    Grid(levels="ternary", group="tensor", scale="bfloat16"),
]
CASES = [spec_of(kind, fields) for kind, examples in EXAMPLES.items() for fields in examples[:2]]


def quantized(spec: StructuredSpec, grid: Grid, *, dtype: torch.dtype = torch.float32) -> StructuredLayer:
    """Return a layer all of whose matrices have been rounded to a grid."""
    layer = built(spec, dtype=dtype)
    for matrix in list(matrices_of(layer)):
        coded = spanning(grid.groups(matrix.tensor.detach().float()), grid)
        matrix.store(QuantizedTensor.of(coded, grid, matrix.tensor.shape, dtype=dtype))
    return layer


@pytest.mark.parametrize(("spec", "grid"), list(zip(CASES, itertools.cycle(GRIDS), strict=False)), ids=repr)
def test_it_computes_as_its_dense_twin(spec: StructuredSpec, grid: Grid) -> None:
    layer = quantized(spec, grid)
    given = an_input(layer)
    torch.testing.assert_close(layer(given), layer.to_dense()(given))


@pytest.mark.parametrize("spec", CASES, ids=repr)
def test_its_spec_and_state_make_it_again(spec: StructuredSpec) -> None:
    layer = quantized(spec, GRIDS[1])
    assert layer.spec != spec
    again = parse_spec(json.loads(json.dumps(layer.spec.model_dump(mode="json"))), StructuredSpec, place="its JSON")
    twin = again.build(dtype=torch.float32)
    twin.load_state_dict(layer.state_dict())
    given = an_input(layer)
    assert again == twin.spec == layer.spec
    assert torch.equal(twin(given), layer(given))


@pytest.mark.parametrize(("spec", "grid"), list(zip(CASES, itertools.cycle(GRIDS), strict=False)), ids=repr)
def test_its_spec_names_and_prices_what_it_stores(spec: StructuredSpec, grid: Grid) -> None:
    layer, model = quantized(spec, grid), TensorFormat.of(torch.float32)
    stored, form = layer.state_dict(), layer.spec
    assert {name: tensor.shape for name, tensor in form.state.items()} == {
        name: tuple(value.shape) for name, value in stored.items()
    }
    assert form.bytes(model) == layer.byte_count == sum(value.nbytes for value in stored.values())
    assert form.parameters == spec.parameters
    empty = form.build(device="meta", dtype=torch.bfloat16).state_dict()
    assert {name: value.shape for name, value in empty.items()} == {n: value.shape for n, value in stored.items()}


@pytest.mark.parametrize(("spec", "grid"), list(zip(CASES, itertools.cycle(GRIDS), strict=False)), ids=repr)
def test_it_learns_packs_and_unpacks_without_a_change(spec: StructuredSpec, grid: Grid) -> None:
    layer = quantized(spec, grid)
    given, state = an_input(layer), copy.deepcopy(layer.state_dict())
    expected = layer(given)
    for tensor in quantized_tensors(layer):
        tensor.unpack()
    assert torch.equal(layer(given), expected)
    for tensor in quantized_tensors(layer):
        tensor.learn(LeastSquares())
    assert torch.equal(layer(given), expected)
    assert all(tensor.latent is not None for tensor in quantized_tensors(layer))
    layer(given).square().sum().backward()
    for tensor in quantized_tensors(layer):
        assert tensor.latent is not None
        assert tensor.latent.grad is not None
        tensor.pack()
    assert torch.equal(layer(given), expected)
    assert {name: value.tolist() for name, value in state.items()} == {
        name: value.tolist() for name, value in layer.state_dict().items()
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_another_number_format_leaves_scales_as_they_are(dtype: torch.dtype) -> None:
    layer = quantized(CASES[0], Grid(levels="int4", group="row"))
    scales = [tensor.scale for tensor in quantized_tensors(layer)]
    layer.to(dtype)
    for scale, tensor in zip(scales, quantized_tensors(layer), strict=True):
        assert tensor.scale is not None
        assert scale is not None
        assert torch.equal(tensor.scale, scale)
        assert tensor.scale.dtype == torch.float16
        assert tensor().dtype == dtype
    assert layer(an_input(layer)).dtype == dtype


LINEAR = [spec for spec in CASES if not isinstance(built(spec), FactoredEmbedding)]


@pytest.mark.parametrize("spec", LINEAR, ids=repr)
def test_its_inputs_are_rounded(spec: StructuredSpec) -> None:
    plain = quantized(spec, GRIDS[0])
    layer = copy.deepcopy(plain)
    rounding = RoundedInputs(InputGrid(levels="int3"))
    layer.round_inputs(rounding)
    given = an_input(layer)
    assert layer.spec.inputs == rounding.grid
    assert not torch.equal(layer(given), plain(given))
    assert torch.equal(layer(given), plain(rounding(given)))
    twin = layer.spec.build(dtype=torch.float32)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(given), layer(given))


def test_a_stored_range_is_part_of_the_layer() -> None:
    grid = InputGrid(levels="uint4", dynamic=False, shift=True)
    rounding = RoundedInputs(grid)
    assert rounding.scale is not None
    assert rounding.shift is not None
    rounding.scale.fill_(0.5)
    rounding.shift.fill_(-1)
    layer = quantized(LINEAR[0], GRIDS[0])
    layer.round_inputs(rounding)
    assert rounding(torch.tensor([-3.0, -0.8, 0.1, 99])).tolist() == [-1.0, -1.0, 0.0, 6.5]
    assert {name: tensor.shape for name, tensor in layer.spec.state.items()} == {
        name: tuple(value.shape) for name, value in layer.state_dict().items()
    }
