"""Rows and products of tensors on grids, computed from their codes."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kronpress.layers import (
    LEVELS,
    Coded,
    Grid,
    KroneckerLinear,
    QuantizedEmbedding,
    QuantizedLinear,
    QuantizedTensor,
    matrices_of,
)
from kronpress.layers.products import Columns, available
from kronpress.linalg import KroneckerSum
from kronpress.quantizers import LeastSquares

SHAPE = (11, 12)  # neither rows nor columns fill bytes of 1, 2 or 4 bits
GROUPS = ["tensor", "row", 4]
FEW, MANY = 2, 40  # tokens: products from columns, and with the numbers that are read for the moment
needs_columns = pytest.mark.skipif(not available(), reason="this torch has no fast sums of columns")


def on_grid(numbers: Tensor, grid: Grid, *, dtype: torch.dtype = torch.float32) -> QuantizedTensor:
    groups = grid.groups(numbers)
    scale, shift = grid.span(groups)
    return QuantizedTensor.of(Coded(grid.codes(groups, scale, shift), scale, shift), grid, numbers.shape, dtype=dtype)


def tensor(seed: int = 0, *, shape: tuple[int, int] = SHAPE, dtype: torch.dtype = torch.float32) -> QuantizedTensor:
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return on_grid(numbers, Grid(levels="int4", group=4), dtype=dtype)


def inputs(tokens: int, *, width: int = SHAPE[1]) -> Tensor:
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("group", GROUPS)
def test_rows_and_products_are_those_of_the_numbers(levels: str, shift: bool, group: str | int) -> None:
    grid = Grid.model_validate({"levels": levels, "shift": shift, "group": group})
    for shape in (SHAPE, (7, 4), (8, 300)):
        packed = on_grid(torch.randn(shape, generator=torch.Generator().manual_seed(1)), grid)
        numbers, ids = packed(), torch.tensor([[shape[0] - 1, 0], [3, 3]])
        assert torch.equal(packed.rows(ids), numbers[ids])
        for tokens in (1, FEW, MANY):
            x = inputs(tokens, width=shape[1])
            exact = F.linear(x.double(), numbers.double())
            bound = 1e-6 * x.double().abs().sum(dim=1, keepdim=True) * numbers.abs().max()
            assert ((packed.product(x).double() - exact).abs() <= bound).all()
            assert torch.equal(packed(times=x), packed.product(x))


@needs_columns
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("group", GROUPS)
def test_columns_hold_the_very_numbers(levels: str, group: str | int) -> None:
    for shift in (False, True):
        grid = Grid.model_validate({"levels": levels, "shift": shift, "group": group})
        packed = on_grid(torch.randn(SHAPE, generator=torch.Generator().manual_seed(2)), grid)
        coded = packed.coded()
        moved = None if coded.shift is None else coded.shift[..., 0]
        columns = Columns.of(coded.codes.view(SHAPE), coded.scale[..., 0], moved, grid=grid)
        assert torch.equal(columns.matrix(), packed())


@pytest.mark.parametrize("bad", [SHAPE[0], -1])
def test_an_id_without_a_row_is_an_error(bad: int) -> None:
    with pytest.raises(IndexError):
        tensor().rows(torch.tensor([0, bad]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_number_formats_agree_to_their_precision(dtype: torch.dtype) -> None:
    packed = tensor(dtype=dtype)
    for tokens in (FEW, MANY):
        x = inputs(tokens).to(dtype)
        y, exact = packed.product(x), F.linear(x.double(), packed().double())
        assert y.dtype == dtype
        error = (y.double() - exact).norm() / exact.norm()
        assert error < 2 * torch.finfo(dtype).eps


def test_autocast_gives_the_dtype_that_a_dense_product_has() -> None:
    packed = tensor()
    for tokens in (FEW, MANY):
        x = inputs(tokens)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected, y = F.linear(x, packed()), packed.product(x)
        assert y.dtype == expected.dtype == torch.bfloat16
        torch.testing.assert_close(y, expected, rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize("tokens", [FEW, MANY])
def test_gradients_reach_inputs_and_bias(tokens: int) -> None:
    packed, bias = tensor(), torch.zeros(SHAPE[0], requires_grad=True)
    packed.product(inputs(tokens))
    x = inputs(tokens).requires_grad_()
    packed.product(x, bias=bias).sum().backward()
    torch.testing.assert_close(x.grad, packed().sum(dim=0).expand(tokens, -1))
    packed.product(inputs(tokens), bias=bias).sum().backward()
    torch.testing.assert_close(bias.grad, torch.full_like(bias, 2 * tokens))


@pytest.mark.parametrize("unpacked", [False, True])
def test_loaded_codes_replace_what_was_kept(unpacked: bool) -> None:
    first, second, x = tensor(1), tensor(2), inputs(FEW)
    if unpacked:
        first.unpack()
    for assign in (False, True):
        for source in (second, tensor(3)):
            first.product(x), first()
            first.load_state_dict(source.state_dict(), assign=assign)
            assert torch.equal(first(), source())
            torch.testing.assert_close(first.product(x), source.product(x))


def test_codes_and_scales_that_change_in_place_are_seen() -> None:
    packed, x = tensor(), inputs(FEW)
    before, numbers = packed.product(x), packed()
    assert packed.scale is not None
    packed.scale.mul_(2)
    assert torch.equal(packed(), 2 * numbers)
    torch.testing.assert_close(packed.product(x), 2 * before)
    packed.scale = packed.scale / 2
    torch.testing.assert_close(packed.product(x), before)


def test_it_learns_and_moves_after_it_has_computed() -> None:
    packed, x = tensor(), inputs(FEW)
    before = packed.product(x)
    packed.to(torch.bfloat16)
    assert packed().dtype == packed.product(x.bfloat16()).dtype == torch.bfloat16
    packed.to(torch.float32)
    torch.testing.assert_close(packed.product(x), before)
    packed.learn(LeastSquares())
    torch.testing.assert_close(packed.product(x), before)
    with torch.no_grad():
        assert packed.latent is not None
        packed.latent.neg_()
    packed.pack()
    assert not torch.allclose(packed.product(x), before)
    torch.testing.assert_close(packed.product(x), F.linear(x, packed()))
    assert packed.to("meta")().is_meta


def test_copies_and_pickles_are_of_the_codes_alone() -> None:
    fresh, used, x = tensor(shape=(64, 64)), tensor(shape=(64, 64)), inputs(FEW, width=64)
    expected = used.product(x)
    used()
    assert list(used.state_dict()) == list(fresh.state_dict())
    sizes = []
    for one in (fresh, used):
        file = io.BytesIO()
        torch.save(one, file)
        sizes.append(len(file.getvalue()))
    assert sizes[0] == sizes[1]
    twin = copy.deepcopy(used)
    assert twin.packed is not None
    twin.packed.zero_()
    assert torch.equal(used.product(x), expected)
    torch.testing.assert_close(twin.product(x), F.linear(x, twin()))


def test_what_was_kept_in_inference_mode_serves_training() -> None:
    packed = tensor()
    with torch.inference_mode():
        packed(), packed.product(inputs(FEW))
    x = inputs(FEW).requires_grad_()
    (F.linear(x, packed()) + packed.product(x)).sum().backward()
    assert x.grad is not None


def test_layers_compute_by_their_codes() -> None:
    numbers, x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)), inputs(FEW)
    linear = QuantizedLinear.of(numbers, bias=torch.ones(SHAPE[0]))
    table = QuantizedEmbedding.of(numbers)
    for layer in (linear, table):
        for matrix in matrices_of(layer):
            matrix.store(on_grid(numbers, Grid(levels="int2", group=4)))
    ids = torch.tensor([[1, 10]])
    with torch.no_grad():
        torch.testing.assert_close(linear(x), linear.to_dense()(x))
        torch.testing.assert_close(table(x, score=True), F.linear(x, table.to_dense().weight))
    assert torch.equal(table(ids), table.to_dense()(ids))


def test_a_dense_twin_does_not_share_what_is_kept() -> None:
    table = QuantizedEmbedding.of(torch.randn(SHAPE, generator=torch.Generator().manual_seed(4)))
    for matrix in matrices_of(table):
        matrix.store(on_grid(matrix.tensor.detach(), Grid(levels="int4")))
    before = table.dense_weight().clone()
    with torch.no_grad():
        table.to_dense().weight.zero_()
    assert torch.equal(table.dense_weight(), before)


def test_small_factors_are_read_once() -> None:
    layer = KroneckerLinear.of(KroneckerSum(torch.randn(1, 3, 4), torch.randn(1, 2, 2)))
    for matrix in list(matrices_of(layer)):
        matrix.store(on_grid(matrix.tensor.detach(), Grid(levels="int4")))
    assert layer.left is layer.left
    left = layer.on_grid("left")
    assert left is not None
    assert left.scale is not None
    kept = layer.left
    left.scale.mul_(2)
    assert torch.equal(layer.left, 2 * kept)
