"""One task, several models: each fine-tuned with several seeds, selected, and scored on the dev set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel, set_seed

from kronpress import processes
from kronpress.activations.attention import training_attention
from kronpress.checkpoint import files, load, save
from kronpress.checkpoint.digests import weights_digest
from kronpress.errors import KronpressError
from kronpress.finetune.best_epoch import BestEpoch
from kronpress.finetune.candidate import Candidate
from kronpress.finetune.data import TaskData
from kronpress.finetune.examples import Collate, TrainingExamples
from kronpress.finetune.noted import read_record, read_settings
from kronpress.finetune.objective import TaskDistillation
from kronpress.finetune.plan import TaskPlan
from kronpress.finetune.stage import put_on_grids
from kronpress.footprint import footprint
from kronpress.layers import is_learning, packed
from kronpress.quantizers import (
    input_examples,
    input_ranges,
    keep_progress,
    let_learn,
    number_formats,
    rounded_sites,
    take_progress,
)
from kronpress.records import Footprint, ModelScore, SeedScore, encode
from kronpress.tasks import DivergedError, Feature, collate, shuffled, take_head, with_head
from kronpress.teacher import Storage, StoredTask, StoredTeacher, Teacher, task_teacher
from kronpress.train.training import Material, train

_EXAMPLES = 32  # of the training set, from which the ranges of inputs begin
_SETTINGS = {"micro_batch", "warmup", "schedule", "weight_decay", "max_grad_norm"}  # that weights depend on


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The models of a task side by side.

    Attributes:
        plan: what is done for the task.
        data: of the task.
        folder: of the task; every model gets one in it.
        device: where models are trained.
        seeds: of the trainings of each model.
        before: folder of another task, with whose models those of the same names begin here.
    """

    plan: TaskPlan
    data: TaskData
    folder: Path
    device: torch.device
    seeds: Sequence[int]
    before: Path | None = None

    def row(self, candidate: Candidate, *, teacher: PreTrainedModel | None = None) -> ModelScore:
        """Fine-tune one model with every seed, keep the best one, and report on all that did not diverge.

        What an interrupted run finished is not done again. The best model lies in the folder of its name.

        Raises:
            KronpressError: the folder holds what was fine-tuned with other settings, models or data.
            DivergedError: no training has a finite score.
        """
        if self.before is not None:
            candidate = replace(candidate, model=load(self.before / candidate.name))
        report = self._report(candidate)
        settings = processes.from_main(lambda: self._noted_settings(candidate, teacher))
        if not report.exists():
            attempts = [self._attempt(candidate, seed, teacher) for seed in self.seeds]
            if all(attempt.score is None for attempt in attempts):
                raise DivergedError(
                    f"{self.data.task.name}: '{candidate.name}' diverged with every seed; choose a learning_rate below "
                    f"{candidate.learning_rate:g} and a new folder"
                )
            with processes.together():
                if processes.is_main():
                    self._finish(candidate, replace(self._row(candidate, attempts), settings=settings))
        return read_record(report, ModelScore)

    def row_as_it_is(self, name: str, model: PreTrainedModel, tokenizer: Any) -> ModelScore:
        """Score a model that is fine-tuned already, and report on it."""
        candidate = Candidate(name, model, tokenizer, losses={}, epochs=0, learning_rate=0)
        score, scores = self.data.measure(model, self.data.features(self.data.dev, candidate))
        return self._row(candidate, [SeedScore(None, score, dict(scores), self._elsewhere(model, candidate))])

    def opened(self, name: str) -> PreTrainedModel:
        """Open the best model of a row, where the student is."""
        model = load(self.folder / name)
        module: nn.Module = model
        module.to(self.device)
        if self._progress(name).exists():
            take_progress(model, self._progress(name))
        return model

    def close(self) -> None:
        """Remove what was kept in case of an interruption, when all rows are done."""
        with processes.together():
            if processes.is_main():
                self._remove(self.folder / ".work")

    def _finish(self, candidate: Candidate, row: ModelScore) -> None:
        """Save the best model of a candidate, note its row, and remove what its trainings needed."""
        folder, seed = self.folder / candidate.name, row.best_seed
        assert seed is not None, "a model that came fine-tuned is not trained"
        self._remove(folder)
        best = self._started(candidate, seed)
        sites = [] if candidate.stage is None else rounded_sites(best, candidate.stage)
        seen = input_examples(best, self._first_batch(candidate), [site.path for site in sites]) if sites else {}
        self._best_epoch(best, candidate, seed=seed, every=1).take_best()
        formats = None if candidate.stage is None else number_formats(best)
        row = replace(row, formats=formats, inputs=input_ranges(best, sites, seen))
        save(best, folder, tokenizer=candidate.tokenizer)
        if is_learning(best):
            keep_progress(best, self._progress(candidate.name))
        files.write_json(self._report(candidate), encode(replace(row, footprint=_size(best, folder))))
        self._remove(self._work(candidate))

    def _remove(self, path: Path) -> None:
        """Remove a folder inside of the task's own, never that one or what is outside of it."""
        if self.folder.resolve() not in path.resolve().parents:
            raise KronpressError(f"{path} is not inside of {self.folder}, and is not removed; choose other names")
        shutil.rmtree(path, ignore_errors=True)

    def _noted_settings(self, candidate: Candidate, teacher: PreTrainedModel | None) -> dict[str, Any]:
        """Return what a row depends on, and note it in its folder; refuse a folder where that is something else."""
        settings = self._settings(candidate, teacher)
        report, note = self._report(candidate), self._work(candidate) / "settings.json"
        if report.exists() or note.exists():
            noted = read_record(report, ModelScore).settings if report.exists() else read_settings(note)
            other = [name for name in settings if noted.get(name) != settings[name]]
            if other:
                raise KronpressError(
                    f"{self.folder} holds '{candidate.name}' fine-tuned with other {', '.join(other)}; name another "
                    "folder, or remove this one"
                )
        else:
            files.write_json(note, settings)
        return settings

    def _settings(self, candidate: Candidate, teacher: PreTrainedModel | None) -> dict[str, Any]:
        """Return what a row depends on, as it is read again."""
        augmented = self.data.augmented
        settings = {
            **self.plan.training.model_dump(mode="json", include=_SETTINGS),
            **candidate.settings(),
            "batch": self.plan.training.batch,
            "seeds": list(self.seeds),
            "data": self.data.digest(),
            "select_on": "train" if self.data.held_out else "dev",
            "augment": augmented.fingerprint if augmented is not None and candidate.augmented else None,
            "teacher": weights_digest(teacher) if teacher is not None and candidate.compares else None,
        }
        return dict(json.loads(json.dumps(settings)))

    def _report(self, candidate: Candidate) -> Path:
        return self.folder / f"{candidate.name}.json"

    def _progress(self, name: str) -> Path:
        """Return where the latent numbers of a model lie whose folder holds codes, as long as stages may need them."""
        return self.folder / ".work" / f"{name}.safetensors"

    def _work(self, candidate: Candidate) -> Path:
        return self.folder / ".work" / candidate.name

    def _started(self, candidate: Candidate, seed: int) -> PreTrainedModel:
        """Return a candidate as its training begins, with a new head."""
        student = with_head(candidate.model, self.data.task, candidate.tokenizer, seed=seed)
        module: nn.Module = student
        module.to(device=self.device, dtype=torch.float32)
        if candidate.stage is not None:
            put_on_grids(student, candidate.stage, batch=self._first_batch(candidate))
        let_learn(student)
        return student

    def _first_batch(self, candidate: Candidate) -> dict[str, Tensor]:
        """Return the first examples of the training set as a batch."""
        features = self.data.features(self.data.train[:_EXAMPLES], candidate)
        return collate(features, pad=int(candidate.tokenizer.pad_token_id))

    def _attempt(self, candidate: Candidate, seed: int, teacher: PreTrainedModel | None) -> SeedScore:
        """Fine-tune with one seed, or read what an interrupted run came to; the score of one that diverged is None."""
        folder = self._work(candidate) / f"seed-{seed}"
        if not (folder / "result.json").exists():
            try:
                result = self._fine_tuned(candidate, seed, teacher)
            except DivergedError as error:
                result = SeedScore(seed, None, error=str(error))
            with processes.together():
                if processes.is_main():
                    self._remove(folder / "trainer")
                    files.write_json(folder / "result.json", encode(result))
        return read_record(folder / "result.json", SeedScore)

    def _fine_tuned(self, candidate: Candidate, seed: int, teacher: PreTrainedModel | None) -> SeedScore:
        """Fine-tune with one seed and report on it."""
        tqdm.write(f"{self.data.task.name}: {candidate.name}, seed {seed}")
        folder = self._work(candidate) / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        set_seed(seed)
        student = self._started(candidate, seed)
        fresh = candidate.stage is None and candidate.compares
        inherits = fresh and teacher is not None and take_head(student, teacher)
        features = self.data.training_features(candidate)
        asked = self._teacher(candidate, teacher, features)
        best_epoch = self._best_epoch(student, candidate, seed=seed, every=len(features) / self.plan.training.batch)
        material = self._material(candidate, features, seed=seed, teacher=asked)
        objective = TaskDistillation(student, asked, candidate.losses)
        own = {"learning_rate": candidate.learning_rate, "dropout": candidate.dropout}
        settings = self.plan.training.model_copy(update=own)
        with training_attention(*objective.models):
            training = train(settings, objective, replace(material, callbacks=(best_epoch,)), folder=folder, seed=seed)
        return SeedScore(
            seed,
            **best_epoch.take_best(),
            elsewhere=self._elsewhere(student, candidate),
            head_of_teacher=inherits,
            teacher=_how(asked),
            training=training,
        )

    def _teacher(
        self, candidate: Candidate, model: PreTrainedModel | None, features: Sequence[Feature]
    ) -> Teacher[Tensor] | None:
        """Return what a candidate learns from; one folder serves all that learn from the same model."""
        if model is None:
            return None
        own = "" if candidate.stage is None or candidate.stage.teacher is None else f"-{candidate.stage.teacher}"
        storage = Storage(self.folder / ".work" / f"teacher{own}", self.plan.cache_max_bytes)
        passes = candidate.epochs * len(self.seeds)
        return task_teacher(candidate.losses, features, model=model, passes=passes, storage=storage)

    def _material(
        self, candidate: Candidate, features: Sequence[Feature], *, seed: int, teacher: Teacher[Tensor] | None
    ) -> Material:
        """Return what a training reads, in its order."""
        batch = self.plan.training.batch
        stored = teacher if isinstance(teacher, StoredTask) else None
        steps = max(1, round(candidate.epochs * len(features) / batch))
        lengths = [len(feature.ids) for feature in features]
        examples = TrainingExamples(
            features, shuffled(lengths, batch=batch, count=steps * batch, seed=seed), teacher=stored
        )
        collate = Collate(pad=int(candidate.tokenizer.pad_token_id), teacher=stored)
        return Material(data=examples, steps=steps, tokens_per_step=examples.tokens() / steps, collate=collate)

    def _best_epoch(self, student: PreTrainedModel, candidate: Candidate, *, seed: int, every: float) -> BestEpoch:
        folder = self._work(candidate) / f"seed-{seed}"
        dev, held_out = (self.data.features(part, candidate) for part in (self.data.dev, self.data.held_out))
        measure, select = (lambda: self.data.measure(student, dev)), (lambda: self.data.select(student, held_out))
        return BestEpoch(folder, student, measure=measure, every=every, select=select if held_out else None)

    def _elsewhere(self, model: PreTrainedModel, candidate: Candidate) -> dict[str, dict[str, float]]:
        return {name: self.data.measure_on(name, model, candidate) for name in self.data.also}

    def _row(self, candidate: Candidate, attempts: Sequence[SeedScore]) -> ModelScore:
        """Report on a candidate from what its trainings came to."""
        size = _size(with_head(candidate.model, self.data.task, candidate.tokenizer))
        return replace(
            ModelScore.of(candidate.name, size, attempts),
            losses={label: loss.kind for label, loss in candidate.losses.items()},
            epochs=candidate.epochs,
            learning_rate=candidate.learning_rate,
        )


def _size(model: PreTrainedModel, folder: Path | None = None) -> Footprint:
    """Return the size of a model as it is stored."""
    with packed(model):
        return footprint(model, folder=folder)


def _how(teacher: Teacher[Tensor] | None) -> Literal["run at every step", "read from disk"] | None:
    """Say in a report how a teacher was asked."""
    if teacher is None:
        return None
    return "read from disk" if isinstance(teacher, StoredTeacher) else "run at every step"
