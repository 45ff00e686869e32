"""What the name of a source stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from kronpress.data.sources import source_files
from kronpress.errors import KronpressError


def test_the_files_of_a_source_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["books/a.txt", "books/deep/b.md", "books/c.bin", "one, two.txt", "other.jsonl.gz"]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("text")
    for source, files in (
        ("books", names[:2]),
        ("books/*.txt, other.jsonl.gz, hub:owner/name, bundled:python-reference", [names[0], names[4]]),
        ("one, two.txt", [names[3]]),
        ("hub:owner/name", []),
        (str(tmp_path / "books/a.txt"), [str(tmp_path / "books/a.txt")]),
    ):
        assert source_files(source) == [Path(name) for name in files]
    for source, words in (("books, nowhere.txt", "there is no text at 'nowhere.txt'"), ("books,", "has no name")):
        with pytest.raises(KronpressError, match=words):
            source_files(source)
