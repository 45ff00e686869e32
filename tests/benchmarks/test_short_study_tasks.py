from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import short_study, short_study_tasks
from kronpress.checkpoint.files import read_json
from tests.tiny import TEXT, save_tiny


def _glue(folder: Path, *, examples: int) -> Path:
    """Write sentences of which those that say good are positive."""
    for split, count in (("train", examples), ("dev", 8)):
        rows = [f"{split} {number} is {'good' if number % 2 else 'bad'}\t{number % 2}" for number in range(count)]
        path = folder / "SST-2" / f"{split}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return folder


def test_students_are_fine_tuned_with_every_technique_and_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 2)
    text = f"{{source: {tmp_path}/text.txt, windows: 1, protocol: tokens-32}}"
    (tmp_path / "texts.yaml").write_text(f"name: wikitext\ntexts: {{encyclopedia: {text}}}")
    training: dict[str, Any] = {"learning_rate": 1e-3, "batch": 1, "window": 32}
    arms: dict[str, Any] = {
        "model": str(save_tiny(tmp_path / "model")),
        "precision": "fp32",
        "data": {"train": {"encyclopedia": {"source": str(tmp_path / "text.txt")}}},
        "starts": {"alt": [{"step": "truncate", "keep": 1}]},
        "trainings": {"text": {}},
        "best": {},
        "settings": training,
    }
    downstream = {
        **short_study_tasks._TABLE,
        "students": {"truncated": {"start": "alt", "training": "text", "tokens": 64}},
        "share": {"sst-2": 0.5},
        "wikitext": {**training, "tokens": 64},
    }
    monkeypatch.setattr(short_study, "_TABLE", arms)
    monkeypatch.setattr(short_study_tasks, "_ARMS", arms)
    monkeypatch.setattr(short_study_tasks, "_TABLE", downstream)
    monkeypatch.setattr(short_study.recipe_of, "__kwdefaults__", {"data": arms["data"], "seed": 0})
    result = tmp_path / "result.json"
    folders = {"glue": _glue(tmp_path / "glue", examples=64), "out": tmp_path / "out", "json": result}
    asked = [word for name, path in folders.items() for word in (f"--{name}", str(path))]
    asked += ["--texts", str(tmp_path / "texts.yaml"), "--tasks", "wikitext", "sst-2", "--techniques", "logits"]
    short_study_tasks.main(asked)
    rows = read_json(result)
    assert set(rows) == {
        f"{who}, {task}{how}"
        for task in ("wikitext", "sst-2")
        for who, how in (("teacher", ""), ("truncated", ", logits"))
    }
    assert rows["truncated, sst-2, logits"]["examples"] == {"train": 29, "held out": 3, "dev": 8}
    assert rows["teacher, wikitext"]["ratio"] < 1
    assert not list((tmp_path / "out").glob("truncated-*/**/*.safetensors"))
    first = result.read_text()
    monkeypatch.setattr(short_study_tasks, "recipe_of", None)
    short_study_tasks.main(asked)
    assert result.read_text() == first
