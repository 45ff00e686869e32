from __future__ import annotations

import math

import pytest
import torch

from kronpress.layers import Grid
from kronpress.layers.grid import Levels
from kronpress.quantizers import Elastic


def slopes(x: float, alpha: float, beta: float, *, levels: Levels) -> tuple[float, float, float, float]:
    """By hand: the value, and its derivatives with respect to x, α and β, the last where β is added to the value."""
    step = (x - beta) / alpha
    if levels == "binary":
        sign = 1.0 if step > 0 else -1.0
        inside = -1 <= step <= 1
        return alpha * sign, float(inside), sign, float(not inside)
    if not 0 <= step <= 1:
        level = 0.0 if step < 0 else 1.0
        return alpha * level, 0.0, level, 1.0
    level = 0.0 if x < alpha / 2 + beta else 1.0
    return alpha * level, 1.0, level - step, 0.0  # the paper's two cases: -(x - β)/α and 1 - (x - β)/α


@pytest.mark.parametrize("levels", ["binary", "zero_one"])
@pytest.mark.parametrize("shift", [False, True])
def test_values_and_gradients_are_those_of_the_paper(levels: Levels, shift: bool) -> None:
    grid = Grid(levels=levels, group="tensor", scale="float32", shift=shift)
    latent = torch.linspace(-2.1, 2.3, 40).view(1, 1, 40).requires_grad_()
    alpha, beta = torch.full((1, 1, 1), 0.8, requires_grad=True), torch.full((1, 1, 1), 0.3, requires_grad=True)
    weights = torch.randn(1, 1, 40, generator=torch.Generator().manual_seed(0))
    values = Elastic().value(latent, grid, {"scale": alpha} | ({"shift": beta} if shift else {}))
    values.backward(weights)
    moved = 0.3 if shift else 0.0
    rows = [slopes(x, 0.8, moved, levels=levels) for x in latent.flatten().tolist()]
    value, x_slope, alpha_slope, beta_slope = torch.tensor(rows).T
    share = 1 / math.sqrt(40)
    assert latent.grad is not None
    assert alpha.grad is not None
    torch.testing.assert_close(values.flatten(), value + moved)
    torch.testing.assert_close(latent.grad.flatten(), x_slope * weights.flatten())
    torch.testing.assert_close(alpha.grad.sum(), (alpha_slope * weights.flatten()).sum() * share)
    if shift:
        assert beta.grad is not None
        torch.testing.assert_close(beta.grad.sum(), (beta_slope * weights.flatten()).sum() * share)


def test_without_a_shift_it_starts_at_the_mean_size() -> None:
    weight = torch.randn(4, 32)
    learned = Elastic().begin(weight[:, None], Grid(levels="binary", scale="float32"), None)
    torch.testing.assert_close(learned["scale"].flatten(), weight.abs().mean(dim=1))


def test_its_set_is_what_its_grid_has() -> None:
    assert Elastic().grid(1).levels == "binary"
    assert Elastic(set="zero_one").grid(1, shift=True) == Grid(levels="zero_one", shift=True)
    assert Elastic(set="zero_one").input_grid(1).dynamic is False
