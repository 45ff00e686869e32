from __future__ import annotations

import pytest
import torch

from kronpress.activations.attention import Attention
from kronpress.activations.trace import Trace
from kronpress.losses import DirectionMatching
from tests.losses.traces import all_seen, leaves, some_trace


def plain(ours: Attention, theirs: Attention, *, seen: torch.Tensor) -> torch.Tensor:
    """The matrices formed, sentence by sentence and head by head."""
    distances = []
    for text in range(len(seen)):
        for name in ("query", "key", "value"):
            for head in range(4):
                matrices = []
                for each in (ours, theirs):
                    states = getattr(each, name)
                    F = states[text, head * states.shape[1] // 4][seen[text]]
                    matrices.append(F @ F.T / torch.linalg.matrix_norm(F @ F.T))
                distances.append((matrices[0] - matrices[1]).square().sum())
    return torch.stack(distances).mean()


def test_value_and_gradient_are_those_of_the_plain_formula() -> None:
    ours, theirs, seen = some_trace(), some_trace(seed=1), all_seen()
    seen[0, 4:] = False
    value = DirectionMatching()(ours, theirs, seen=seen, projection=None)
    pairs = zip(ours.attentions, theirs.attentions, strict=True)
    expected = sum(plain(s, t, seen=seen) for s, t in pairs) / 3
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(each, leaves(ours), allow_unused=True) for each in (value, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_by_hand() -> None:
    def of(states: list[list[float]]) -> Trace:
        every = torch.tensor(states)[None, None]
        visible = torch.ones(1, 1, 2, 2, dtype=torch.bool)
        return Trace(attentions=[Attention(every, every, every, scaling=1.0, visible=visible)])

    seen = torch.ones(1, 2, dtype=torch.bool)
    apart, alike = of([[1.0, 0.0], [0.0, 1.0]]), of([[1.0, 0.0], [5.0, 0.0]])
    first, second = of([[1.0, 0.0], [0.0, 0.0]]), of([[0.0, 0.0], [0.0, 1.0]])
    loss = DirectionMatching()
    assert loss(first, second, seen=seen, projection=None).item() == pytest.approx(2)
    # I/√2 against [[1, 5], [5, 25]]/26: 2 - 2 · 26/(26 √2)
    assert loss(apart, alike, seen=seen, projection=None).item() == pytest.approx(2 - 2**0.5)


def test_size_and_rotation_do_not_matter() -> None:
    ours, theirs = some_trace(), some_trace(seed=1)
    turn = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(0))).Q
    turned = Trace(
        attentions=[
            Attention(3 * a.query @ turn, a.key @ turn, 0.1 * a.value @ turn, a.scaling, a.visible)
            for a in ours.attentions
        ]
    )
    values = [DirectionMatching()(each, theirs, seen=all_seen(), projection=None) for each in (ours, turned)]
    torch.testing.assert_close(*values)
    assert abs(DirectionMatching()(turned, ours, seen=all_seen(), projection=None).item()) < 1e-5
