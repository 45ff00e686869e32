from __future__ import annotations

import math

import pytest
import torch

from kronpress.activations.trace import Trace
from kronpress.losses import TokenContrast
from tests.losses.traces import BATCH, TOKENS, all_seen, some_trace


def test_by_hand() -> None:
    theirs = Trace(blocks=[torch.tensor([[[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]]])])
    ours = Trace(blocks=[torch.tensor([[[5.0, 0.0], [3.0, 4.0], [1.0, 0.0]]])])
    seen = torch.tensor([[True, True, False]])
    value = TokenContrast(temperature=0.5)(ours, theirs, seen=seen, projection=None)
    first, second = math.log(1 + math.exp(-2)), math.log(1 + math.exp((0.6 - 0.8) / 0.5))
    assert value.item() == pytest.approx((first + second) / 2)


def test_tokens_of_other_texts_are_not_compared() -> None:
    ours, theirs = some_trace(), some_trace(seed=1)
    value = TokenContrast()(ours, theirs, seen=all_seen(), projection=None)
    alone = [
        TokenContrast()(Trace(blocks=[ours.blocks[-1][i, None]]), Trace(blocks=[theirs.blocks[-1][i, None]]),
                        seen=all_seen()[:1], projection=None)
        for i in range(BATCH)
    ]  # fmt: skip
    torch.testing.assert_close(value, sum(alone) / BATCH)


def test_it_is_between_none_and_a_guess_where_tokens_are_all_alike() -> None:
    same = Trace(blocks=[torch.ones(1, TOKENS, 4)])
    value = TokenContrast()(same, same, seen=all_seen()[:1], projection=None)
    assert value.item() == pytest.approx(math.log(TOKENS))
    apart = Trace(blocks=[torch.eye(TOKENS)[None]])
    assert TokenContrast()(apart, apart, seen=all_seen()[:1], projection=None).item() < 1e-3
