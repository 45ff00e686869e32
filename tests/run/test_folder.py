"""The folder of a run belongs to one process, one model and one version, and damage in it is told by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from kronpress.errors import KronpressError
from kronpress.evaluate import Evaluate
from kronpress.factorize import Factorize
from kronpress.records import FactorizeRecord
from kronpress.run.execution import execute
from kronpress.run.folder import Run
from kronpress.run.recipe import read_recipe
from tests.tiny import TEXT, save_tiny, tiny_llama

RECIPE = """
model: {0}/model
data: {{train: {0}/text.txt, held_out: {0}/held_out.txt}}
steps:
- {{step: evaluate, max_windows: 1, text: {0}/other.txt}}
- {{step: factorize, sites: all, form: {{name: kronecker, right: [2, 2], terms: 2}}}}
- {{step: distill, tokens: 512, window: 32, teacher: {0}/teacher, log_every: 1}}
- {{step: evaluate, max_windows: 1, text: {0}/other.txt}}
"""


class StopError(Exception):
    """The process went away."""


def stop(*_: Any, **__: Any) -> None:
    raise StopError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its text, a recipe, and a run that stopped before its second step."""
    folder = tmp_path_factory.mktemp("home")
    model = tiny_llama(num_hidden_layers=1, max_position_embeddings=512)
    save_tiny(folder / "model", model)
    save_tiny(folder / "teacher", model)
    for name, text in (("text", TEXT), ("held_out", TEXT[1000:]), ("other", TEXT[2000:])):
        (folder / f"{name}.txt").write_text(text)
    (folder / "recipe.yaml").write_text(RECIPE.format(folder))
    with pytest.MonkeyPatch.context() as patched, pytest.raises(StopError):
        patched.setattr(Factorize, "run", stop)
        execute(read_recipe(folder / "recipe.yaml"), folder / "run")
    return folder


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Run:
    shutil.copytree(home / "run", tmp_path / "run")
    return Run(tmp_path / "run", read_recipe(home / "recipe.yaml"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def go_on(run: Run) -> Run:
    return execute(run.recipe, run.folder, resume=True)


def assert_refused(run: Run, message: str) -> None:
    """The run is not gone on with, and is as it was."""
    before = contents(run.folder)
    with pytest.raises(KronpressError, match=message) as told:
        go_on(run)
    assert "\n" not in str(told.value)
    assert contents(run.folder) == before


def test_a_second_process_in_the_folder_is_refused_and_the_first_one_ends_well(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, asked = Factorize.run, []

    def ask_for_the_folder_too(self: Factorize, bench: Any) -> FactorizeRecord:
        for resume in (True, False):
            with pytest.raises(KronpressError, match=rf"is in use by process {os.getpid()} on .*name another folder"):
                asked.append(execute(run.recipe, run.folder, resume=resume))
        return original(self, bench)

    monkeypatch.setattr(Factorize, "run", ask_for_the_folder_too)
    assert go_on(run).manifest().finished
    assert not asked
    assert {path.name for path in run.folder.iterdir()} == {
        "manifest.json", "recipe.yaml", "teacher.json", "steps", "checkpoint", "report.html",
    }  # fmt: skip


def test_a_run_that_fails_removes_what_it_made_and_nothing_else(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_notes_and_fail(*_: Any) -> None:
        (tmp_path / "run" / "notes.txt").write_text("mine")
        raise KronpressError("a mistake")

    monkeypatch.setattr(Evaluate, "run", write_notes_and_fail)
    with pytest.raises(KronpressError, match="a mistake"):
        execute(read_recipe(home / "recipe.yaml"), tmp_path / "run")
    assert contents(tmp_path / "run") == {"notes.txt": b"mine"}


def scale_the_weights(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    scaled = {name: value * 1.5 if "mlp" in name else value for name, value in tensors.items()}
    save_file(scaled, model / "model.safetensors", metadata={"format": "pt"})


def swap_two_tokens(model: Path) -> None:
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    entries = content["model"]["vocab"]
    entries["a"], entries["b"] = entries["b"], entries["a"]
    path.write_text(json.dumps(content))


def change_the_config(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-2}))


@pytest.mark.parametrize(
    ("change", "place", "message"),
    [
        (scale_the_weights, "model", "the weights of the model '.*' changed since the run in .* restore"),
        (swap_two_tokens, "model", "the tokenizer of the model '.*' changed since"),
        (change_the_config, "model", "the config of the model '.*' changed since"),
        (scale_the_weights, "teacher", r"steps\.2: the model '.*teacher' has changed since"),
        (lambda path: path.write_text(TEXT[3000:]), "other.txt", r"steps\.3: the text '.*other.txt' has changed since"),
        (lambda path: path.write_text(TEXT[3000:]), "held_out.txt", "the held-out text .* has changed since"),
    ],
)
def test_what_the_results_depend_on_must_be_what_it_was(
    change: Callable[[Path], None], place: str, message: str, home: Path, run: Run, tmp_path: Path
) -> None:
    shutil.copytree(home, tmp_path / "kept")
    try:
        change(home / place)
        assert_refused(run, message)
    finally:
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "kept", home)


@pytest.mark.parametrize("package", ["kronpress", "torch", "transformers"])
def test_another_version_is_refused_with_both(package: str, run: Run) -> None:
    manifest = run.manifest()
    changed = manifest.model_copy(update={"environment": manifest.environment | {package: "0.0.7"}})
    run.keep_manifest(changed)
    now = metadata.version(package).replace("+", r"\+")
    assert_refused(run, rf"began with {package} 0\.0\.7, and this is {package} {now}, .* install {package}==0\.0\.7")


def test_measurements_that_are_damaged_are_taken_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.folder / "teacher.json").write_text("[]")
    done = go_on(run)
    records = [json.loads((done.step_folder(index) / "report.json").read_text())["record"] for index in (0, 3)]
    rows = [record["perplexity"][0] for record in records]
    assert rows[0]["dense"]["perplexity"] == rows[1]["dense"]["perplexity"]
    assert "teacher.json is damaged; what it lacks is measured again" in capsys.readouterr().out


WRONG = [
    ("steps", None),
    ("steps", 3),
    ("steps", [{"name": 1, "seconds": 2.0}]),
    ("steps", [{"name": "distill", "seconds": 2.0}]),
    ("checkpoint", "../../elsewhere"),
    ("dtype", "many"),
    ("finished", "no"),
    ("data", []),
    ("model", {"weights": 1}),
    ("footprint_before", {"parameters": "few"}),
    ("environment", None),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_a_damaged_manifest_is_named(key: str, value: Any, run: Run) -> None:
    manifest = run.manifest().to_json() | {key: value}
    if value is None:
        del manifest[key]
    run.manifest_path.write_text(json.dumps(manifest))
    assert_refused(run, rf"manifest\.json is damaged: .*{key}.*; restore it, or start the run anew")


@pytest.mark.parametrize("content", [None, "[]", "{}", "{", '{"format_version": 1, "peak_rss_bytes": 1}'])
def test_a_damaged_report_of_a_step_is_named_before_more_is_done(content: str | None, run: Run) -> None:
    path = run.step_folder(0) / "report.json"
    path.unlink() if content is None else path.write_text(content)
    assert_refused(run, r"steps.*; restore it|report\.json is not valid JSON")


def test_a_damaged_log_is_named_with_the_line(run: Run) -> None:
    log = run.step_folder(2) / "train.jsonl"
    log.parent.mkdir(parents=True)
    told = rf"train\.jsonl, line 2 is damaged; restore .*, or remove {log.parent}"
    for line in (b"\xff\xfe", b"3", b'{"step": "one"}', b"[" * 10**5):
        log.write_bytes(b'{"step": 1, "tokens": 2}\n' + line + b'\n{"step": 2, "tokens": 4}\n')
        with pytest.raises(KronpressError, match=told):
            go_on(run)
    shutil.rmtree(log.parent)
    assert go_on(run).manifest().finished, "the remedy works"


def test_the_space_that_saving_asks_for_is_asked_for_before_the_first_step(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(Evaluate, "run", stop)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with pytest.raises(KronpressError, match="MB are free"):
        execute(run.recipe, tmp_path / "new")
    assert not (tmp_path / "new").exists()
