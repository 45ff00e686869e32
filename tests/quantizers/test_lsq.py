from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kronpress.layers import Coded, Grid
from kronpress.layers.grid import Levels
from kronpress.quantizers import LearnedStep


def straight(numbers: Tensor) -> Tensor:
    """Round, with the gradient of the identity."""
    return numbers + (numbers.round() - numbers).detach()


def scaled(number: Tensor, factor: float) -> Tensor:
    """The number itself, with a gradient times the factor."""
    return number.detach() + factor * (number - number.detach())


def definition(latent: Tensor, grid: Grid, scale: Tensor, shift: Tensor | None) -> Tensor:
    """Equations 1 and 2 as autograd differentiates them, with the gradient scale of section 2.2."""
    low, high = grid.numbers[0], grid.numbers[-1]
    share = 1 / math.sqrt(latent.shape[-1] * high)
    step = scaled(scale, share)
    start = torch.zeros(()) if shift is None else scaled(shift, share)
    return straight(((latent - start) / step).clamp(low, high)) * step + start


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("group", ["tensor", "row", 8])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_values_and_gradients_are_those_of_the_definition(bits: int, group: str, shift: bool) -> None:
    rule, generator = LearnedStep(), torch.Generator().manual_seed(bits)
    grid = Grid.model_validate(rule.grid(bits, shift=shift).model_dump() | {"group": group, "scale": "float32"})
    latent = grid.groups(torch.randn(4, 16, generator=generator)).clone().requires_grad_()
    weights = torch.randn(latent.shape, generator=generator)
    learned = {name: value.clone().requires_grad_() for name, value in rule.begin(latent, grid, None).items()}
    values = rule.value(latent, grid, learned)
    values.backward(weights)
    found = [latent.grad, *(value.grad for value in learned.values())]
    expected = definition(latent, grid, learned["scale"], learned.get("shift"))
    torch.testing.assert_close(values, expected)
    wanted = torch.autograd.grad(expected, [latent, *learned.values()], weights)
    for gradient, truth in zip(found, wanted, strict=True):
        assert gradient is not None
        torch.testing.assert_close(gradient, truth, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("levels", "shift", "highest"), [("int4", False, 7), ("int2", False, 1), ("uint4", True, 15)])
def test_steps_start_as_in_the_papers(levels: Levels, shift: bool, highest: int) -> None:
    grid, latent = Grid(levels=levels, shift=shift), torch.randn(3, 1, 8)
    learned = LearnedStep().begin(latent, grid, None)
    for row in range(3):
        mean = sum(map(abs, latent[row, 0].tolist())) / 8
        assert learned["scale"][row].item() == pytest.approx((4 if shift else 2) * mean / math.sqrt(highest))
        if shift:
            assert learned["shift"][row].item() == min(latent[row, 0].tolist())


def test_it_goes_on_from_a_scale_that_is_given() -> None:
    grid, latent = Grid(levels="int4", group="tensor"), torch.randn(1, 1, 8)
    start = Coded(torch.zeros(1, 1, 8, dtype=torch.int32), torch.full((1, 1, 1), 0.25))
    for rule in (LearnedStep(), LearnedStep(init="nearest")):
        assert rule.begin(latent, grid, start)["scale"].tolist() == [[[0.25]]]


def test_a_start_at_the_nearest_grid_has_less_error() -> None:
    weight = torch.randn(4, 64)
    grid = LearnedStep().grid(8)
    errors = [
        float((grid.values(*LearnedStep(init=init).coded(weight, grid)).view(4, 64) - weight).square().sum())
        for init in ("mean", "nearest")
    ]
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize("scale", [-0.5, 0.0])
def test_a_step_below_zero_comes_back(scale: float) -> None:
    rule, grid = LearnedStep(), Grid(levels="int4", group="tensor")
    latent, step = torch.tensor([[[0.5, -0.25]]]), torch.full((1, 1, 1), scale, requires_grad=True)
    optimizer = torch.optim.SGD([step], lr=0.5)
    assert rule.code(latent, grid, {"scale": step}).scale.item() > 0
    for _ in range(50):
        optimizer.zero_grad()
        (rule.value(latent, grid, {"scale": step}) - latent).square().sum().backward()
        optimizer.step()
    assert step.item() > 0
    assert (rule.value(latent, grid, {"scale": step}) - latent).abs().max() < 0.05
