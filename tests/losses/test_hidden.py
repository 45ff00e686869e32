from __future__ import annotations

import pytest
import torch

from kronpress.activations.trace import Sizes, Trace
from kronpress.errors import KronpressError
from kronpress.losses import LOSSES, HiddenDistance
from kronpress.losses.hidden import Metric
from tests.losses.traces import SIZES, all_seen, leaves, some_trace

STUDENT = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [9.0, 9.0]]])
TEACHER = torch.tensor([[[4.0, 3.0], [0.0, 2.0], [0.0, 1.0]]])
SEEN = torch.tensor([[True, True, False]])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("mse", ((1 + 1) / 2 + (1 + 4) / 2) / 2),
        ("cosine", ((1 - 24 / 25) + 1) / 2),
        ("relative", (2 / 25 + 5 / 4) / 2),
    ],
)
def test_by_hand(metric: Metric, expected: float) -> None:
    ours, theirs = Trace(blocks=[STUDENT]), Trace(blocks=[TEACHER])
    value = HiddenDistance(metric=metric)(ours, theirs, seen=SEEN, projection=None)
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_pairs_are_averaged_and_each_reads_its_own_layers() -> None:
    ours = Trace(blocks=[STUDENT, TEACHER], feed_forwards=[STUDENT])
    theirs = Trace(blocks=[TEACHER, TEACHER], feed_forwards=[TEACHER])
    blocks, downs = (
        HiddenDistance(of=of)(ours, theirs, seen=SEEN, projection=None) for of in ("blocks", "feed_forwards")
    )
    assert blocks.item() == pytest.approx(downs.item() / 2)
    assert HiddenDistance(layers="last")(ours, theirs, seen=SEEN, projection=None).item() == 0
    crossed = HiddenDistance(layers=((0, 1),))(ours, theirs, seen=SEEN, projection=None)
    assert crossed.item() == pytest.approx(downs.item())


def test_relative_gives_every_token_the_same_say() -> None:
    factor = torch.tensor([1.0, 500.0, 1.0])[None, :, None]
    loss = HiddenDistance(metric="relative")
    values = [
        loss(Trace(blocks=[f * STUDENT]), Trace(blocks=[f * TEACHER]), seen=SEEN, projection=None)
        for f in (1.0, factor)
    ]
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("name", ["embedding", "hidden", "pkd", "rail", "contrastive"])
def test_other_widths_need_a_map(name: str) -> None:
    wide = Sizes(depth=3, dim=16, heads=4, head=4)
    message = (
        f"the loss '{name}' compares vectors of 8 numbers in the student with 16 in the teacher; set project: true"
    )
    with pytest.raises(KronpressError, match=message):
        LOSSES[name]().projection(SIZES, wide)
    loss = LOSSES[name](project=True)
    projection = loss.projection(SIZES, wide)
    assert {tuple(weight.shape) for weight in projection.parameters()} == {(16, 8)}
    value = loss(some_trace(), some_trace(seed=1, dim=16), seen=all_seen(), projection=projection)
    value.backward()
    assert all(weight.grad.any() for weight in projection.parameters())


@pytest.mark.parametrize("name", ["embedding", "hidden", "pkd", "rail", "contrastive"])
def test_a_map_begins_as_the_identity(name: str) -> None:
    ours, theirs = some_trace(), some_trace(seed=1)
    loss = LOSSES[name](project=True)
    plain = LOSSES[name]()(ours, theirs, seen=all_seen(), projection=None)
    mapped = loss(ours, theirs, seen=all_seen(), projection=loss.projection(SIZES, SIZES))
    torch.testing.assert_close(plain, mapped)


@pytest.mark.parametrize("name", ["hidden", "pkd"])
def test_a_map_of_layers_that_does_not_fit_is_told_before_training(name: str) -> None:
    deep = Sizes(depth=6, dim=8, heads=4, head=2)
    with pytest.raises(KronpressError, match=f"layers of the loss '{name}' is 'same', but the student has 3 blocks"):
        LOSSES[name]().projection(SIZES, deep)
    maps = LOSSES[name](layers="uniform", project=True).projection(SIZES, deep)
    assert len(list(maps.parameters())) == 3


def test_the_embedding_is_one_pair() -> None:
    ours, theirs = Trace(embedding=STUDENT), Trace(embedding=TEACHER)
    for metric in ("mse", "cosine", "relative"):
        hidden = HiddenDistance(metric=metric)(
            Trace(blocks=[STUDENT]), Trace(blocks=[TEACHER]), seen=SEEN, projection=None
        )
        embedding = LOSSES["embedding"](metric=metric)(ours, theirs, seen=SEEN, projection=None)
        assert embedding == hidden


def test_the_teacher_is_not_changed() -> None:
    ours, theirs = some_trace(), some_trace(seed=1)
    before = [each.detach().clone() for each in leaves(theirs)]
    HiddenDistance()(ours, theirs, seen=all_seen(), projection=None).backward()
    assert all(torch.equal(*each) for each in zip(before, leaves(theirs), strict=True))
