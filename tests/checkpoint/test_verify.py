"""What `verify` vouches for: every file that decides the outputs, and no file besides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM
from typer.testing import CliRunner

import kronpress
from kronpress import KronpressError
from kronpress.checkpoint import write_manifest
from kronpress.cli import app
from tests.tiny import factorized, save_tiny, tiny_llama, tiny_tokenizer

MANIFEST, PROBE, INDEX = "kronpress.json", "kronpress_probe.safetensors", "model.safetensors.index.json"
DECIDING = ["config.json", "generation_config.json", PROBE, "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints that kronpress vouches for, made once: with factors, plain, and plain in shards."""
    home = tmp_path_factory.mktemp("originals")
    kronpress.save(factorized(tiny_llama(), home, sites="up"), home / "structured", tokenizer=tiny_tokenizer())
    kronpress.save(tiny_llama(), home / "plain", tokenizer=tiny_tokenizer())
    tiny_llama().save_pretrained(home / "shards", max_shard_size="8KB")
    for name in DECIDING[1:]:
        shutil.copy(home / "plain" / name, home / "shards" / name)
    write_manifest(home / "shards", plain=True)
    return home


@pytest.fixture(params=["structured", "plain"])
def saved(request: pytest.FixtureRequest, originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals / request.param, tmp_path / request.param))


@pytest.fixture
def checkpoint(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals / "structured", tmp_path / "structured"))


@pytest.fixture
def sharded(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals / "shards", tmp_path / "shards"))


def weights_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.safetensors")) if path.name != PROBE]


def flip(path: Path, *, at: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(bytes(content))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_sound_checkpoint_is_verified(saved: Path) -> None:
    found = kronpress.verify(saved)
    indexes = list(saved.glob("*.index.json"))
    assert found["files"] == len([*DECIDING, *indexes, *weights_of(saved)])
    assert found["deviation"] < 1e-6


@pytest.mark.parametrize("name", [*DECIDING, None], ids=str)
def test_a_changed_and_a_missing_file_are_noticed(saved: Path, name: str | None) -> None:
    path = weights_of(saved)[0] if name is None else saved / name
    flip(path)
    with pytest.raises(KronpressError, match=rf"{path.name} is not the file that was saved"):
        kronpress.verify(saved)
    path.unlink()
    with pytest.raises(KronpressError, match=f"{path.name} is missing"):
        kronpress.verify(saved)


@pytest.mark.parametrize(
    "name",
    [
        *("added_tokens.json", "special_tokens_map.json", "vocab.txt", "merges.txt", "spiece.model"),
        *(
            "chat_template.jinja",
            "additional_chat_templates/tool.jinja",
            "other.safetensors",
            INDEX,
            "pytorch_model.bin",
        ),
    ],
)
def test_an_added_file_that_may_decide_something_is_noticed(checkpoint: Path, name: str) -> None:
    (checkpoint / name).parent.mkdir(exist_ok=True)
    (checkpoint / name).write_text("{}")
    with pytest.raises(KronpressError, match=rf"{name} is not among the files that were saved"):
        kronpress.verify(checkpoint)


def test_card_report_and_recipe_may_change(checkpoint: Path) -> None:
    for name in ("README.md", "report.html", "recipe.yaml"):
        (checkpoint / name).write_text("mine")
    kronpress.verify(checkpoint)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"files": 3}', '{"files": {}}'])
def test_a_manifest_without_files_is_named(checkpoint: Path, text: str) -> None:
    (checkpoint / MANIFEST).write_text(text)
    with pytest.raises(KronpressError, match=r"kronpress\.json"):
        kronpress.verify(checkpoint)


@pytest.mark.parametrize("missing", ["config.json", PROBE, "tokenizer.json", None], ids=str)
def test_a_manifest_that_leaves_a_file_out_is_noticed(saved: Path, missing: str | None) -> None:
    files = json.loads((saved / MANIFEST).read_text())["files"]
    files.pop(weights_of(saved)[0].name if missing is None else missing)
    edit_json(saved / MANIFEST, files=files)
    with pytest.raises(KronpressError, match=r"does not list the|is not among the files"):
        kronpress.verify(saved)


@pytest.mark.parametrize("name", ["../other.json", "/etc/hostname", "a/b", "..", "C:\\other", "", "a" * 256])
def test_a_manifest_never_leads_out_of_the_folder(checkpoint: Path, name: str) -> None:
    files = json.loads((checkpoint / MANIFEST).read_text())["files"]
    edit_json(checkpoint / MANIFEST, files=files | {name: {"sha256": "0", "bytes": 0}})
    with pytest.raises(KronpressError, match=r"kronpress\.json names the file .* not a plain name"):
        kronpress.verify(checkpoint)


def test_each_shard_and_its_index_count(sharded: Path) -> None:
    assert kronpress.verify(sharded)["files"] == len([*DECIDING, INDEX, *weights_of(sharded)])
    (sharded / INDEX).write_text((sharded / INDEX).read_text() + "\n")
    with pytest.raises(KronpressError, match=rf"{INDEX} is not the file that was saved"):
        kronpress.verify(sharded)


def test_a_shard_elsewhere_is_never_read(sharded: Path) -> None:
    first = weights_of(sharded)[0]
    save_file({name: 0 * value for name, value in load_file(first).items()}, sharded.parent / "elsewhere.safetensors")
    index = json.loads((sharded / INDEX).read_text())
    for name in ("../elsewhere.safetensors", str(sharded.parent / "elsewhere.safetensors")):
        shards = {key: name if shard == first.name else shard for key, shard in index["weight_map"].items()}
        edit_json(sharded / INDEX, weight_map=shards)
        write_manifest(sharded, plain=True)
        for door in (kronpress.verify, kronpress.load):
            with pytest.raises(KronpressError, match=rf"{INDEX} names the file .* not a plain name"):
                door(sharded)


@pytest.mark.parametrize("auto", [AutoModelForCausalLM, AutoModel])
def test_nor_does_transformers_read_one(checkpoint: Path, tmp_path: Path, auto: Any) -> None:
    model = kronpress.load(checkpoint)
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    auto.from_pretrained(tmp_path / "shards")
    auto.from_pretrained(f"{tmp_path / 'shards'}/")
    first = weights_of(tmp_path / "shards")[0]
    first.rename(tmp_path / first.name)
    path = tmp_path / "shards" / "kronpress.safetensors.index.json"
    index = json.loads(path.read_text())["weight_map"]
    shards = {key: f"../{shard}" if shard == first.name else shard for key, shard in index.items()}
    edit_json(path, weight_map=shards)
    with pytest.raises(KronpressError, match=r"a shard index names files in .* nothing outside of"):
        auto.from_pretrained(tmp_path / "shards")


def test_there_is_nothing_to_verify_in_a_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="was not written by kronpress"):
        kronpress.verify(save_tiny(tmp_path / "theirs"))


def test_the_command_says_how_many_files_match(checkpoint: Path) -> None:
    done = CliRunner().invoke(app, ["verify", str(checkpoint)])
    assert done.exit_code == 0
    assert "7 files match their hashes" in done.output.replace("\n", " ")
