from __future__ import annotations

import pytest
import torch

from kronpress.layers import Grid, InputGrid, RoundedInputs
from kronpress.quantizers import MaxAbs, MinMax


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_levels_lie_between_the_smallest_and_the_largest(bits: int) -> None:
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(bits))
    grid = Grid.model_validate(MinMax().grid(bits).model_dump() | {"scale": "float32"})
    values = grid.values(*MinMax().coded(weight, grid))[:, 0]
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    torch.testing.assert_close(values, ((weight - low) / step).round() * step + low)


@pytest.mark.parametrize(("bits", "highest"), [(2, 1), (3, 3), (4, 7), (8, 127)])
def test_levels_reach_the_largest_size(bits: int, highest: int) -> None:
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(bits))
    grid = Grid.model_validate(MaxAbs().grid(bits).model_dump() | {"scale": "float32"})
    values = grid.values(*MaxAbs().coded(weight, grid))[:, 0]
    step = weight.abs().amax(1, keepdim=True) / highest
    torch.testing.assert_close(values, (weight / step).round() * step)


@pytest.mark.parametrize("rule", [MinMax(), MaxAbs()], ids=repr)
def test_gradients_pass_everywhere_and_inputs_have_ranges_of_their_own(rule: MinMax | MaxAbs) -> None:
    grid, generator = rule.grid(4), torch.Generator().manual_seed(0)
    latent = torch.randn(3, 1, 8, generator=generator, requires_grad=True)
    rule.value(latent, grid, {}).backward(2 * torch.ones(3, 1, 8))
    assert latent.grad is not None
    assert torch.equal(latent.grad, 2 * torch.ones(3, 1, 8))
    inputs = rule.input_grid(8, group="row")
    assert inputs == InputGrid(levels=inputs.levels, group="row", shift=rule.kind == "minmax", dynamic=True)
    rounding, given = RoundedInputs(inputs), torch.randn(2, 3, 8, generator=generator)
    plain = rounding(given)
    rounding.learn(rule, example=given)
    assert torch.equal(rounding(given), plain)
    torch.testing.assert_close(rounding(10 * given), 10 * plain)
