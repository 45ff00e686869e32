from __future__ import annotations

import pytest
import torch

from kronpress.activations.trace import Sizes, Trace
from kronpress.errors import KronpressError
from kronpress.losses import RandomLayers
from tests.losses.traces import SIZES, all_seen, some_trace


def test_each_batch_draws_other_blocks_in_order_and_a_seed_repeats_them() -> None:
    loss = RandomLayers()
    torch.manual_seed(3)
    drawn = [loss.pairs(3, 8) for _ in range(20)]
    torch.manual_seed(3)
    assert drawn == [loss.pairs(3, 8) for _ in range(20)]
    assert len({tuple(each) for each in drawn}) > 5
    for pairs in drawn:
        ours, theirs = zip(*pairs, strict=True)
        assert ours == (0, 1, 2)
        assert sorted(set(theirs)) == list(theirs)
        assert set(theirs) <= set(range(8))
    assert set().union(*(set(dict(each).values()) for each in drawn)) == set(range(8))


def test_by_hand() -> None:
    ours = Trace(blocks=[torch.tensor([[[2.0, 0.0], [4.0, 8.0], [9.0, 9.0]]]), torch.tensor([[[0.0, 1.0]] * 3])])
    theirs = Trace(blocks=[torch.tensor([[[8.0, 0.0], [0.0, 6.0], [0.0, 1.0]]]), torch.tensor([[[0.0, 2.0]] * 3])])
    seen = torch.tensor([[True, True, False]])  # the means are (3, 4) and (4, 3), then (0, 1) and (0, 2)
    value = RandomLayers()(ours, theirs, seen=seen, projection=None)
    assert value.item() == pytest.approx((0.08 + 0) / 2)
    value = RandomLayers(mode="concatenated")(ours, theirs, seen=seen, projection=None)
    s, t = torch.tensor([3.0, 4, 0, 1]) / 26**0.5, torch.tensor([4.0, 3, 0, 2]) / 29**0.5
    assert value.item() == pytest.approx((s - t).square().sum().item())


@pytest.mark.parametrize("mode", ["layerwise", "concatenated"])
def test_a_deeper_teacher_gives_what_is_drawn(mode: str) -> None:
    loss = RandomLayers.model_validate({"mode": mode})
    ours, theirs = some_trace(), some_trace(seed=1, depth=6)
    torch.manual_seed(5)
    pairs = loss.pairs(3, 6)
    torch.manual_seed(5)
    value = loss(ours, theirs, seen=all_seen(), projection=None)
    chosen = Trace(blocks=[theirs.blocks[block] for _, block in pairs])
    torch.testing.assert_close(value, loss(ours, chosen, seen=all_seen(), projection=None))


def test_a_deeper_student_is_refused() -> None:
    with pytest.raises(KronpressError, match="the student has 3 and the teacher 2; use hidden or pkd"):
        RandomLayers().projection(SIZES, Sizes(depth=2, dim=8, heads=4, head=2))
