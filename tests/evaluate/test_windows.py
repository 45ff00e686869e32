"""Each token counts once, with as much context as the window has."""

from __future__ import annotations

import pytest
import torch

from kronpress.evaluate.windows import Window, roll, slide


def targets(windows: list[Window]) -> list[int]:
    return [token for window in windows for token in window.targets.tolist()]


def assert_aligned(windows: list[Window]) -> None:
    """What is predicted comes right after what is read up to there; the ids count from 0."""
    for window in windows:
        reads = window.reads.tolist()
        assert window.targets.tolist() == [
            token + 1 for token in reads[window.skip : window.skip + len(window.targets)]
        ]


def test_the_check_of_alignment_notices_a_shift() -> None:
    with pytest.raises(AssertionError):
        assert_aligned([Window(torch.arange(4), torch.arange(2, 4), skip=0)])


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 21, 24])
def test_a_sliding_window_predicts_each_token_once(length: int, stride: int) -> None:
    windows = list(slide(torch.arange(length), size=8, stride=stride, keep_rest=True))
    assert_aligned(windows)
    starts = range(0, length, 8) if stride == 8 else [0]  # without overlap the first of each window is context only
    assert targets(windows) == [token for token in range(length) if token not in starts]
    assert all(len(window.reads) <= 8 for window in windows)


def test_a_short_rest_is_kept_or_dropped() -> None:
    kept, dropped = (list(slide(torch.arange(11), size=4, stride=4, keep_rest=keep)) for keep in (True, False))
    assert [len(window.reads) for window in kept] == [4, 4, 3]
    assert [len(window.reads) for window in dropped] == [4, 4]
    assert list(slide(torch.arange(3), size=4, stride=4, keep_rest=False)) == []


@pytest.mark.parametrize("length", [2, 8, 9, 10, 25])
def test_a_rolling_window_predicts_all_but_the_mark_and_fills_up_with_context(length: int) -> None:
    windows = list(roll(torch.arange(length), size=8, stride=8))
    assert_aligned(windows)
    assert targets(windows) == list(range(1, length))
    assert all(len(window.reads) == min(8, length - 1) for window in windows)


def test_windows_of_one_shape_can_go_through_a_model_together() -> None:
    first, second, last = slide(torch.arange(7), size=4, stride=2, keep_rest=True)
    assert (first.shape, second.shape, last.shape) == ((4, 3, 0), (4, 2, 1), (3, 1, 1))
