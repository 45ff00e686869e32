"""Run a recipe: step after step, with a manifest that says how far it came."""

from __future__ import annotations

import copy
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, set_seed

from kronpress import processes
from kronpress.activations import blocks_in_files
from kronpress.checkpoint import (
    LARGE_SHARD,
    bytes_of,
    files,
    load,
    notes_of,
    save,
    structured_layers,
    write_manifest,
)
from kronpress.errors import KronpressError
from kronpress.evaluate import footprint
from kronpress.layers import is_learning, pack
from kronpress.lock import locked
from kronpress.memory import keep_freed_memory, peak_rss_bytes, return_freed_memory
from kronpress.precision import NumberFormat, choose, computing_in, number_format
from kronpress.quantizers import keep_progress, take_progress
from kronpress.records import StepRecord, StepReport
from kronpress.report import model_card, write_report
from kronpress.run.folder import Run
from kronpress.run.inputs import Texts, computing_device, open_model, ready
from kronpress.run.manifest import Manifest, StepDone
from kronpress.run.provenance import (
    environment,
    model_digests,
    require_unchanged,
    source_digests,
    text_digests,
    versions,
)
from kronpress.run.recipe import Recipe, TextSource
from kronpress.run.room import SHARD, Room
from kronpress.run.summary import pipeline_tag
from kronpress.run.writing import with_self_text
from kronpress.step import NO_TEXT, Workbench

_STUDENTS = 2  # on disk at once: the latest one, and the one that takes its place


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
        fresh = not run.has_begun()
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
        begun = run.manifest().precision if run.has_begun() else None
        if begun is not None:
            return NumberFormat(begun, "as the run began")
        return choose(run.recipe.precision, computing_device())

    return processes.from_main(chosen)


def _prepare(run: Run, held: ExitStack, *, resume: bool) -> bool:
    """Make the folder ready, and this process the only one that works in it; return whether the run is finished."""
    files.require_possible(run.folder)
    held.enter_context(locked(run.folder))
    if run.has_begun() and not resume:
        raise KronpressError(
            f"{run.folder} already holds a run, which is left untouched; add --resume or name a new folder"
        )
    if not run.has_begun():
        run.require_new()
        return False
    manifest = run.require_same_recipe()
    files.remove_partial(run.folder)
    run.sweep()
    return manifest.finished


def _work(run: Run) -> None:
    """Do what of the run is not done yet."""
    with processes.together():
        progress = _Progress.open(run)
        if processes.is_main():
            progress.begin()
    for index in range(len(run.manifest().steps), len(run.recipe.steps)):
        progress.do(index)
    with processes.together():
        if processes.is_main():
            progress.finish()


@dataclass
class _Progress:
    """A run in progress: how far it came, and what its steps use."""

    run: Run
    manifest: Manifest
    bench: Workbench
    room: Room

    @classmethod
    def open(cls, run: Run) -> _Progress:
        """Open texts and model, and the manifest; that of a new run is not on disk yet."""
        sources = Texts.read(with_self_text(run.recipe)) if _reads_text(run.recipe) else None
        model, tokenizer = open_model(run.recipe.model)
        texts = None if sources is None else sources.mixed(tokenizer)
        digests = {
            "data": {} if texts is None else text_digests(*texts),
            "model": model_digests(model, tokenizer) if processes.is_main() else {},
        }
        if not run.has_begun():
            manifest = _new_manifest(run.recipe, model, digests)
        else:
            manifest = run.manifest()
            if processes.is_main():
                _require_unchanged(run, manifest, {"environment": versions(), **digests})
        room = Room(manifest.memory) if run.has_begun() else Room.of(run.recipe, model)
        if room.memory == "blocks":
            return_freed_memory()
        else:
            ready(model)
        manifest = manifest.model_copy(update={"memory": room.memory})
        dense = model if _compares(run.recipe, first=len(manifest.steps)) else None
        bench = Workbench(model, dense, tokenizer, *(texts or (NO_TEXT, NO_TEXT)), run.folder, run.measurements)
        bench.dtype = getattr(torch, manifest.dtype)
        bench.notes += [] if sources is None else sources.notes
        return cls(run, manifest, bench, room)

    def begin(self) -> None:
        """Write down what is to be done, and let every step look for mistakes, or go on where the run came to."""
        done = len(self.manifest.steps)
        if self.run.has_begun():
            self.run.summary()
        self._require_space()
        self.run.keep_manifest(self.manifest)
        self.run.keep_recipe()
        self._take_student()
        if self.room.reason:
            tqdm.write(self.room.reason)
        tqdm.write(f"matrix products in {number_format(self.bench.student.device)}")
        if done:
            tqdm.write(f"going on after step {done} of {len(self.run.recipe.steps)}")
        else:
            self._check()

    def _require_space(self) -> None:
        """Ask for the space that the whole run needs, less what it has taken already."""
        copies = _STUDENTS + max(step.needs().copies for step in self.run.recipe.steps)
        needed = copies * bytes_of(self.bench.student) - self.run.taken_bytes()
        files.require_space(self.run.folder, needed=max(0, needed))

    @property
    def _by_block(self) -> bool:
        return self.room.memory == "blocks"

    def _at_work(self) -> AbstractContextManager[None]:
        """Have the student compute in float32 during a step; where it is in memory as a whole, it always does."""
        if not self._by_block:
            return nullcontext()
        return blocks_in_files(self.bench.student, self.bench.unfinished, dtype=self.bench.dtype)

    def _save(self, folder: Path) -> None:
        size = SHARD if self._by_block else LARGE_SHARD
        save(self.bench.student, folder, tokenizer=self.bench.tokenizer, shard=size)

    def _take_student(self) -> None:
        """Take the student as the last finished step left it; before that it is the dense model."""
        if self.manifest.checkpoint is not None:
            student = load(self.run.folder / self.manifest.checkpoint)
            self.bench.student = student if self._by_block else ready(student)
            if self.run.progress_of(self.manifest.checkpoint).exists():
                take_progress(self.bench.student, self.run.progress_of(self.manifest.checkpoint))
        elif self.bench.dense is not None:
            self.bench.student = copy.deepcopy(self.bench.dense)

    def _check(self) -> None:
        """Let every step look for mistakes before the first one runs."""
        steps = self.run.recipe.steps
        if _reads_text(self.run.recipe):
            self.bench.require_known_texts()
        elif self.run.recipe.data != TextSource():
            tqdm.write("note: no step of the recipe reads its text (data), which is not opened")
        student = self.bench.student
        for step in steps:
            step.check(self.bench)
            self.bench.student = step.foreseen(self.bench.student)
        self.bench.student = student
        self.manifest = self.manifest.reading(source_digests(steps))
        self.run.keep_manifest(self.manifest)

    def do(self, index: int) -> None:
        """Run one step; the manifest says so only once everything is on disk."""
        step, started = self.run.recipe.steps[index], time.perf_counter()
        alone = not step.needs().all_processes
        self.bench.folder, self.bench.seed = self.run.step_folder(index), self.run.recipe.seed + index
        if not _compares(self.run.recipe, first=index):
            self.bench.dense = None
        with processes.together():
            if processes.is_main():
                tqdm.write(f"step {index + 1}/{len(self.run.recipe.steps)}: {step.kind}")
            elif not alone:
                self.manifest = self.run.manifest()
                self._take_student()
            set_seed(self.bench.seed)
            with self._at_work():
                record = step.run(self.bench) if processes.is_main() and alone else None
        if not alone:
            record = step.run(self.bench)
        with processes.together():
            if processes.is_main() and record is not None:
                self._record(index, record, seconds=time.perf_counter() - started)

    def _record(self, index: int, record: StepRecord, *, seconds: float) -> None:
        """Write student and record of a step to disk, then say in the manifest that it is done."""
        step, checkpoint = self.run.recipe.steps[index], self.manifest.checkpoint
        report = StepReport(step.kind, round(seconds, 2), peak_rss_bytes(), record)
        if step.changes_student:
            checkpoint = self.run.step_checkpoint(index)
            files.remove(self.run.folder / checkpoint)
            self._save(self.run.folder / checkpoint)
            if is_learning(self.bench.student):
                keep_progress(self.bench.student, self.run.progress_of(checkpoint))
        self.run.keep_report(index, report)
        done = StepDone(name=step.kind, seconds=report.seconds)
        self.manifest = self.manifest.after(done, checkpoint=checkpoint, notes=self.bench.notes)
        self.run.keep_manifest(self.manifest)
        if self._by_block:
            self._take_student()  # whose files are to stay
        self.run.sweep()

    def finish(self) -> None:
        """Write checkpoint, card and report; the manifest says finished last."""
        run, student = self.run, self.bench.student
        files.remove(run.checkpoint)
        pack(student)
        ready(student, dtype=self.bench.dtype)  # the base model's own; training ran in float32
        self._save(run.checkpoint)
        plain = not structured_layers(student)
        self.manifest = self.manifest.measured(
            footprint(student, folder=run.checkpoint),
            plain=plain,
            pipeline_tag=pipeline_tag(student),
            peak_rss_bytes=peak_rss_bytes(),
        )
        run.keep_manifest(self.manifest)
        summary = run.summary()
        files.write_text(run.checkpoint / "README.md", model_card(summary, plain=plain))
        files.write_text(run.checkpoint / "recipe.yaml", run.recipe.to_yaml())
        write_manifest(run.checkpoint, plain=plain)
        write_report(run.report_page, summary=summary)
        self.manifest = self.manifest.done(checkpoint=run.checkpoint.name)
        run.keep_manifest(self.manifest)
        files.remove_partial(run.folder)
        run.sweep()


def _reads_text(recipe: Recipe) -> bool:
    return any(step.needs().text for step in recipe.steps)


def _compares(recipe: Recipe, *, first: int) -> bool:
    """Say whether a step from number `first` on needs the dense model beside the student."""
    return any(step.needs().teacher for step in recipe.steps[first:])


def _new_manifest(recipe: Recipe, model: PreTrainedModel, digests: dict[str, dict[str, str]]) -> Manifest:
    """Return the manifest of a run that begins now with a model as it is stored."""
    device = computing_device()
    return Manifest(
        recipe_sha256=recipe.digest(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        environment=environment(device),
        precision=number_format(device).name,
        sources={},
        steps=(),
        checkpoint=None,
        finished=False,
        dtype=str(model.dtype).removeprefix("torch."),
        footprint_before=footprint(model),
        notes=tuple(notes_of(model)),
        data=digests["data"],
        model=digests["model"],
    )


def _require_unchanged(run: Run, manifest: Manifest, now: dict[str, dict[str, str]]) -> None:
    """Check that the results of a run that goes on depend on the same as when it began."""
    require_unchanged(manifest, now, folder=run.folder, model=run.recipe.model)
    if manifest.sources:
        sources = source_digests(run.recipe.steps, first=len(manifest.steps))
        require_unchanged(manifest, {"sources": sources}, folder=run.folder, model=run.recipe.model)
