"""What every quantizer on the shelf must satisfy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from kronpress.errors import KronpressError
from kronpress.layers import LEVELS, Coded, Grid, InputGrid, QuantizedTensor, RoundedInputs
from kronpress.quantizers import BITS, QUANTIZERS, Quantizer, learned_names
from kronpress.validation import parse_named

EXAMPLES: dict[str, list[dict[str, Any]]] = {  # more than the defaults
    "bwn": [{}, {"clip": None}],
    "twn": [{}, {"clip": None, "threshold": 0.5}],
    "laq": [{}, {"iterations": 2}],
    "lsq": [{}, {"init": "nearest"}],
    "elastic": [{}, {"set": "zero_one"}],
    "module_wise": [{}, {"gamma": 2.0}],
}
ALL = [quantizer(**fields) for name, quantizer in QUANTIZERS.items() for fields in EXAMPLES.get(name, [{}])]
ROUNDING = [quantizer for quantizer in ALL if quantizer.inputs is not None]
KEEPING = ("lsq", "elastic", "mse")  # the scales of a start
GROUPS: list[Any] = ["tensor", "row", 8]
QUANTIZER = pytest.mark.parametrize("quantizer", ALL, ids=repr)
CONSTANTS = {"zeros": torch.zeros(4, 16), "ones": torch.full((4, 16), 0.3), "minus": torch.full((4, 16), -0.3)}


def grids(quantizer: Quantizer) -> Iterator[Grid]:
    """Every levels with every group, and scales in turn; bfloat16 rounds the scale of 256 levels by half a level."""
    formats = itertools.cycle(["float16", "float32", "bfloat16"])
    for shift in (False, True):
        for levels, group in itertools.product(quantizer.levels(shift=shift), GROUPS):
            scale = next(formats) if BITS[levels] < 8 else "float16"
            yield Grid.model_validate({"levels": levels, "shift": shift, "group": group, "scale": scale})


def weights() -> torch.Tensor:
    return torch.randn(6, 32, generator=torch.Generator().manual_seed(0))


def learning(quantizer: Quantizer, grid: Grid, numbers: torch.Tensor) -> QuantizedTensor:
    tensor = QuantizedTensor(grid, numbers.shape, device="meta", dtype=torch.float32)
    tensor.learn(quantizer, latent=numbers)
    return tensor


@QUANTIZER
def test_packing_a_tensor_that_learned_changes_nothing(quantizer: Quantizer) -> None:
    for grid in grids(quantizer):
        tensor = learning(quantizer, grid, weights())
        values, coded = tensor().detach().clone(), tensor.coded()
        assert torch.equal(values, grid.values(*coded).view(6, 32))
        assert torch.equal(coded.scale, grid.rounded(coded.scale))
        tensor.pack()
        assert torch.equal(tensor(), values)


@QUANTIZER
def test_numbers_on_the_grid_stay_where_they_are(quantizer: Quantizer) -> None:
    for grid in grids(quantizer):
        groups = grid.groups(weights())
        coded = quantizer.code(groups, grid, quantizer.begin(groups, grid, None))
        values = grid.values(*coded)
        if quantizer.kind == "module_wise":  # its scales follow the mean size, which is another now
            again = Coded(grid.codes(values, coded.scale), coded.scale)
        else:
            again = quantizer.code(values, grid, quantizer.begin(values, grid, coded))
        torch.testing.assert_close(grid.values(*again), values)
        assert torch.equal(again.codes, coded.codes)
        if quantizer.kind in KEEPING:
            assert torch.equal(grid.values(*again), values)


@QUANTIZER
def test_every_gradient_is_finite_and_reaches_what_learns(quantizer: Quantizer) -> None:
    for grid in grids(quantizer):
        tensor = learning(quantizer, grid, weights())
        (tensor() * weights()).sum().backward()
        assert tensor.latent is not None
        assert tensor.latent.grad is not None
        assert tensor.latent.grad.isfinite().all()
        assert tensor.latent.grad.count_nonzero() > 0
        for name, parameter in tensor.learned.items():
            assert parameter.requires_grad == (name not in quantizer.fixed)
            assert (parameter.grad is not None) == parameter.requires_grad
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all()
        wanted = [f"learned.{name}" for name in tensor.learned if name not in quantizer.fixed]
        assert learned_names(tensor) == wanted


@QUANTIZER
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_are_put_on_the_grid(quantizer: Quantizer, name: str) -> None:
    for grid in grids(quantizer):
        tensor = learning(quantizer, grid, CONSTANTS[name])
        values = tensor()
        values.sum().backward()
        assert values.isfinite().all()
        assert len(values.unique()) == 1
        if name == "zeros":
            assert values.abs().max() < 1e-6
        for parameter in tensor.parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all()


@QUANTIZER
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_no_grid_has_are_refused(quantizer: Quantizer, wrong: float) -> None:
    grid = next(grids(quantizer))
    groups = grid.groups(weights())
    learned = quantizer.begin(groups, grid, None)
    groups[0, 0, 3] = wrong
    with pytest.raises(KronpressError, match="NaN or infinity among the 192 numbers"):
        quantizer.begin(groups, grid, None)
    with pytest.raises(KronpressError, match="NaN or infinity"):
        quantizer.code(groups, grid, learned)
    with pytest.raises(KronpressError, match="NaN or infinity"):
        quantizer.value(groups, grid, learned)


@QUANTIZER
def test_numbers_beyond_the_format_of_scales_are_refused(quantizer: Quantizer) -> None:
    grid = next(grids(quantizer)).model_copy(update={"scale": "float16"})
    with pytest.raises(KronpressError, match="numbers up to 60000 need larger scales than float16; set scale"):
        quantizer.begin(torch.full((1, 1, 4), 60000.0), grid, None)


@QUANTIZER
def test_numbers_below_the_format_of_scales_are_refused(quantizer: Quantizer) -> None:
    grid = next(grids(quantizer)).model_copy(update={"scale": "float16"})
    with pytest.raises(KronpressError, match="numbers up to 1e-07 need finer scales than float16; set scale"):
        quantizer.begin(torch.full((1, 1, 4), 1e-7), grid, None)
    finer = grid.model_copy(update={"scale": "bfloat16"})
    quantizer.begin(torch.full((1, 1, 4), 1e-7), finer, None)


@QUANTIZER
def test_levels_that_it_can_not_do_are_refused_with_those_who_can(quantizer: Quantizer) -> None:
    for levels, shift in itertools.product(LEVELS, (False, True)):
        grid = Grid(levels=levels, shift=shift, group="row")
        if levels in quantizer.levels(shift=shift):
            quantizer.require(grid)
        else:
            with pytest.raises(KronpressError, match=rf"{quantizer.kind} can not put numbers on {levels} with"):
                quantizer.coded(weights(), grid)


@QUANTIZER
@pytest.mark.parametrize("shift", [None, False, True])
@pytest.mark.parametrize("bits", [1, 1.58, 2, 3, 4, 8])
def test_bits_stand_for_a_grid_or_are_refused(quantizer: Quantizer, bits: float, shift: bool | None) -> None:
    try:
        grid = quantizer.grid(bits, group=8, scale="bfloat16", shift=shift)
    except KronpressError as error:
        assert f"{quantizer.kind} can not do {bits} bits with" in str(error)
        assert all(BITS[levels] != bits for levels in quantizer.levels(shift=bool(shift)))
        return
    assert (grid.group, grid.scale) == (8, "bfloat16")
    assert shift in (None, grid.shift)
    assert BITS[grid.levels] == bits or (grid.levels, bits) == ("ternary", 2)
    quantizer.require(grid)


def test_a_refusal_offers_what_can_do_it() -> None:
    with pytest.raises(KronpressError, match=r"twn can not do 4 bits without a shift; set bits to 1\.58.*or take lsq"):
        QUANTIZERS["twn"]().grid(4)
    with pytest.raises(KronpressError, match=r"twn can not put numbers on int4 without a shift; take lsq or laq or"):
        QUANTIZERS["twn"]().require(Grid(levels="int4"))
    with pytest.raises(
        KronpressError, match=r"twn can not put numbers on int8 with a shift; no quantizer can; set shift"
    ):
        QUANTIZERS["twn"]().require(Grid(levels="int8", shift=True))
    with pytest.raises(KronpressError, match=r"minmax can not do 4 bits without a shift; set shift: true, or take lsq"):
        QUANTIZERS["minmax"]().grid(4, shift=False)
    with pytest.raises(KronpressError, match=r"bwn can not do 5 bits without a shift; set bits to 1$"):
        QUANTIZERS["bwn"]().grid(5)
    with pytest.raises(KronpressError, match=r"twn does not weigh errors; take laq or mse, or no importance"):
        QUANTIZERS["twn"]().coded(weights(), Grid(levels="ternary"), importance=torch.ones(32))


@QUANTIZER
def test_a_recipe_names_it(quantizer: Quantizer) -> None:
    fields = {"name": quantizer.kind} | quantizer.model_dump(exclude_defaults=True)
    assert parse_named(fields, QUANTIZERS, key="quantizer") == quantizer


def an_input() -> torch.Tensor:
    return torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("quantizer", ROUNDING, ids=repr)
@pytest.mark.parametrize("shift", [False, True])
def test_inputs_are_rounded_and_stay_so_when_packed(quantizer: Quantizer, shift: bool) -> None:
    bits = {BITS[levels] for levels in quantizer.levels(shift=shift)}
    for number in sorted(bits):
        grid = quantizer.input_grid(number, shift=shift)
        rounding = RoundedInputs(grid)
        if not grid.dynamic:
            assert rounding.scale is not None
            rounding.scale.fill_(float("nan"))  # nothing is stored yet
        rounding.learn(quantizer, example=an_input())
        given = an_input().requires_grad_()
        rounded = rounding(given)
        (rounded * torch.linspace(-1, 1, 160).view(2, 5, 16)).sum().backward()
        assert given.grad is not None
        assert given.grad.count_nonzero() > 0
        gradients = [parameter.grad for parameter in rounding.parameters() if parameter.requires_grad]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        rounding.pack()
        assert torch.equal(rounding(given), rounded)
        assert len(rounded.unique()) <= grid.base


@QUANTIZER
def test_inputs_that_it_can_not_round_are_refused(quantizer: Quantizer) -> None:
    shift = not quantizer.levels(shift=False)
    levels = quantizer.levels(shift=shift)[0]
    wrong = InputGrid(levels=levels, shift=shift, dynamic=quantizer.inputs != "dynamic")
    with pytest.raises(KronpressError, match=f"{quantizer.kind} (is for weights|rounds inputs with a scale)"):
        quantizer.begin(torch.ones(1, 1, 8), wrong, None)
    if quantizer.inputs is None:
        with pytest.raises(KronpressError, match="is for weights, not for inputs of layers; take"):
            quantizer.input_grid(BITS[levels], shift=shift)


@pytest.mark.parametrize("kind", list(QUANTIZERS))
@pytest.mark.parametrize("group", ["row", 4])
def test_single_rows_are_those_of_the_whole(kind: str, group: str | int) -> None:
    quantizer = QUANTIZERS[kind]()
    shift = not quantizer.symmetric
    levels = quantizer.levels(shift=shift)[0]
    grid = Grid.model_validate({"levels": levels, "group": group, "shift": shift})
    numbers, ids = torch.randn(9, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([[1, 7], [7, 0]])
    found = []
    for read in (lambda tensor: tensor.rows(ids), lambda tensor: tensor()[ids]):
        tensor = QuantizedTensor(grid, numbers.shape, device="meta")
        tensor.learn(quantizer, latent=numbers)
        values = read(tensor)
        values.square().sum().backward()
        found.append([values.detach(), *(part.grad for part in tensor.parameters() if part.requires_grad)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(found[0][0], found[1][0])


@pytest.mark.parametrize("kind", list(QUANTIZERS))
@pytest.mark.parametrize("group", ["tensor", "row", 8])
def test_codes_that_were_found_by_other_means_are_kept(kind: str, group: str | int) -> None:
    quantizer, generator = QUANTIZERS[kind](), torch.Generator().manual_seed(0)
    for shift in (False, True):
        for levels in set(quantizer.levels(shift=shift)) & set(quantizer.keeps):
            grid = Grid.model_validate({"levels": levels, "group": group, "shift": shift})
            scale = grid.rounded(torch.rand(grid.scales((6, 16)), generator=generator) + 0.5)[..., None]
            codes = torch.randint(grid.base, grid.groups(torch.empty(6, 16)).shape, generator=generator)
            coded = Coded(codes, scale, grid.rounded(torch.randn(scale.shape, generator=generator)) if shift else None)
            tensor = QuantizedTensor.of(coded, grid, (6, 16), dtype=torch.float32)
            values = tensor().clone()
            tensor.learn(quantizer)
            assert torch.equal(tensor(), values), (levels, shift)
