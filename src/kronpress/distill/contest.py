"""One task, several models: each fine-tuned with several seeds, selected on the dev set, and scored."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel, set_seed

from kronpress import processes
from kronpress.checkpoint import files, load, save
from kronpress.distill.examples import Collate, Examples, teacher_outputs
from kronpress.distill.losses import LogitLoss, Loss
from kronpress.distill.selection import Selection
from kronpress.distill.task_distillation import TaskDistillation
from kronpress.distill.training import Material
from kronpress.footprint import footprint
from kronpress.step import Workbench
from kronpress.tasks import TASKS, ClassificationTask, Feature, Task, predict, shuffled, take_head, with_head


@dataclass(frozen=True)
class Contender:
    """A model that is to be fine-tuned, and how.

    Attributes:
        name: in reports, and of its folder.
        model: where it starts.
        tokenizer: its own.
        losses: what is minimized.
        epochs: passes over the training set.
        learning_rate: peak.
    """

    name: str
    model: PreTrainedModel
    tokenizer: Any
    losses: Mapping[str, Loss]
    epochs: float
    learning_rate: float

    @property
    def compares(self) -> bool:
        """Whether it learns from a teacher."""
        return any(loss.compares for loss in self.losses.values())

    @property
    def looks_inside(self) -> bool:
        """Whether the teacher must be run at every step, not its outputs alone be known."""
        return any(loss.compares and not isinstance(loss, LogitLoss) for loss in self.losses.values())


@dataclass(frozen=True)
class Data:
    """What a task's models are trained on, selected by and scored on."""

    task: Task[Any, Any]
    train: Sequence[Any]
    dev: Sequence[Any]
    also: Mapping[str, Sequence[Any]]
    max_length: int

    def features(self, examples: Sequence[Any], tokenizer: Any) -> list[Feature]:
        """Return what a model with this tokenizer reads."""
        return self.task.features(examples, tokenizer, max_length=self.max_length)


Train = Callable[[Contender, Workbench, TaskDistillation, Material], dict[str, Any]]


@dataclass
class Contest:
    """A task in work.

    Attributes:
        folder: of the task; every model gets one in it.
        train: trains, as a training step does.
        batch: examples per optimizer step.
        seeds: of the runs of each model.
    """

    bench: Workbench
    folder: Path
    data: Data
    train: Train
    batch: int
    seeds: Sequence[int]

    def row(self, contender: Contender, *, teacher: PreTrainedModel | None = None) -> dict[str, Any]:
        """Fine-tune one model with every seed, keep the best one, and report on all.

        What an interrupted run finished is not done again. The best model lies in the folder of its name.
        """
        place = self.folder / contender.name
        report = self.folder / f"{contender.name}.json"
        if not report.exists():
            found = [self._attempt(contender, seed, teacher) for seed in self.seeds]
            with processes.together():
                if processes.is_main():
                    best = max(found, key=lambda each: float(each["score"]))
                    shutil.rmtree(place, ignore_errors=True)
                    save(self._best(contender, best["seed"]), place, tokenizer=contender.tokenizer)
                    files.write_json(report, self._summary(contender, found))
                    shutil.rmtree(self._work(contender), ignore_errors=True)
        known: dict[str, Any] = files.read_json(report)
        return known

    def known(self, name: str, model: PreTrainedModel, tokenizer: Any) -> dict[str, Any]:
        """Score a model that is fine-tuned already."""
        contender = Contender(name, model, tokenizer, losses={}, epochs=0, learning_rate=0)
        score, scores = self._measure(model, self.data.features(self.data.dev, tokenizer))
        also = {each: self._elsewhere(model, contender, name=each) for each in self.data.also}
        line = {"seed": None, "score": score, "scores": dict(scores), "also": also}
        return self._summary(contender, [line])

    def opened(self, name: str) -> PreTrainedModel:
        """Open the best model of a row."""
        return load(self.folder / name)

    def _work(self, contender: Contender) -> Path:
        return self.folder / ".work" / contender.name

    def _started(self, contender: Contender, seed: int) -> PreTrainedModel:
        student = with_head(contender.model, self.data.task, contender.tokenizer, seed=seed)
        module: nn.Module = student
        module.to(device=self.bench.student.device, dtype=torch.float32)
        return student

    def _best(self, contender: Contender, seed: int) -> PreTrainedModel:
        student = self._started(contender, seed)
        self._selection(student, contender, seed=seed, every=1).take_best()
        return student

    def _attempt(self, contender: Contender, seed: int, teacher: PreTrainedModel | None) -> dict[str, Any]:
        """Fine-tune with one seed, or read what an interrupted run found."""
        folder = self._work(contender) / f"seed-{seed}"
        if not (folder / "result.json").exists():
            result = self._fine_tuned(contender, seed, teacher)
            with processes.together():
                if processes.is_main():
                    shutil.rmtree(folder / "trainer", ignore_errors=True)
                    files.write_json(folder / "result.json", result)
        known: dict[str, Any] = files.read_json(folder / "result.json")
        return known

    def _fine_tuned(self, contender: Contender, seed: int, teacher: PreTrainedModel | None) -> dict[str, Any]:
        tqdm.write(f"{self.data.task.name}: {contender.name}, seed {seed}")
        folder = self._work(contender) / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        set_seed(seed)
        student = self._started(contender, seed)
        if contender.compares and teacher is not None:
            take_head(student, teacher)
        features = self.data.features(self.data.train, contender.tokenizer)
        steps = max(1, round(contender.epochs * len(features) / self.batch))
        order = shuffled([len(each.ids) for each in features], batch=self.batch, count=steps * self.batch, seed=seed)
        known = None
        if contender.compares and not contender.looks_inside:
            assert teacher is not None
            known = self._taught(contender, teacher, features)
        data = Examples(features, order, outputs=known)
        selection = self._selection(student, contender, seed=seed, every=len(features) / self.batch)
        material = Material(
            data=data,
            steps=steps,
            tokens_per_step=data.tokens() / steps,
            collate=Collate(pad=int(contender.tokenizer.pad_token_id)),
            callbacks=(selection,),
        )
        objective = TaskDistillation(student, teacher if contender.looks_inside else None, contender.losses)
        report = self.train(contender, replace(self.bench, folder=folder, seed=seed), objective, material)
        best = selection.take_best()
        also = {name: self._elsewhere(student, contender, name=name) for name in self.data.also}
        return {"seed": seed, **best, "also": also, "training": report}

    def _taught(self, contender: Contender, teacher: PreTrainedModel, features: Sequence[Feature]) -> list[Any]:
        path = self.folder / ".work" / "teacher.safetensors"
        with processes.together():
            if processes.is_main():
                teacher_outputs(teacher, features, path=path, key=self.data.task.name)
        return teacher_outputs(teacher, features, path=path, key=self.data.task.name)

    def _selection(self, student: PreTrainedModel, contender: Contender, *, seed: int, every: float) -> Selection:
        folder = self._work(contender) / f"seed-{seed}"
        features = self.data.features(self.data.dev, contender.tokenizer)
        return Selection(folder, student, measure=lambda: self._measure(student, features), every=every)

    def _measure(self, model: PreTrainedModel, features: Sequence[Feature]) -> tuple[float, Mapping[str, float]]:
        task = self.data.task
        scores = task.scores(self.data.dev, task.answers(self.data.dev, features, predict(model, features)))
        return task.score(scores), scores

    def _elsewhere(self, student: PreTrainedModel, contender: Contender, *, name: str) -> dict[str, float]:
        """Score the model on a data set outside of the distribution that it was trained on."""
        other, examples = TASKS[name], self.data.also[name]
        assert isinstance(other, ClassificationTask)
        features = other.features(examples, contender.tokenizer, max_length=self.data.max_length)
        outputs = predict(student, features, progress=name)
        return other.scores(examples, other.answers_from(self.data.task.name, outputs))

    def _summary(self, contender: Contender, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        scores = [float(each["score"]) for each in found]
        names = found[0]["scores"]
        best = max(found, key=lambda each: float(each["score"]))
        return {
            "model": contender.name,
            "losses": {label: loss.kind for label, loss in contender.losses.items()},
            "epochs": contender.epochs,
            "learning_rate": contender.learning_rate,
            "footprint": asdict(footprint(with_head(contender.model, self.data.task, contender.tokenizer))),
            "score": statistics.fmean(scores),
            "deviation": statistics.stdev(scores) if len(scores) > 1 else None,
            "scores": {name: statistics.fmean(each["scores"][name] for each in found) for name in names},
            "best_seed": best["seed"],
            "seeds": list(found),
        }
