from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kronpress.data import Corpus, read_text, split_held_out
from kronpress.errors import KronpressError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    return path


def test_bundled_reference_is_there_and_the_same_each_time() -> None:
    first, second = read_text("bundled:python-reference"), read_text("bundled:python-reference")
    assert first == second
    assert len(first.text) > 100_000
    assert first.fingerprint == hashlib.sha256(first.text.encode()).hexdigest()


def test_plain_files_are_read_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.md", "\ufeff = é = \r\n \r\nend\n\n")
    assert read_text(str(path)) == Corpus(str(path), " = é = \n \nend\n\n")


def test_records_are_joined_by_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "one\\u2028"}\n\n{"text": "two\\n", "id": 2}\n')
    assert read_text(str(path)).text == "one\u2028\n\ntwo\n"


def test_folders_are_read_in_the_order_of_paths(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "c.jsonl", "skipped.pdf", "empty.txt"):
        write(tmp_path / name, {"c.jsonl": '{"text": "c"}', "empty.txt": ""}.get(name, f"{name}\n"))
    assert read_text(str(tmp_path)).text == "a/z.md\n\nb.txt\n\nc\n"


def test_sources_are_joined_and_a_comma_in_a_name_is_no_trap(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.txt", "one\n"), write(tmp_path / "2.txt", "two")
    assert read_text(f"{one}, {two}").text == "one\n\ntwo\n"
    assert read_text(str(write(tmp_path / "3,4.txt", "three"))).text == "three"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", '{"text": "a"}\n{"text": \n', r"bad\.jsonl, line 2: not JSON .* give one object a line"),
        ("bad.jsonl", '\n{"txt": "a"}\n', r"bad\.jsonl, line 2: no field 'text' .* the fields txt; rename"),
        ("bad.jsonl", "[1]\n", "line 1: a JSON list, not an object"),
        ("bad.jsonl", '{"text": "\\ud800"}\n', r"line 1: half of a surrogate pair"),
        ("bad.txt", " \n\n", r"bad\.txt' is empty; name a file"),
        ("bad.pdf", "text", r"bad\.pdf' is not a text .* \.txt, \.md, \.jsonl"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        read_text(str(write(tmp_path / name, content)))


def test_another_encoding_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(KronpressError, match=r"latin\.txt, line 1: not UTF-8 at byte 3; convert it"):
        read_text(str(path))


def test_missing_sources_suggest_a_neighbor(tmp_path: Path) -> None:
    write(tmp_path / "valid.txt", "text")
    with pytest.raises(KronpressError, match=r"no text at '.*vaild\.txt': did you mean 'valid\.txt'"):
        read_text(str(tmp_path / "vaild.txt"))
    with pytest.raises(KronpressError, match="does not exist either"):
        read_text(str(tmp_path / "nowhere" / "a.txt"))
    with pytest.raises(
        KronpressError, match=r"unknown bundled text 'python-referense': did you mean 'python-reference'"
    ):
        read_text("bundled:python-referense")
    with pytest.raises(KronpressError, match="has no name"):
        read_text(" ")


def test_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=r"holds no \.txt, \.md, \.jsonl file"):
        read_text(str(tmp_path))
    (tmp_path / "inner").mkdir()
    with pytest.raises(KronpressError, match="did you mean 'inner'"):
        read_text(str(tmp_path / "iner"))


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
def test_held_out_part_begins_at_the_nearest_line(fraction: float) -> None:
    corpus = Corpus("digits", "".join(f"{number}\n" for number in range(1000)))
    train, held_out = split_held_out(corpus, fraction=fraction)
    assert train.text + held_out.text == corpus.text
    assert train.text.endswith("\n") and held_out.text
    assert len(held_out.text) == pytest.approx(fraction * len(corpus.text), abs=3)


def test_held_out_part_is_never_empty() -> None:
    assert [part.text for part in split_held_out(Corpus("two", "a long first line\nb\n"))] == [
        "a long first line\n",
        "b\n",
    ]
    with pytest.raises(KronpressError, match="'one' has no line boundary"):
        split_held_out(Corpus("one", "one line\n"))
    with pytest.raises(KronpressError, match=r"fraction of 1\.5 .* between 0 and 1"):
        split_held_out(Corpus("one", "a\nb"), fraction=1.5)
