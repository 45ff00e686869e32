"""Run a recipe: step after step, with a manifest that says how far it came."""

from __future__ import annotations

import copy
import hashlib
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, set_seed

from kronpress import processes
from kronpress.checkpoint import files, load, load_with_tokenizer, notes_of, save, structured_layers, write_manifest
from kronpress.data import Corpus, read_text, split_held_out
from kronpress.errors import KronpressError
from kronpress.evaluate import footprint
from kronpress.memory import keep_freed_memory, peak_rss_bytes
from kronpress.precision import NumberFormat, choose, computing_in, number_format
from kronpress.recipe import Recipe
from kronpress.report import RunSummary, model_card, write_report
from kronpress.step import Workbench
from kronpress.summary import pipeline_tag, summarize

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Run:
    """The folder of a run and what stands where in it.

    recipe.yaml, manifest.json, teacher.json, steps/NN-name/ (report.json, logs), checkpoint/, report.html.
    """

    folder: Path
    recipe: Recipe

    @property
    def manifest_path(self) -> Path:
        """What has been done so far; written last and atomically."""
        return self.folder / MANIFEST

    @property
    def checkpoint(self) -> Path:
        """The finished model."""
        return self.folder / "checkpoint"

    def step_folder(self, index: int) -> Path:
        """Where a step keeps its report, its logs and what it needs to resume."""
        return self.folder / "steps" / f"{index:02d}-{self.recipe.steps[index].kind}"

    def manifest(self) -> dict[str, Any]:
        """Read the manifest."""
        value = files.read_json(self.manifest_path)
        if not isinstance(value, dict) or "recipe_sha256" not in value:
            raise KronpressError(f"{self.manifest_path} is not the manifest of a run; name another folder")
        return value

    def summary(self) -> RunSummary:
        """Return what the run has to say about itself so far."""
        manifest = self.manifest()
        reports = [files.read_json(self.step_folder(i) / "report.json") for i in range(len(manifest["steps"]))]
        return summarize(self.recipe, manifest, reports)


def execute(recipe: Recipe, folder: str | Path, *, resume: bool = False) -> Run:
    """Run a recipe in a folder; where torchrun has started several processes, all of them call this.

    Args:
        recipe: what to do.
        folder: absent or empty, unless `resume`.
        resume: go on with an interrupted run of the same recipe; a finished one is left as it is.

    Returns:
        The finished run.

    Raises:
        KronpressError: the folder holds something else, or a step meets bad input.
    """
    run = Run(Path(folder), recipe)
    processes.connect()
    if processes.from_main(lambda: _prepare(run, resume=resume)):
        return run
    keep_freed_memory()
    fresh = not run.manifest_path.exists()
    missing = [path for path in (run.folder, *run.folder.parents) if not path.exists()]
    try:
        with computing_in(_number_format(run)):
            with processes.together():
                bench = _Bench.open(run)
                if processes.is_main():
                    bench.check()
            for index in range(len(run.manifest()["steps"]), len(recipe.steps)):
                bench.do(index)
            with processes.together():
                if processes.is_main():
                    bench.finish()
    except (KronpressError, OSError):
        if fresh and processes.is_main():
            _forget(run, missing)
        raise
    return run


def _number_format(run: Run) -> NumberFormat:
    """Return the number format that the run began with, or the one that its recipe asks for, alike in all processes."""

    def chosen() -> NumberFormat:
        begun = run.manifest().get("precision") if run.manifest_path.exists() else None
        if begun in ("bf16", "fp32"):
            return NumberFormat(begun, "as the run began")
        return choose(run.recipe.precision, torch.device(_device()))

    return processes.from_main(chosen)


def _prepare(run: Run, *, resume: bool) -> bool:
    """Make the folder ready; return whether the run is finished already."""
    if resume and run.manifest_path.exists():
        manifest = run.manifest()
        if manifest["recipe_sha256"] != _digest(run.recipe):
            raise KronpressError(
                f"{run.folder} holds a run of another recipe or other overrides (see its recipe.yaml); "
                "repeat those, or choose another folder"
            )
        _sweep(run)
        return bool(manifest["finished"])
    if run.manifest_path.exists():
        raise KronpressError(
            f"{run.folder} already holds a run, which is left untouched; add --resume or name a new folder"
        )
    if resume:  # a kill may have come while the manifest was first written
        run.manifest_path.with_name(f".{MANIFEST}.partial").unlink(missing_ok=True)
    files.require_empty(run.folder)
    return False


def _sweep(run: Run) -> None:
    """Remove what finished steps needed to go on after an interruption, but not the latest student."""
    manifest = run.manifest()
    for index in range(len(manifest["steps"])):
        for name in ("trainer", "checkpoint"):
            path = run.step_folder(index) / name
            if path != run.folder / (manifest["checkpoint"] or ""):
                shutil.rmtree(path, ignore_errors=True)


def _forget(run: Run, missing: Sequence[Path]) -> None:
    """Empty a folder in which nothing was achieved, so that a corrected command can use it.

    `missing` are the folders that were not there before, the innermost first; they go as well.
    """
    started = run.manifest_path.exists() and run.manifest()["steps"]
    if started or any(run.folder.rglob("*.safetensors")):
        return
    for path in run.folder.iterdir() if run.folder.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in missing:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _digest(recipe: Recipe) -> str:
    return hashlib.sha256(recipe.to_yaml().encode()).hexdigest()


@dataclass
class _Bench:
    """The models and texts of a run in progress."""

    run: Run
    manifest: dict[str, Any]
    bench: Workbench

    @classmethod
    def open(cls, run: Run) -> _Bench:
        train, held_out = _texts(run.recipe)
        teacher, tokenizer = load_with_tokenizer(run.recipe.model)
        if tokenizer is None:
            raise KronpressError(
                f"the model '{run.recipe.model}' has no readable tokenizer beside it; add its tokenizer files"
            )
        facts = {"dtype": str(teacher.dtype).removeprefix("torch."), "footprint_before": vars(footprint(teacher))}
        facts["notes"] = notes_of(teacher)
        _move(teacher)
        prints = {"train": train.fingerprint, "held_out": held_out.fingerprint}
        manifest = run.manifest() if run.manifest_path.exists() else _new_manifest(run, prints, teacher) | facts
        if manifest["data"] != prints:
            raise KronpressError(
                f"the text of the run in {run.folder} has changed since it began; start in a new folder"
            )
        memory = run.folder / "teacher.json"
        opened = cls(run, manifest, Workbench(teacher, teacher, tokenizer, train, held_out, run.folder, memory))
        if processes.is_main():
            opened.begin()
        return opened

    def begin(self) -> None:
        """Write down what is to be done, and go on where an interrupted run came to."""
        run, done = self.run, len(self.manifest["steps"])
        files.require_space(run.folder, needed=_bytes(self.bench.teacher) * (6 if _trains(run.recipe) else 2))
        files.write_json(run.manifest_path, self.manifest)
        files.write_text(run.folder / "recipe.yaml", run.recipe.to_yaml())
        self._take_student()
        tqdm.write(f"matrix products in {number_format(self.bench.teacher.device)}")
        if done:
            tqdm.write(f"going on after step {done} of {len(run.recipe.steps)}")

    def _take_student(self) -> None:
        """Take the student as the last finished step left it."""
        latest = self.manifest["checkpoint"]
        teacher = self.bench.teacher
        self.bench.student = copy.deepcopy(teacher) if latest is None else _move(load(self.run.folder / latest))

    def check(self) -> None:
        """Let every step look for mistakes before the first one runs."""
        if not self.manifest["steps"]:
            self.bench.require_known_texts()
            for step in self.run.recipe.steps:
                step.check(self.bench)

    def do(self, index: int) -> None:
        """Run one step; the manifest says so only once everything is on disk."""
        step, started = self.run.recipe.steps[index], time.perf_counter()
        self.bench.folder, self.bench.seed = self.run.step_folder(index), self.run.recipe.seed + index
        with processes.together():
            if processes.is_main():
                tqdm.write(f"step {index + 1}/{len(self.run.recipe.steps)}: {step.kind}")
            elif step.in_all_processes:
                self.manifest = self.run.manifest()
                self._take_student()
            set_seed(self.bench.seed)
            report = step.run(self.bench) if processes.is_main() and not step.in_all_processes else {}
        if step.in_all_processes:
            report = step.run(self.bench)
        with processes.together():
            if processes.is_main():
                self._record(index, report, seconds=time.perf_counter() - started)

    def _record(self, index: int, report: dict[str, Any], *, seconds: float) -> None:
        """Write student and report of a step to disk, then say in the manifest that it is done."""
        step, folder = self.run.recipe.steps[index], self.run.step_folder(index)
        report["peak_rss_bytes"] = peak_rss_bytes()
        if step.changes_student:
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
            save(self.bench.student, folder / "checkpoint", tokenizer=self.bench.tokenizer)
            self.manifest["checkpoint"] = (folder / "checkpoint").relative_to(self.run.folder).as_posix()
        files.write_json(folder / "report.json", report)
        self.manifest["steps"].append({"name": step.kind, "seconds": round(seconds, 2)})
        files.write_json(self.run.manifest_path, self.manifest)
        _sweep(self.run)

    def finish(self) -> None:
        """Write checkpoint, card and report; the manifest says finished last."""
        run, student = self.run, self.bench.student
        shutil.rmtree(run.checkpoint, ignore_errors=True)
        _move(student, dtype=getattr(torch, self.manifest["dtype"]))  # the base model's own; training ran in float32
        save(student, run.checkpoint, tokenizer=self.bench.tokenizer)
        self.manifest["footprint_after"] = vars(footprint(student, folder=run.checkpoint))
        self.manifest["plain"] = not structured_layers(student)
        self.manifest["pipeline_tag"] = pipeline_tag(student)
        self.manifest["peak_rss_bytes"] = peak_rss_bytes()
        files.write_json(run.manifest_path, self.manifest)
        summary = run.summary()
        files.write_text(run.checkpoint / "README.md", model_card(summary, plain=self.manifest["plain"]))
        files.write_text(run.checkpoint / "recipe.yaml", run.recipe.to_yaml())
        write_manifest(run.checkpoint, plain=self.manifest["plain"])
        write_report(run.folder / "report.html", summary=summary)
        self.manifest["checkpoint"], self.manifest["finished"] = "checkpoint", True
        files.write_json(run.manifest_path, self.manifest)
        _sweep(run)


def _texts(recipe: Recipe) -> tuple[Corpus, Corpus]:
    train = read_text(recipe.data.train)
    if recipe.data.held_out is None:
        return split_held_out(train)
    held_out = read_text(recipe.data.held_out)
    if held_out.fingerprint == train.fingerprint:
        raise KronpressError(
            f"the held-out text '{held_out.name}' is the training text '{train.name}', which would flatter the result; "
            "name another, or none, and the last tenth is held out"
        )
    return train, held_out


def _trains(recipe: Recipe) -> bool:
    return any(step.kind == "distill" for step in recipe.steps)


def _bytes(model: PreTrainedModel) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _move(model: PreTrainedModel, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    module: torch.nn.Module = model
    module.to(_device())
    for parameter in module.parameters():  # buffers, such as rotary frequencies, stay precise
        parameter.data = parameter.data.to(dtype)
    return model


def _new_manifest(run: Run, data: dict[str, str], teacher: PreTrainedModel) -> dict[str, Any]:
    return {
        "recipe_sha256": _digest(run.recipe),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "data": data,
        "environment": _environment(teacher),
        "precision": number_format(teacher.device).name,
        "steps": [],
        "checkpoint": None,
        "finished": False,
    }


def _environment(model: PreTrainedModel) -> dict[str, str]:
    packages = {name: version(name) for name in ("kronpress", "torch", "transformers")}
    return {
        **packages,
        "python": platform.python_version(),
        "device": str(model.device),
        "matrix products": str(number_format(model.device)),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
    }
