from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.losses import parse_losses
from kronpress.teacher import store
from kronpress.teacher.store import INDEX
from kronpress.teacher.text_outputs import Likeliest, StoredText, build_text, check_size, open_text
from kronpress.train import Distillation
from kronpress.train.text import Taught
from tests.teacher.asking import COUNT, WINDOW, Killed, asked, masked_text, predictions, text
from tests.tiny import VOCABULARY, tiny_bert, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.usefixtures("in_float32")

PLENTY = 2**20
TOP = Likeliest(5)
SHARDS = [f"shard-0000{index}.safetensors" for index in range(3)]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep two windows to a shard."""
    monkeypatch.setattr(store, "SHARD_BYTES", 2 * WINDOW * 22)


def build(folder: Path, teacher: PreTrainedModel | None = None, *, of: Any = None, kept: Likeliest = TOP) -> StoredText:
    return build_text(folder, teacher or tiny_llama(), of or text(), kept=kept, max_bytes=PLENTY)


def said(teacher: StoredText, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest ids of a row, and the log-probabilities."""
    row_said = teacher.said(row)
    return row_said["teacher_ids"], row_said["teacher_log_probabilities"]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(("model", "of"), [(tiny_llama, text), (tiny_gpt2, text), (tiny_bert, masked_text)])
def test_the_likeliest_ids_and_the_mass_of_the_others_are_kept(
    model: Any, of: Any, temperature: float, tmp_path: Path
) -> None:
    teacher, examples = model(), of()
    stored = build(tmp_path, teacher, of=examples, kept=Likeliest(5, temperature))
    assert len(stored.store) == COUNT
    for row in range(COUNT):
        every = predictions(teacher, examples[row], temperature)
        best = every.topk(5, dim=-1)
        ids, log_probabilities = said(stored, row)
        assert torch.equal(ids, best.indices)
        torch.testing.assert_close(log_probabilities[:, :5], best.values, atol=2e-3, rtol=1e-3)
        rest = 1 - best.values.exp().sum(dim=-1)
        torch.testing.assert_close(log_probabilities[:, 5].exp(), rest, atol=1e-3, rtol=2e-3)
        torch.testing.assert_close(log_probabilities.exp().sum(dim=-1), torch.ones(len(ids)))


def test_the_files_are_as_large_as_was_said_before(tmp_path: Path) -> None:
    stored = build(tmp_path)
    data = COUNT * WINDOW * (5 * (2 + 2) + 2)
    assert data <= stored.store.bytes <= data + 3 * 256
    check_size(text(), tiny_llama(), kept=TOP, max_bytes=data)
    with pytest.raises(KronpressError, match="2,112 bytes"):
        check_size(text(), tiny_llama(), kept=TOP, max_bytes=data - 1)


@pytest.mark.parametrize(("size", "id_bytes"), [(2**16, 2), (2**16 + 1, 4)])
def test_ids_beyond_the_signed_range_come_back_and_large_vocabularies_take_four_bytes_an_id(
    size: int, id_bytes: int, tmp_path: Path
) -> None:
    teacher = tiny_llama(vocab_size=size)
    stored = build(tmp_path, teacher)
    ids, _ = said(stored, 0)
    assert int(ids.max()) > 2**15
    assert torch.equal(ids, predictions(teacher, text()[0]).topk(5, dim=-1).indices)
    data = COUNT * WINDOW * (5 * (id_bytes + 2) + 2)
    assert data <= stored.store.bytes <= data + COUNT * 256


@pytest.mark.parametrize(("k", "bytes_per_token"), [(16, 66), (64, 258), (256, 1026)])
def test_a_token_takes_as_many_bytes_as_the_documentation_says(k: int, bytes_per_token: int) -> None:
    needed = COUNT * WINDOW * bytes_per_token
    check_size(text(), tiny_llama(), kept=Likeliest(k), max_bytes=needed)
    with pytest.raises(KronpressError, match=f"would take {needed:,} bytes"):
        check_size(text(), tiny_llama(), kept=Likeliest(k), max_bytes=needed - 1)


def test_too_small_a_limit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="cache_max_bytes is 2,000; raise it, lower top_k or train on fewer"):
        build_text(tmp_path / "teacher", tiny_llama(), text(), kept=TOP, max_bytes=2000)
    assert not any(tmp_path.iterdir())


def test_too_full_a_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("kronpress.checkpoint.files.shutil.disk_usage", lambda _: usage)
    with pytest.raises(KronpressError, match="free some space"):
        build(tmp_path / "teacher")
    assert not any(tmp_path.iterdir())


def test_an_interrupted_building_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        asked(patch, die_at=3)
        build(tmp_path / "killed")
    with pytest.raises(KronpressError, match=r"shard-00002\.safetensors is missing"):
        open_text(tmp_path / "killed", text(), kept=TOP)
    found = asked(monkeypatch)
    build(tmp_path / "killed")
    assert found == [2]
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()
    assert len(whole.store.contents.shards) == 3


def test_a_finished_store_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path)
    found = asked(monkeypatch)
    build(tmp_path)
    assert found == []


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_shard_is_computed_again_with_a_warning(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path)
    shard = tmp_path / SHARDS[1]
    content = shard.read_bytes()
    if damage == "remove":
        shard.unlink()
    else:
        shard.write_bytes(content[:-9] if damage == "cut" else content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(KronpressError, match=r"shard-00001\.safetensors is missing or damaged"):
        open_text(tmp_path, text(), kept=TOP)
    found = asked(monkeypatch)
    build(tmp_path)
    assert f"warning: {shard} is missing or damaged; it is computed again" in capsys.readouterr().out
    assert (found, shard.read_bytes()) == ([2], content)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"key": 3, "shards": {}}', '{"key": {"kept": 1}, "shards": 3}'])
def test_a_damaged_index_is_no_store(index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path)
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(KronpressError, match="no stored teacher outputs"):
        open_text(tmp_path, text(), kept=TOP)
    assert len(said(build(tmp_path), 0)) == 2
    assert "they are built again" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        {"kept": 3},
        {"kept": {"k": "many"}},
        {"kept": {"k": 5, "temperature": 1.0, "labeled": False, "vocabulary": None, "shared": "all"}},
        {"rows": 0},
        {"rows": [3, 3]},
        {"rows": [2, 2, 1]},
        {"columns": "all"},
        {"format": 1},
    ],
    ids=str,
)
def test_a_damaged_key_is_no_store(change: dict[str, Any], tmp_path: Path) -> None:
    build(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(index | {"key": index["key"] | change}))
    with pytest.raises(KronpressError, match="build"):
        open_text(tmp_path, text(), kept=TOP)
    assert len(said(build(tmp_path), 0)) == 2


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"teacher": tiny_llama(seed=3)}, "teacher"),
        ({"of": text(seed=3)}, "set of examples"),
        ({"kept": Likeliest(4)}, "choice of what is kept"),
        ({"kept": Likeliest(5, 2.0)}, "choice of what is kept"),
    ],
    ids=["teacher", "text", "k", "temperature"],
)
def test_a_store_of_something_else_is_not_mistaken(
    other: dict[str, Any], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "store")
    again = build(tmp_path / "store", **other)
    assert f"are of another {what}; they are built again" in capsys.readouterr().out
    fresh = build(tmp_path / "fresh", **other)
    for row in range(COUNT):
        assert all(torch.equal(*pair) for pair in zip(said(again, row), said(fresh, row), strict=True))


def test_a_finished_store_opens_without_the_teacher(tmp_path: Path) -> None:
    expected = build(tmp_path)
    stored = open_text(tmp_path, text(), kept=TOP)
    assert stored.store.contents.key == expected.store.contents.key
    assert stored.offer == expected.offer
    assert torch.equal(said(stored, 3)[1], said(expected, 3)[1])
    with pytest.raises(KronpressError, match="are of another set of examples"):
        open_text(tmp_path, text(seed=1), kept=TOP)
    with pytest.raises(KronpressError, match="are of another choice of what is kept"):
        open_text(tmp_path, text(), kept=Likeliest(6))
    with pytest.raises(KronpressError, match="no stored teacher outputs"):
        open_text(tmp_path / "none", text(), kept=TOP)


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    build(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_of_masked_text_the_guessed_tokens_alone_can_be_kept(tmp_path: Path) -> None:
    teacher, examples = tiny_bert(), masked_text()
    stored = build(tmp_path, teacher, of=examples, kept=Likeliest(5, labeled=True))
    assert stored.store.contents.columns["ids"].lengths.tolist() == [2] * COUNT
    for index in range(COUNT):
        example = Taught(examples, stored)[index]
        guessed = example["labels"] != -100
        assert example["teacher_ids"].shape == (WINDOW + 2, 5)
        expected = predictions(teacher, example)[guessed].topk(5, dim=-1)
        assert torch.equal(example["teacher_ids"][guessed], expected.indices)
        torch.testing.assert_close(
            example["teacher_log_probabilities"][guessed][:, :5], expected.values, atol=2e-3, rtol=1e-3
        )


def test_what_losses_look_at_decides_what_is_kept() -> None:
    given = {"a": {"name": "logits", "top_k": 3}, "b": {"name": "logits", "top_k": 8}, "cross_entropy": 0.1}
    assert Likeliest.of(parse_losses(given)) == Likeliest(8)
    on_labels = {"logits": {"top_k": 3, "at": "labels", "temperature": 2.0}}
    assert Likeliest.of(parse_losses(on_labels)) == Likeliest(3, 2.0, labeled=True)


def test_the_index_tells_what_the_store_is_of(tmp_path: Path) -> None:
    build(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["key"]["kept"] == {
        "k": 5,
        "temperature": 1.0,
        "labeled": False,
        "vocabulary": None,
        "shared": VOCABULARY,
    }
    assert set(index["shards"]) == set(SHARDS)


def test_the_plain_kl_of_a_stored_row_is_that_of_the_models(tmp_path: Path) -> None:
    """With all ids kept, torch's own divergence from the stored row equals that from the teacher."""
    teacher, student = tiny_llama(seed=2), tiny_llama(seed=1)
    ids, log_probabilities = said(build(tmp_path, teacher, kept=Likeliest(VOCABULARY)), 0)
    ours = predictions(student, text()[0])
    stored = F.kl_div(ours.gather(1, ids), log_probabilities[:, :-1], log_target=True, reduction="sum")
    expected = F.kl_div(ours, predictions(teacher, text()[0]), log_target=True, reduction="sum")
    assert float(stored) == pytest.approx(float(expected), rel=2e-3)


def test_what_was_not_stored_is_missed_before_training(tmp_path: Path) -> None:
    stored, student = build(tmp_path), tiny_llama()
    Distillation(student, stored, parse_losses({"logits": {"top_k": 5}, "cross_entropy": 1}))
    for losses in ("logits", {"logits": {"top_k": 6}}):
        with pytest.raises(KronpressError, match="needs more of the teacher than its 5 likeliest tokens"):
            Distillation(student, stored, parse_losses(losses))
    with pytest.raises(KronpressError, match="reads blocks, which the teacher does not give"):
        Distillation(student, stored, parse_losses({"hidden": 1}))
