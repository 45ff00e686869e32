from __future__ import annotations

import torch

from kronpress.layers import Grid
from kronpress.quantizers import TernaryWeights

GRID = Grid(levels="ternary", group="row", scale="float32")


def by_hand(row: list[float]) -> list[float]:
    threshold = 0.7 * sum(map(abs, row)) / len(row)
    kept = [abs(number) for number in row if abs(number) > threshold]
    scale = sum(kept) / len(kept)
    return [0.0 if abs(number) <= threshold else scale if number > 0 else -scale for number in row]


def test_it_keeps_what_is_beyond_the_threshold() -> None:
    weight = torch.randn(5, 16)
    coded = TernaryWeights().coded(weight, GRID)
    torch.testing.assert_close(GRID.values(*coded)[:, 0], torch.tensor([by_hand(row) for row in weight.tolist()]))


def test_the_threshold_is_a_share_of_the_mean_size() -> None:
    coded = TernaryWeights(threshold=0).coded(torch.tensor([[0.1, -1.0, 0.0, 0.1]]), GRID)
    assert coded.codes.tolist() == [[[2, 0, 1, 2]]]


def test_gradients_pass_inside_of_the_clip_range() -> None:
    latent = torch.tensor([[[0.1, -2.4, 2.5, -3.0]]], requires_grad=True)
    TernaryWeights().value(latent, GRID, {}).backward(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]))
    assert latent.grad is not None
    assert latent.grad.tolist() == [[[1.0, 2.0, 0.0, 0.0]]]
