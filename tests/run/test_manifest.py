"""The manifest is one value, read whole and written whole, whose file keeps its keys."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kronpress.errors import KronpressError
from kronpress.records import Footprint
from kronpress.run import Manifest, StepDone

DENSE = Footprint(109_000_000, 132_000_000, 109_000_000, 109_000_000, 436_000_000, None, 218_000_000, 170_000_000)
STUDENT = dataclasses.replace(DENSE, parameters=14_000_000, bytes_on_disk=56_000_000)
BEGUN: dict[str, Any] = {
    "recipe_sha256": "0" * 64,
    "created": "2026-03-14T15:09:26+00:00",
    "environment": {"torch": "2.13.0"},
    "precision": "fp32",
    "sources": {},
    "steps": [],
    "checkpoint": None,
    "finished": False,
    "dtype": "bfloat16",
    "footprint_before": dataclasses.asdict(DENSE),
    "notes": ["a note"],
    "data": {"training": "1", "held-out": "2"},
    "model": {"weights": "3"},
}


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_what_is_read_is_what_is_written_and_nothing_more(tmp_path: Path) -> None:
    manifest = Manifest.read(written(tmp_path / "manifest.json", BEGUN))
    manifest.write(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == BEGUN
    assert list(json.loads((tmp_path / "again.json").read_text())) == list(BEGUN)
    assert Manifest.read(tmp_path / "again.json") == manifest


def test_a_manifest_without_the_later_keys_is_read(tmp_path: Path) -> None:
    older = {key: value for key, value in BEGUN.items() if key not in ("precision", "notes")}
    manifest = Manifest.read(written(tmp_path / "manifest.json", older))
    assert manifest.precision is None and manifest.notes == ()
    assert manifest.to_json() == older


def test_it_grows_by_steps_and_is_finished_last(tmp_path: Path) -> None:
    begun = Manifest.read(written(tmp_path / "manifest.json", BEGUN)).reading({"steps.0: a text": "4"})
    stepped = begun.after(StepDone(name="factorize", seconds=1.5), checkpoint="steps/00-factorize/checkpoint")
    measured = stepped.measured(STUDENT, plain=True, pipeline_tag="text-generation", peak_rss_bytes=7)
    done = measured.done(checkpoint="checkpoint")
    assert begun.steps == () and not measured.finished and done.finished
    assert done.to_json() == {
        **BEGUN,
        "sources": {"steps.0: a text": "4"},
        "steps": [{"name": "factorize", "seconds": 1.5}],
        "footprint_after": dataclasses.asdict(STUDENT),
        "plain": True,
        "pipeline_tag": "text-generation",
        "peak_rss_bytes": 7,
        "checkpoint": "checkpoint",
        "finished": True,
    }
    done.write(tmp_path / "manifest.json")
    assert Manifest.read(tmp_path / "manifest.json") == done


def test_it_cannot_be_changed_in_place(tmp_path: Path) -> None:
    manifest = Manifest.read(written(tmp_path / "manifest.json", BEGUN))
    with pytest.raises(ValidationError):
        manifest.finished = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"precision": "fp8"}, "precision"),
        ({"dtype": "float3"}, "dtype"),
        ({"finished": 1}, "finished"),
        ({"steps": [{"name": "distill"}]}, r"steps\.0\.seconds"),
        ({"notes": [1]}, r"notes\.0"),
        ({"footprint_before": {"parameters": True}}, "footprint_before"),
    ],
)
def test_damage_is_named(changes: dict[str, Any], place: str, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=rf"manifest\.json is damaged: '{place}.*' is missing or of another type"):
        Manifest.read(written(tmp_path / "manifest.json", BEGUN | changes))


@pytest.mark.parametrize("content", [[], {"name": "a web page"}, 3])
def test_a_file_of_another_program_is_not_taken_for_one(content: Any, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="not the manifest of a run"):
        Manifest.read(written(tmp_path / "manifest.json", content))
