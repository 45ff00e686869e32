"""One task, several models: each fine-tuned with several seeds, selected on the dev set, and scored."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel, set_seed

from kronpress import processes
from kronpress.checkpoint import files, load, save
from kronpress.checkpoint.digests import weights_digest
from kronpress.errors import KronpressError
from kronpress.finetune.best_epoch import Selection
from kronpress.finetune.candidate import Contender, Data
from kronpress.finetune.examples import Collate, Examples
from kronpress.finetune.objective import TaskDistillation
from kronpress.footprint import footprint
from kronpress.step import Workbench
from kronpress.tasks import TASKS, ClassificationTask, DivergedError, Feature, predict, shuffled, take_head, with_head
from kronpress.teacher.example_store import Lessons, bytes_of, lessons
from kronpress.train.step import Material

_PASSES = 2  # over the data from which on it pays to keep the teacher's activations

Train = Callable[[Contender, Workbench, TaskDistillation, Material], dict[str, Any]]


class _Result(BaseModel):
    """The types of what a run of one seed found."""

    model_config = ConfigDict(strict=True)
    seed: int | None
    score: float | None
    scores: dict[str, float] = Field(default={})
    also: dict[str, dict[str, float]] = Field(default={})

    @model_validator(mode="after")
    def _scored(self) -> _Result:
        if self.score is not None and not self.scores:
            raise ValueError("a score, but no scores")
        return self


class _Row(BaseModel):
    """The types of what all runs of a model found."""

    model_config = ConfigDict(strict=True)
    model: str
    score: float
    deviation: float | None
    scores: dict[str, float]
    best_seed: int | None
    seeds: list[_Result] = Field(min_length=1)
    footprint: dict[str, float | None]
    settings: dict[str, Any]


class _Settings(RootModel[dict[str, Any]]):
    """The type of the settings that were noted."""


@dataclass
class Contest:
    """A task in work.

    Attributes:
        folder: of the task; every model gets one in it.
        train: trains, as a training step does.
        batch: examples per optimizer step.
        seeds: of the runs of each model.
        settings: whatever else the results depend on.
        cache_max_bytes: what the teacher's activations may take on disk.
        before: of another task, with whose models those of the same names begin here.
    """

    bench: Workbench
    folder: Path
    data: Data
    train: Train
    batch: int
    seeds: Sequence[int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cache_max_bytes: int = 4 * 2**30
    before: Path | None = None

    def row(self, contender: Contender, *, teacher: PreTrainedModel | None = None) -> dict[str, Any]:
        """Fine-tune one model with every seed, keep the best one, and report on all that did not diverge.

        What an interrupted run finished is not done again. The best model lies in the folder of its name.

        Raises:
            KronpressError: the folder holds what was fine-tuned with other settings, models or data.
            DivergedError: no run has a finite score.
        """
        if self.before is not None:
            contender = replace(contender, model=load(self.before / contender.name))
        place = self.folder / contender.name
        report = self._report(contender)
        settings = processes.from_main(lambda: self._settings(contender, teacher))
        if not report.exists():
            attempts = [self._attempt(contender, seed, teacher) for seed in self.seeds]
            found = [each for each in attempts if each["score"] is not None]
            if not found:
                raise DivergedError(
                    f"{self.data.task.name}: '{contender.name}' diverged with every seed; choose a learning_rate below "
                    f"{contender.learning_rate:g} and a new folder"
                )
            with processes.together():
                if processes.is_main():
                    summary = self._summary(contender, found)
                    self._remove(place)
                    save(self._best(contender, summary["best_seed"]), place, tokenizer=contender.tokenizer)
                    lost = len(attempts) - len(found)
                    files.write_json(report, {**summary, "diverged": lost, "settings": settings})
                    self._remove(self._work(contender))
        return _read(report, _Row)

    def known(self, name: str, model: PreTrainedModel, tokenizer: Any) -> dict[str, Any]:
        """Score a model that is fine-tuned already."""
        contender = Contender(name, model, tokenizer, losses={}, epochs=0, learning_rate=0)
        score, scores = self._measure(model, self.data.features(self.data.dev, contender))
        also = {each: self._elsewhere(model, contender, name=each) for each in self.data.also}
        line = {"seed": None, "score": score, "scores": dict(scores), "also": also}
        return self._summary(contender, [line])

    def opened(self, name: str) -> PreTrainedModel:
        """Open the best model of a row, where the student is."""
        model = load(self.folder / name)
        module: nn.Module = model
        module.to(self.bench.student.device)
        return model

    def close(self) -> None:
        """Remove what was kept in case of an interruption, when all rows are done."""
        with processes.together():
            if processes.is_main():
                self._remove(self.folder / ".work")

    def _remove(self, path: Path) -> None:
        """Remove a folder inside of the task's own, never that one or what is outside of it."""
        if self.folder.resolve() not in path.resolve().parents:
            raise KronpressError(f"{path} is not inside of {self.folder}, and is not removed; choose other names")
        shutil.rmtree(path, ignore_errors=True)

    def _settings(self, contender: Contender, teacher: PreTrainedModel | None) -> dict[str, Any]:
        """Return what a row depends on, and note it in its folder; refuse a folder where that is something else."""
        mine: dict[str, Any] = {**self.settings, **contender.settings(), "batch": self.batch, "seeds": list(self.seeds)}
        mine["data"] = self.data.digest()
        mine["teacher"] = weights_digest(teacher) if teacher is not None and contender.compares else None
        mine = dict(json.loads(json.dumps(mine)))  # as it is read again
        report, note = self._report(contender), self._work(contender) / "settings.json"
        if report.exists() or note.exists():
            known = _read(report, _Row)["settings"] if report.exists() else _read(note, _Settings)
            other = [name for name in mine if known.get(name) != mine[name]]
            if other:
                raise KronpressError(
                    f"{self.folder} holds '{contender.name}' fine-tuned with other {', '.join(other)}; name another "
                    "folder, or remove this one"
                )
        else:
            files.write_json(note, mine)
        return mine

    def _report(self, contender: Contender) -> Path:
        return self.folder / f"{contender.name}.json"

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
        """Fine-tune with one seed, or read what an interrupted run found; the score of one that diverged is None."""
        folder = self._work(contender) / f"seed-{seed}"
        if not (folder / "result.json").exists():
            try:
                result = self._fine_tuned(contender, seed, teacher)
            except DivergedError as error:
                result = {"seed": seed, "score": None, "error": str(error)}
            with processes.together():
                if processes.is_main():
                    self._remove(folder / "trainer")
                    files.write_json(folder / "result.json", result)
        return _read(folder / "result.json", _Result)

    def _fine_tuned(self, contender: Contender, seed: int, teacher: PreTrainedModel | None) -> dict[str, Any]:
        tqdm.write(f"{self.data.task.name}: {contender.name}, seed {seed}")
        folder = self._work(contender) / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        set_seed(seed)
        student = self._started(contender, seed)
        inherits = contender.compares and teacher is not None and take_head(student, teacher)
        features = self.data.training_features(contender)
        steps = max(1, round(contender.epochs * len(features) / self.batch))
        order = shuffled([len(each.ids) for each in features], batch=self.batch, count=steps * self.batch, seed=seed)
        taken = self._lessons(contender, teacher, features)
        data = Examples(features, order, lessons=taken)
        selection = self._selection(student, contender, seed=seed, every=len(features) / self.batch)
        material = Material(
            data=data,
            steps=steps,
            tokens_per_step=data.tokens() / steps,
            collate=Collate(pad=int(contender.tokenizer.pad_token_id)),
            callbacks=(selection,),
        )
        objective = TaskDistillation(student, teacher if contender.readings else None, contender.losses)
        report = self.train(contender, replace(self.bench, folder=folder, seed=seed), objective, material)
        best = selection.take_best()
        also = {name: self._elsewhere(student, contender, name=name) for name in self.data.also}
        teaching = None if not contender.compares else "run at every step" if taken is None else "read from disk"
        facts = {"head_of_teacher": inherits, "teacher": teaching}
        return {"seed": seed, **best, **facts, "also": also, "training": report}

    def _lessons(
        self, contender: Contender, teacher: PreTrainedModel | None, features: Sequence[Feature]
    ) -> Lessons | None:
        """Return what the teacher says of the features, or None where it must, or had better, be run at every step."""
        if teacher is None or not contender.compares:
            return None
        readings = contender.readings
        if readings and ("attentions" in readings or contender.epochs * len(self.seeds) < _PASSES):
            return None
        if bytes_of(teacher, features, readings) > self.cache_max_bytes:
            return None
        folder, key = self.folder / ".work" / "teacher", weights_digest(teacher)
        take = partial(lessons, teacher, features, folder=folder, key=key, readings=readings)
        with processes.together():
            if processes.is_main():
                take()
        return take()

    def _selection(self, student: PreTrainedModel, contender: Contender, *, seed: int, every: float) -> Selection:
        folder = self._work(contender) / f"seed-{seed}"
        features = self.data.features(self.data.dev, contender)
        return Selection(folder, student, measure=lambda: self._measure(student, features), every=every)

    def _measure(self, model: PreTrainedModel, features: Sequence[Feature]) -> tuple[float, Mapping[str, float]]:
        task = self.data.task
        scores = task.scores(self.data.dev, task.answers(self.data.dev, features, predict(model, features)))
        return task.score(scores), scores

    def _elsewhere(self, student: PreTrainedModel, contender: Contender, *, name: str) -> dict[str, float]:
        """Score the model on a data set outside of the distribution that it was trained on."""
        other, examples = TASKS[name], self.data.also[name]
        assert isinstance(other, ClassificationTask)
        features = self.data.features(examples, contender, task=other)
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


def _read(path: Path, shape: type[BaseModel]) -> dict[str, Any]:
    """Read what a run wrote down.

    Raises:
        KronpressError: it is damaged.
    """
    value = files.read_json(path)
    try:
        shape.model_validate(value)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "all"
        raise KronpressError(
            f"{path} is damaged at '{place}'; restore it, or remove it, and the training that it tells of starts over"
        ) from error
    record: dict[str, Any] = value
    return record
