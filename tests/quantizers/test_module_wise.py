from __future__ import annotations

import pytest
import torch

from kronpress.layers import Grid
from kronpress.layers.grid import Levels
from kronpress.quantizers import ModuleWise


@pytest.mark.parametrize("group", ["tensor", "row", 8])
@pytest.mark.parametrize(("levels", "n"), [("ternary", 1), ("int3", 3), ("int4", 7), ("int8", 127)])
def test_values_and_gradients_are_those_of_the_paper(levels: Levels, n: int, group: str) -> None:
    grid = Grid.model_validate({"levels": levels, "group": group, "scale": "float32"})
    generator = torch.Generator().manual_seed(n)
    latent = grid.groups(torch.randn(4, 16, generator=generator)).clone().requires_grad_()
    weights = torch.randn(latent.shape, generator=generator)
    gamma = torch.full((1, 1, 1), 1.3, requires_grad=True)
    values = ModuleWise().value(latent, grid, {"gamma": gamma})
    values.backward(weights)

    size = latent.detach().abs().mean(dim=-1, keepdim=True)
    again = gamma.detach().clone().requires_grad_()
    alpha = again * size
    u = (latent / alpha).clamp(-1, 1)
    rounded = u + ((u * n).round() / n - u).detach()
    expected = alpha * rounded
    wanted = torch.autograd.grad(expected, [latent, again], weights)
    torch.testing.assert_close(values, expected)
    assert latent.grad is not None
    assert gamma.grad is not None
    torch.testing.assert_close(latent.grad, wanted[0])
    torch.testing.assert_close(gamma.grad, wanted[1], atol=1e-4, rtol=1e-4)


def test_the_gradient_counts_what_lies_inside_and_outside() -> None:
    grid = Grid(levels="ternary", group="tensor", scale="float32")
    latent, gamma = torch.tensor([[[0.4, 0.9, -0.4, 2.3]]]), torch.ones(1, 1, 1, requires_grad=True)
    ModuleWise().value(latent, grid, {"gamma": gamma}).sum().backward()  # the mean size, and so α, is 1
    assert gamma.grad is not None
    torch.testing.assert_close(gamma.grad.item(), (0 - 0.4) + (1 - 0.9) + (0 + 0.4) + 1)


def test_two_bits_are_three_levels_and_gamma_is_one_for_the_tensor() -> None:
    weight = torch.randn(4, 64)
    grid = ModuleWise().grid(2)
    assert grid.levels == "ternary"
    learned = ModuleWise().begin(weight[:, None], grid, None)
    assert learned["gamma"].shape == (1, 1, 1)
    assert 1 < learned["gamma"].item() < 2  # 1.53 is best for numbers of a normal distribution
    assert ModuleWise(gamma=2.0).begin(weight[:, None], grid, None)["gamma"].item() == 2
