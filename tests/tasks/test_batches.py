from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kronpress.tasks import Feature, collate, shuffled
from kronpress.tasks.batches import by_length

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=120)


def feature(length: int, *, types: bool = True) -> Feature:
    return Feature(tuple(range(1, length + 1)), (0,) * length if types else None, (1.0,), 0)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 3))
def test_no_example_comes_more_than_once_more_often_than_another(lengths: list[int], batch: int, seed: int) -> None:
    n = len(lengths)
    order = shuffled(lengths, batch=batch, count=3 * n - 1, seed=seed)
    assert len(order) == 3 * n - 1
    assert sorted(np.bincount(order, minlength=n)) == [2, *[3] * (n - 1)]


@pytest.mark.parametrize("examples", [3200, 3215])
def test_batches_are_of_alike_lengths_and_in_random_order(examples: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=examples).tolist()
    order = shuffled(lengths, batch=32, count=3 * 3200, seed=0)
    for epoch in np.asarray(lengths)[order].reshape(3, -1, 32):
        assert 32 * epoch.max(axis=1).sum() / epoch.sum() < 1.05
        longest = epoch.max(axis=1)
        assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3
    assert (shuffled(lengths, batch=32, count=3200, seed=1) != order[:3200]).any()
    assert (shuffled(lengths, batch=32, count=3 * 3200, seed=0) == order).all()


@pytest.mark.parametrize("examples", [100, 3210])
def test_an_epoch_is_nearly_over_before_the_next_begins(examples: int) -> None:
    order = shuffled([3] * examples, batch=32, count=5 * examples, seed=0)
    for epoch in order.reshape(5, examples):
        assert len(set(epoch)) > 0.6 * examples


def test_epochs_differ() -> None:
    order = shuffled([3] * 64, batch=8, count=128, seed=0)
    assert (order[:64] != order[64:]).any()


@given(LENGTHS, st.integers(1, 64))
def test_batches_by_length_keep_to_the_tokens_asked_for(lengths: list[int], tokens: int) -> None:
    batches = list(by_length(lengths, tokens=tokens))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= tokens


@pytest.mark.parametrize("types", [True, False])
def test_padding_stands_on_the_right_and_is_masked(types: bool) -> None:
    batch = collate([feature(2, types=types), feature(4, types=types)], pad=9)
    assert batch["input_ids"].tolist() == [[1, 2, 9, 9], [1, 2, 3, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert ("token_type_ids" in batch) == types
    assert batch["input_ids"].dtype == torch.int64
