from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from kronpress.activations.attention import Attention
from kronpress.activations.trace import Sizes, Trace
from kronpress.errors import KronpressError
from kronpress.losses import AttentionDistance, MiniLM
from tests.losses.traces import SIZES, TOKENS, all_seen, some_trace

EVERY = torch.ones(1, 1, 2, 2, dtype=torch.bool)


def valued(value: torch.Tensor) -> Trace:
    """An attention of two tokens that looks everywhere alike."""
    nothing = torch.zeros_like(value)
    return Trace(attentions=[Attention(nothing, nothing, value, scaling=1.0, visible=EVERY)])


def test_by_hand_each_model_is_divided_by_the_root_of_its_own_width() -> None:
    ours = valued(torch.tensor([[[[1.0, 0, 0, 0], [0, 1, 0, 0]]]]))  # v vᵀ/√4 is half the identity
    theirs = valued(torch.tensor([[[[3.0], [0.0]]]]))  # v vᵀ/√1 is 9 at the first token, else 0
    value = MiniLM()(ours, theirs, seen=torch.ones(1, 2, dtype=torch.bool), projection=None)

    def kl(p: float, q: float) -> float:
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    expected = (kl(sigmoid(9.0), sigmoid(0.5)) + kl(0.5, sigmoid(-0.5))) / 2
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_it_is_the_attentions_divergence_and_that_of_the_values() -> None:
    ours, theirs = some_trace(), some_trace(seed=1)
    value = MiniLM()(ours, theirs, seen=all_seen(), projection=None)
    attention = AttentionDistance(layers="last")(ours, theirs, seen=all_seen(), projection=None)
    among = [
        Trace(attentions=[replace(each.attentions[-1], query=each.attentions[-1].value, key=each.attentions[-1].value)])
        for each in (ours, theirs)
    ]
    values = AttentionDistance()(*among, seen=all_seen(), projection=None)
    torch.testing.assert_close(value, attention + values)


def test_as_many_relations_as_heads_change_nothing() -> None:
    ours, theirs = some_trace(), some_trace(seed=1)
    values = [MiniLM(relation_heads=n)(ours, theirs, seen=all_seen(), projection=None) for n in (None, 4)]
    torch.testing.assert_close(*values)
    assert MiniLM(relation_heads=1)(ours, theirs, seen=all_seen(), projection=None) != values[0]


def test_one_relation_is_that_of_all_heads_together_divided_by_the_root_of_their_width() -> None:
    ours, theirs = some_trace(), some_trace(seed=1)
    joined = []
    for trace in (ours, theirs):
        last = trace.attentions[-1]
        shared = [each.repeat_interleave(2, dim=1) for each in (last.key, last.value)]
        query, key, value = (each.transpose(1, 2).reshape(2, 1, TOKENS, 8) for each in (last.query, *shared))
        joined.append(Trace(attentions=[Attention(query, key, value, 8**-0.5, last.visible)]))
    found = MiniLM(relation_heads=1)(ours, theirs, seen=all_seen(), projection=None)
    torch.testing.assert_close(found, MiniLM()(*joined, seen=all_seen(), projection=None))


def test_models_of_other_heads_and_width_are_compared_by_relations() -> None:
    generator = torch.Generator().manual_seed(0)
    visible = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool)
    wide = Trace(
        attentions=[Attention(*(torch.randn(2, 6, TOKENS, 3, generator=generator) for _ in range(3)), 3**-0.5, visible)]
    )
    loss, sizes = MiniLM(relation_heads=2), Sizes(depth=1, dim=16, heads=6, head=3)
    assert loss.projection(SIZES, sizes) is None
    assert loss(some_trace(), wide, seen=all_seen(), projection=None).item() > 0.01
    assert abs(loss(wide, wide, seen=all_seen(), projection=None).item()) < 1e-6


def test_relations_that_do_not_divide_are_refused() -> None:
    with pytest.raises(KronpressError, match=r"relation_heads of the loss 'minilm' is 4, but .* 8 wide .* 18; .* of 2"):
        MiniLM(relation_heads=4).projection(SIZES, Sizes(depth=1, dim=16, heads=6, head=3))
