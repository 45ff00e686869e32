"""Run a recipe: step after step, with a manifest that says how far it came."""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, set_seed

from kronpress import processes
from kronpress.checkpoint import (
    bytes_of,
    files,
    load,
    load_with_tokenizer,
    notes_of,
    save,
    structured_layers,
    write_manifest,
)
from kronpress.checkpoint.digests import weights_digest
from kronpress.data import Corpus, read_text, split_held_out
from kronpress.errors import KronpressError
from kronpress.evaluate import footprint
from kronpress.lock import locked
from kronpress.memory import keep_freed_memory, peak_rss_bytes
from kronpress.precision import NumberFormat, choose, computing_in, number_format
from kronpress.report import model_card, write_report
from kronpress.run.folder import Run, recipe_digest
from kronpress.run.recipe import Recipe
from kronpress.run.summary import pipeline_tag
from kronpress.step import Workbench


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
    with ExitStack() as held:
        if processes.from_main(lambda: _prepare(run, held, resume=resume)):
            return run
        keep_freed_memory()
        fresh = not run.manifest_path.exists()
        try:
            with computing_in(_number_format(run)):
                _work(run)
        except (KronpressError, OSError):
            if fresh and processes.is_main():
                run.forget()
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


def _prepare(run: Run, held: ExitStack, *, resume: bool) -> bool:
    """Make the folder ready, and this process the only one that works in it; return whether the run is finished."""
    files.require_possible(run.folder)
    held.enter_context(locked(run.folder))
    if run.manifest_path.exists() and not resume:
        raise KronpressError(
            f"{run.folder} already holds a run, which is left untouched; add --resume or name a new folder"
        )
    if not run.manifest_path.exists():
        run.require_new()
        return False
    run.require_same_recipe()
    files.remove_partial(run.folder)
    run.sweep()
    return bool(run.manifest()["finished"])


def _work(run: Run) -> None:
    """Do what of the run is not done yet."""
    with processes.together():
        bench = _Bench.open(run)
        if processes.is_main():
            bench.check()
    for index in range(len(run.manifest()["steps"]), len(run.recipe.steps)):
        bench.do(index)
    with processes.together():
        if processes.is_main():
            bench.finish()


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
        prints = {"data": {"training": train.fingerprint, "held-out": held_out.fingerprint}}
        if processes.is_main():
            prints["model"] = _model_digests(teacher, tokenizer)
        _move(teacher)
        manifest = run.manifest() if run.manifest_path.exists() else _new_manifest(run, teacher) | facts | prints
        memory = run.folder / "teacher.json"
        opened = cls(run, manifest, Workbench(teacher, teacher, tokenizer, train, held_out, run.folder, memory))
        if processes.is_main():
            opened.begin(prints)
        return opened

    def begin(self, prints: dict[str, dict[str, str]]) -> None:
        """Write down what is to be done, and go on where an interrupted run came to, if all is as it was then."""
        run, done = self.run, len(self.manifest["steps"])
        if run.manifest_path.exists():
            run.require_unchanged(self.manifest, {"environment": _versions(), **prints})
            if self.manifest["sources"]:
                run.require_unchanged(self.manifest, {"sources": self._sources()})
            run.summary()
        self._require_space()
        files.write_json(run.manifest_path, self.manifest)
        files.write_text(run.folder / "recipe.yaml", run.recipe.to_yaml())
        self._take_student()
        tqdm.write(f"matrix products in {number_format(self.bench.teacher.device)}")
        if done:
            tqdm.write(f"going on after step {done} of {len(run.recipe.steps)}")

    def _sources(self) -> dict[str, str]:
        """Return digests of what the steps that are not done yet read."""
        done = len(self.manifest["steps"])
        steps = list(enumerate(self.run.recipe.steps))[done:]
        return {f"steps.{index}: {name}": value for index, step in steps for name, value in step.sources().items()}

    def _require_space(self) -> None:
        """Ask for the space that the whole run needs, less what it has taken already."""
        trains = any(step.in_all_processes for step in self.run.recipe.steps)
        taken = sum(path.stat().st_size for path in self.run.folder.rglob("*") if path.is_file())
        needed = bytes_of(self.bench.teacher) * (6 if trains else 2) + files.MARGIN_BYTES
        files.require_space(self.run.folder, needed=max(0, needed - taken))

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
            self.manifest["sources"] = self._sources()
            files.write_json(self.run.manifest_path, self.manifest)

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
            files.remove(folder / "checkpoint")
            save(self.bench.student, folder / "checkpoint", tokenizer=self.bench.tokenizer)
            self.manifest["checkpoint"] = self.run.step_checkpoint(index)
        files.write_json(folder / "report.json", report)
        self.manifest["steps"].append({"name": step.kind, "seconds": round(seconds, 2)})
        files.write_json(self.run.manifest_path, self.manifest)
        self.run.sweep()

    def finish(self) -> None:
        """Write checkpoint, card and report; the manifest says finished last."""
        run, student = self.run, self.bench.student
        files.remove(run.checkpoint)
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
        files.remove_partial(run.folder)
        run.sweep()


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


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _move(model: PreTrainedModel, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    module: torch.nn.Module = model
    module.to(_device())
    for parameter in module.parameters():  # buffers, such as rotary frequencies, stay precise
        parameter.data = parameter.data.to(dtype)
    return model


def _new_manifest(run: Run, teacher: PreTrainedModel) -> dict[str, Any]:
    return {
        "recipe_sha256": recipe_digest(run.recipe),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": _environment(teacher),
        "precision": number_format(teacher.device).name,
        "sources": {},
        "steps": [],
        "checkpoint": None,
        "finished": False,
    }


def _model_digests(model: PreTrainedModel, tokenizer: Any) -> dict[str, str]:
    """Return what tells a model and its tokenizer from others, wherever they lie."""
    aside = {"_name_or_path", "transformers_version"}
    configs: list[Any] = [model.config, model.generation_config] if model.can_generate() else [model.config]
    fields = [{key: value for key, value in config.to_dict().items() if key not in aside} for config in configs]
    known = [tokenizer.special_tokens_map, tokenizer.chat_template, tokenizer.padding_side, tokenizer.truncation_side]
    written = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
    return {
        "weights": weights_digest(model),
        "config": _digest(fields),
        "tokenizer": _digest([type(tokenizer).__name__, written, known]),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _versions() -> dict[str, str]:
    """Return the versions of the packages on which results depend."""
    return {name: version(name) for name in ("kronpress", "torch", "transformers")}


def _environment(model: PreTrainedModel) -> dict[str, str]:
    return {
        **_versions(),
        "python": platform.python_version(),
        "device": str(model.device),
        "matrix products": str(number_format(model.device)),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
    }
