from __future__ import annotations

import torch

from kronpress.layers import Grid
from kronpress.quantizers import BinaryWeights

GRID = Grid(levels="binary", group="row", scale="float32")


def test_it_is_the_sign_times_the_mean_size_of_the_row() -> None:
    weight = torch.randn(5, 16)
    coded = BinaryWeights().coded(weight, GRID)
    expected = [[(sum(map(abs, row)) / 16) * (1 if number > 0 else -1) for number in row] for row in weight.tolist()]
    torch.testing.assert_close(GRID.values(*coded)[:, 0], torch.tensor(expected))


def test_gradients_pass_inside_of_the_clip_range() -> None:
    latent = torch.tensor([[[0.1, -2.4, 2.5, 3.0]]], requires_grad=True)
    BinaryWeights().value(latent, GRID, {}).backward(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
    assert latent.grad is not None
    assert latent.grad.tolist() == [[[1.0, 2.0, 0.0, 0.0]]]
    latent.grad = None
    BinaryWeights(clip=None).value(latent, GRID, {}).sum().backward()
    assert latent.grad is not None
    assert latent.grad.tolist() == [[[1.0] * 4]]
