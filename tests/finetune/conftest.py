"""Data of a tiny task."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.finetune.words import rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "glue" / "SST-2"
    folder.mkdir(parents=True)
    for name, count in (("train", 96), ("dev", 40)):
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows(count, seed=count)]) + "\n")
    return tmp_path / "glue"
