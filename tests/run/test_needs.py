"""A run has in memory and on disk what its steps say that they need, and opens no text that none of them reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kronpress.checkpoint import bytes_of, files
from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.evaluate import Evaluate
from kronpress.factorize import Factorize
from kronpress.finetune import Finetune
from kronpress.prune import Prune
from kronpress.run import Run, execute, read_recipe
from kronpress.step import NO_TEXT, Step
from tests.tiny import TEXT, save_tiny, tiny_llama

FACTORIZE = {"step": "factorize", "method": {"name": "van_loan", "right": [2, 2]}}
PRUNE = {"step": "prune", "fit": {"tokens": 64, "window": 32}}
TRAIN = {"step": "distill", "tokens": 64, "window": 32, "losses": {"cross_entropy": 1}}
DISTILL = {**TRAIN, "losses": {"logits": 1}}
EVALUATE = {"step": "evaluate", "max_windows": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    save_tiny(folder / "model", tiny_llama(num_hidden_layers=1, max_position_embeddings=512))
    (folder / "text.txt").write_text(TEXT)
    (folder / "any.yaml").write_text("steps: [{step: evaluate}]")
    return folder


def run(home: Path, folder: Path, *steps: dict[str, Any], text: str = "text.txt", resume: bool = False) -> Run:
    fields = {"model": str(home / "model"), "data": {"train": str(home / text)}, "steps": list(steps)}
    return execute(read_recipe(home / "any.yaml", fields=fields), folder, resume=resume)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Each step that was run, and whether the dense model was there beside the student."""
    seen: list[tuple[str, bool]] = []

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def watch(self: Step, bench: Any) -> Any:
            seen.append((self.kind, bench.dense is not None))
            assert bench.dense is not bench.student
            return original(self, bench)

        return watch

    for kind in (Factorize, Prune, Distill, Evaluate):
        monkeypatch.setattr(kind, "run", watched(kind.run))
    return seen


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((FACTORIZE,), [False]),
        ((PRUNE, TRAIN), [False, False]),
        ((FACTORIZE, DISTILL, TRAIN), [True, True, False]),
        ((EVALUATE, FACTORIZE, TRAIN), [True, False, False]),
        ((TRAIN, EVALUATE), [True, True]),
    ],
)
def test_the_dense_model_is_held_as_long_as_a_step_needs_it(
    steps: tuple[dict[str, Any], ...], expected: list[bool], home: Path, tmp_path: Path, held: list[tuple[str, bool]]
) -> None:
    assert run(home, tmp_path / "run", *steps).manifest().finished
    assert [there for _, there in held] == expected


def test_a_run_that_goes_on_holds_what_is_still_needed(
    home: Path, tmp_path: Path, held: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr(Distill, "run", lambda *_: (_ for _ in ()).throw(InterruptedError))
        run(home, tmp_path / "run", EVALUATE, FACTORIZE, TRAIN)
    run(home, tmp_path / "run", EVALUATE, FACTORIZE, TRAIN, resume=True)
    assert held == [("evaluate", True), ("factorize", False), ("distill", False)]


def test_the_weights_do_not_depend_on_what_is_held(home: Path, tmp_path: Path) -> None:
    alone = run(home, tmp_path / "alone", FACTORIZE, TRAIN)
    beside = run(home, tmp_path / "beside", FACTORIZE, TRAIN, EVALUATE)
    alone, beside = (next(found.checkpoint.glob("*.safetensors")).read_bytes() for found in (alone, beside))
    assert alone == beside


def test_no_text_is_opened_where_no_step_reads_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Factorize.run

    def without(self: Factorize, bench: Any) -> Any:
        assert bench.train is bench.held_out is NO_TEXT
        return original(self, bench)

    monkeypatch.setattr(Factorize, "run", without)
    done = run(home, tmp_path / "run", FACTORIZE, text="nowhere.txt")
    assert done.manifest().finished and done.manifest().data == {}
    assert "no step of the recipe reads its text" in capsys.readouterr().out
    for reading in (PRUNE, TRAIN, EVALUATE):
        with pytest.raises(KronpressError, match=r"nowhere\.txt"):
            run(home, tmp_path / "other", reading, text="nowhere.txt")
    run(home, tmp_path / "own", {**EVALUATE, "text": str(home / "text.txt")}, text="nowhere.txt")


def test_the_space_asked_for_is_what_the_steps_need(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(files, "require_space", lambda _, *, needed: asked.append(needed))
    for name, steps in {"factorize": [FACTORIZE], "train": [FACTORIZE, TRAIN]}.items():
        run(home, tmp_path / name, *steps)
    dense = bytes_of(tiny_llama(num_hidden_layers=1, max_position_embeddings=512))
    runs = [needed for needed in asked if needed > 1.5 * dense]
    assert runs[0] <= 2 * dense < runs[1] <= 6 * dense


def test_fine_tuning_needs_the_dense_model_where_it_becomes_the_teacher() -> None:
    fields = {"tasks": "sst-2", "losses": {"logits": 1}}
    assert Finetune(**fields).needs().teacher and not Finetune(**fields).needs().text
    assert not Finetune(**fields, teacher="a/model").needs().teacher
    assert not Finetune(tasks="sst-2", teacher=None).needs().teacher
    assert Finetune(**fields).needs().all_processes


def test_a_teacher_of_its_own_takes_the_place_of_the_dense_model() -> None:
    assert not Distill(tokens=1, teacher="another/model").needs().teacher
    assert Distill(tokens=1).needs().teacher
