"""What a fine-tuning noted for its next start: damage is told by the name of the file, and the remedy works."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from kronpress.errors import KronpressError
from kronpress.finetune import Finetune
from kronpress.step import Workbench
from tests.tiny import bench, tiny_bert


class StopError(Exception):
    """The process went away."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a step that stopped before its second seed."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "SST-2").mkdir()
    for name in ("train", "dev"):
        lines = [f"{('sun', 'moon')[index % 2]} and sky\t{index % 2}" for index in range(16)]
        (folder / "SST-2" / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    calls = []
    original = Finetune.train

    def stop_at_the_second(self: Finetune, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise StopError
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(StopError):
        patched.setattr(Finetune, "train", stop_at_the_second)
        run(folder, folder / "step")
    return folder


def run(home: Path, folder: Path) -> dict[str, Any]:
    work: Workbench = bench(tiny_bert(), folder)
    fields = {"losses": "cross_entropy", "teacher": None, "epochs": 1, "seeds": 2, "batch": 8, "log_every": 1}
    return Finetune(tasks="sst-2", data=str(home), **fields).run(work)


DAMAGE = [
    ("settings.json", "[]"),
    ("settings.json", "{"),
    ("settings.json", "3"),
    ("seed-0/result.json", "[]"),
    ("seed-0/result.json", '{"seed": 0, "score": "high", "scores": {"accuracy": 1.0}}'),
    ("seed-0/result.json", '{"seed": 0, "score": 50.0}'),
    ("seed-0/result.json", "\x00"),
    ("seed-0/dev.jsonl", "3\n"),
    ("seed-0/dev.jsonl", '{"step": 2, "score": "high"}\n'),
]


def test_damage_is_named_and_the_remedy_works(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "step", tmp_path / "step")
    work = tmp_path / "step" / "sst-2" / ".work" / "student"
    for name, content in DAMAGE:
        whole = (work / name).read_bytes()
        (work / name).write_text(content)
        if name.endswith("dev.jsonl"):
            (work / "seed-0" / "result.json").rename(tmp_path / "result.json")
        with pytest.raises(KronpressError, match=rf"{re.escape(str(work / name))}.*(restore|remove)"):
            run(home, tmp_path / "step")
        (work / name).write_bytes(whole)
        if name.endswith("dev.jsonl"):
            (tmp_path / "result.json").rename(work / "seed-0" / "result.json")
    (work / "seed-0" / "result.json").unlink()
    (row,) = run(home, tmp_path / "step")["tasks"][0]["rows"]
    assert [seed["seed"] for seed in row["seeds"]] == [0, 1]
    finished = tmp_path / "step" / "sst-2" / "student.json"
    for content in ("[]", json.dumps(row | {"seeds": []}), json.dumps(row | {"settings": 3})):
        finished.write_text(content)
        with pytest.raises(KronpressError, match=rf"{re.escape(str(finished))} is damaged at '.*'; restore it, or"):
            run(home, tmp_path / "step")
