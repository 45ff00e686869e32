"""Tokens of large texts: those of `tokenize`, made once."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken

from kronpress.data import (
    Corpus,
    StoredTokens,
    StoredWindows,
    read_text,
    stored_tokens,
    token_files,
    tokenize,
    tokens,
    windows,
)
from kronpress.data.cached import making
from kronpress.errors import KronpressError
from kronpress.lock import NOTE
from tests.dying import killed
from tests.tiny import tiny_llama, tiny_tokenizer

CHUNK = 2_000
MODEL, TOKENIZER = tiny_llama(num_hidden_layers=1), tiny_tokenizer()
TEXT = "".join(f"{number} times é is a line.\n" for number in range(400))  # of five chunks
IDS = tokenize(TEXT, TOKENIZER)


@pytest.fixture
def large(tmp_path: Path, large_texts: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.setattr(tokens, "CHUNK", CHUNK)
    monkeypatch.setattr(token_files, "SHARD", 1)
    monkeypatch.setattr(token_files, "AT_ONCE", 1)
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    return read_text(str(tmp_path / "a.txt"))


def stored(text: Corpus, **options: Any) -> StoredTokens:
    return stored_tokens(text, TOKENIZER, model=MODEL, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_they_are_those_of_the_text_in_memory(large: Corpus) -> None:
    ids = stored(large)
    assert len(ids.shards) == 5 and len(ids) == len(IDS) and torch.equal(ids[:], IDS)
    ends = [place for start in ids.starts for place in (start - 3, start, start + 1) if 0 < place < len(ids)]
    for start, stop in zip([0, *ends], [*ends, len(ids)], strict=True):
        assert torch.equal(ids[start:stop], IDS[start:stop])
    assert ids.highest == int(IDS.max()) and torch.equal(ids[5:5], IDS[:0])


@pytest.mark.parametrize("first", [None, 5])
@pytest.mark.parametrize("limit", [None, 5_000])
def test_windows_are_those_of_the_text_in_memory(large: Corpus, first: int | None, limit: int | None) -> None:
    stored_windows = StoredWindows(stored(large, limit=limit), size=100, name="a", first=first, limit=limit)
    expected = windows(IDS[:limit], size=100, first=first)
    assert len(stored_windows) == len(expected)
    assert all(torch.equal(stored_windows[index], expected[index]) for index in range(len(expected)))
    with pytest.raises(IndexError):
        stored_windows[len(expected)]
    with pytest.raises(KronpressError, match="a has only"):
        StoredWindows(stored(large), size=10**7, name="a")


def test_no_more_is_made_than_is_asked_for_and_the_rest_later(large: Corpus, large_texts: Path) -> None:
    assert len(stored(large, limit=10).shards) == 1
    before = contents(large_texts)
    ids = stored(large)
    assert torch.equal(ids[:], IDS) and contents(large_texts)["00000.ids"] == before["00000.ids"]


def test_a_killed_process_leaves_what_it_finished(large: Corpus, large_texts: Path) -> None:
    stored(large)
    whole = contents(large_texts)
    for at in (1, 5, 9, 14, 20):
        shutil.rmtree(large_texts)
        assert killed(lambda: stored(large), large_texts, at=at)
        left = set(contents(large_texts))
        assert torch.equal(stored(large)[:], IDS) and contents(large_texts) == whole
    assert "00002.ids" in left


def test_what_is_damaged_is_made_again(large: Corpus, large_texts: Path) -> None:
    folder = stored(large).folder
    whole = contents(large_texts)
    (folder / "00003.ids").write_bytes(b"short")
    assert torch.equal(stored(large)[:], IDS)
    for content in ("[]", "{", '{"shards": [[1]]}'):
        (folder / "index.json").write_text(content)
        assert torch.equal(stored(large)[:], IDS) and contents(large_texts) == whole


def test_another_tokenizer_has_files_of_its_own(large: Corpus) -> None:
    other = tiny_tokenizer()
    other.add_tokens([AddedToken("times")])
    same, ids = tiny_tokenizer(), stored_tokens(large, other, model=tiny_llama(vocab_size=300))
    same("text", truncation=True, max_length=2)
    assert ids.folder != stored(large).folder == stored_tokens(large, same, model=MODEL).folder
    assert torch.equal(ids[:], tokenize(TEXT, other))
    with pytest.raises(KronpressError, match=r"the tokenizer gives id 264 \('times'\) and LlamaForCausalLM knows 264"):
        stored_tokens(large, other, model=MODEL)


def test_ids_beyond_two_bytes_are_kept(large: Corpus, tmp_path: Path) -> None:
    wide = tiny_tokenizer()
    wide.add_tokens([AddedToken(f"<{number}>") for number in range(2**16 - len(wide))])
    wide.add_tokens([AddedToken("line")])
    assert torch.equal(stored_tokens(large, wide, model=tiny_llama(vocab_size=2**16 + 1))[:], tokenize(TEXT, wide))


PROCESS = """
import sys
from kronpress.data import corpus, read_text, stored_tokens, token_files, tokens
from tests.tiny import tiny_llama, tiny_tokenizer
corpus.IN_MEMORY, tokens.CHUNK = 10, 2_000
token_files.SHARD = token_files.AT_ONCE = 1
ids = stored_tokens(read_text(sys.argv[1]), tiny_tokenizer(), model=tiny_llama(num_hidden_layers=1))
print(int(ids[:].sum()))
"""


def test_processes_make_the_same_together(large: Corpus, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "a.txt")]
    running = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = [process.communicate(timeout=120)[0].splitlines()[-1] for process in running]
    assert sums == [str(int(IDS.sum()))] * 2 and torch.equal(stored(large)[:], IDS)


def test_a_full_disk_is_said_and_nothing_is_lost(large: Corpus, large_texts: Path) -> None:
    stored(large, limit=10)
    before, limits = contents(large_texts), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(KronpressError, match=r"cannot write into the cache, .*free some space, .* KRONPRESS_CACHE"):
            stored(large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(large_texts) == before
    assert torch.equal(stored(large)[:], IDS)


def test_a_cache_that_cannot_be_is_said(large: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONPRESS_CACHE", str(tmp_path / "a.txt"))
    with pytest.raises(KronpressError, match=r"KRONPRESS_CACHE names another folder"):
        stored(large)
    monkeypatch.undo()
    monkeypatch.setenv("KRONPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(KronpressError, match=r"MB but only 0 MB are free; .*KRONPRESS_CACHE names another folder"):
        stored(large)


def test_files_that_vanish_are_said(large: Corpus, large_texts: Path) -> None:
    ids = stored(large)
    shutil.rmtree(large_texts)
    with pytest.raises(KronpressError, match=r"00000\.ids with tokens of the text can not be read .*; start again"):
        ids[:5]


def test_a_note_of_another_machine_is_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    note = {"pid": 1, "host": "a-machine-that-is-gone", "since": "2026-01-01 00:00:00", "at": 0.0}
    (folder / NOTE).write_text(json.dumps(note))
    message = r"process 1 on a-machine-that-is-gone.* remove .*KRONPRESS_CACHE"
    with pytest.raises(KronpressError, match=message), making(folder, needed=0):
        raise AssertionError
