"""The judge of the fuzz tests is shown to find what it is there to find."""

from __future__ import annotations

import time
from random import Random

import pytest
import torch

from kronpress.errors import KronpressError
from tests.fuzz import outcome as judge
from tests.fuzz.mutations import mutated_bytes, mutated_tensors, mutated_value


def refuse() -> None:
    raise KronpressError("the value 3 of steps.0 is too large; choose 2")


def test_an_answer_and_a_refusal_are_fine() -> None:
    assert judge.outcome(lambda: 5, label="a").value == 5
    assert not judge.outcome(refuse, label="b").accepted


@pytest.mark.parametrize("error", [KeyError, RecursionError, MemoryError, SystemExit, KeyboardInterrupt])
def test_any_other_error_is_not(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error("x")

    with pytest.raises(AssertionError, match=f"trial 7: {error.__name__}: "):
        judge.outcome(fail, label="trial 7")
    if error is KeyError:
        assert not judge.outcome(fail, label="c", refusals=(KeyError,)).accepted


def test_a_hang_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "SECONDS", 0.05)
    with pytest.raises(AssertionError, match="HangError"):
        judge.outcome(lambda: time.sleep(2), label="d")


def test_mutations_follow_their_seed_and_change_something() -> None:
    value = {"a": [1, 2.5, {"b": "text"}], "c": None, "d": {"e": True, "f": [3, 4]}}
    tensors = {"block.left": torch.ones(2, 3), "block.right": torch.ones(4)}
    first = [mutated_value(value, Random(seed)) for seed in range(40)]
    assert repr(first) == repr([mutated_value(value, Random(seed)) for seed in range(40)])
    assert sum(repr(mutated) != repr(value) for mutated in first) > 30
    assert len({mutated_bytes(b"some bytes of a file", Random(seed)) for seed in range(40)}) > 20
    for seed in range(40):
        changed = mutated_tensors(tensors, Random(seed))
        shapes = {name: value.shape for name, value in tensors.items()}
        assert {name: value.shape for name, value in changed.items()} != shapes
