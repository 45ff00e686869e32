"""What the environment says of several processes must be so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kronpress import processes
from kronpress.errors import KronpressError
from kronpress.run.execution import execute
from kronpress.run.recipe import Recipe

GOOD = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
WRONG = [
    ("WORLD_SIZE", "abc"),
    ("WORLD_SIZE", ""),
    ("WORLD_SIZE", "0"),
    ("WORLD_SIZE", "-1"),
    ("WORLD_SIZE", "1.5"),
    ("WORLD_SIZE", "²"),
    ("WORLD_SIZE", "9" * 5000),
    ("RANK", "2"),
    ("RANK", "x"),
    ("RANK", None),
    ("LOCAL_RANK", "x"),
    ("LOCAL_RANK", "7"),
    ("MASTER_ADDR", None),
    ("MASTER_ADDR", "no.such.host.invalid"),
    ("MASTER_ADDR", "a" * 300),
    ("MASTER_PORT", None),
    ("MASTER_PORT", "http"),
    ("MASTER_PORT", "70000"),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_a_variable_that_is_wrong_is_named(
    name: str, value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, good in GOOD.items():
        monkeypatch.setenv(key, good)
    monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    recipe = Recipe(model="nowhere", steps=({"step": "evaluate"},))
    with pytest.raises(KronpressError, match=f"the environment variable {name} is .*torchrun") as told:
        execute(recipe, tmp_path / "run")
    assert len(str(told.value)) < 500
    assert not list(tmp_path.iterdir())


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert (processes.count(), processes.rank()) == (1, 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_inside_of_two_waits_is_told_once(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def gather(everyone: list[torch.Tensor], mine: torch.Tensor, **_: object) -> None:
        asked.append(int(mine))
        for theirs in everyone:
            theirs.copy_(mine)

    for key, value in (GOOD | {"RANK": str(rank)}).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(torch.distributed, "all_gather", gather)
    monkeypatch.setattr(torch.distributed, "new_group", lambda **_: None)
    with pytest.raises(KronpressError if rank == 0 else SystemExit), processes.together(), processes.together():
        raise KronpressError("no such text")
    assert asked == [1], "the others are gone after the first"
