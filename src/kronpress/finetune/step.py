"""The finetune step of a recipe."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar

from pydantic import Field, SerializeAsAny, field_validator, model_validator
from torch import nn
from transformers import PreTrainedModel

from kronpress.activations.attention import training_attention
from kronpress.checkpoint import load_with_tokenizer
from kronpress.checkpoint.digests import model_sources
from kronpress.errors import KronpressError, shown
from kronpress.finetune.candidate import Contender, Data
from kronpress.finetune.comparison import Contest
from kronpress.finetune.objective import TaskDistillation
from kronpress.finetune.sources import Sources, TaskOptions, answered_by
from kronpress.losses import LOSSES, Loss, parse_losses
from kronpress.step import STEPS, Workbench
from kronpress.tasks import TASKS, ClassificationTask, Task, is_headed, with_head
from kronpress.train.step import Material, TrainingStep
from kronpress.validation import Checked, path_name

_PLAIN: dict[str, Loss] = {"cross_entropy": LOSSES["cross_entropy"]()}
_SETTINGS = {"micro_batch", "warmup", "schedule", "weight_decay", "max_grad_norm"}  # that weights depend on


class TeacherOptions(Checked):
    """How the recipe's model is fine-tuned to become the teacher.

    Attributes:
        epochs: passes over the training set; as many as the student's by default.
        learning_rate: peak; students with few parameters often need a higher one than their teacher bears.
        dropout: by default what its configuration says.
    """

    epochs: float | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=5e-5, gt=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)


class Baseline(Checked):
    """Another model, or another training, that stands in the same table.

    Attributes:
        model: a folder or hub id; the student itself by default.
        losses: what it is trained on; the task's labels alone by default.
        learning_rate: peak; the student's by default.
    """

    model: str | None = None
    losses: dict[str, SerializeAsAny[Loss]] = Field(default=_PLAIN, min_length=1)
    learning_rate: float | None = Field(default=None, gt=0)

    @field_validator("losses", mode="before")
    @classmethod
    def _named(cls, value: Any) -> dict[str, Loss]:
        return parse_losses(value)


@STEPS.register("finetune")
class Finetune(TrainingStep):
    """Fine-tune student and teacher on tasks, the student by distillation if its losses compare; the student of later
    steps stays what it is.

    Each task gets a copy of the model with a new head, or the teacher's where it learns from one and that fits, trained
    with several seeds. Of each run the epoch that does best on the dev set counts; the best run of each model is saved
    in the step's folder, under task and model. Scores are those of the dev set that selected them. What models read of
    another task, in `unlabeled` or `after`, has no example of the dev sets that they are scored on.

    AdamW's β are 0.9 and 0.999.

    Attributes:
        tasks: names, or a mapping from names to what they do otherwise.
        data: a folder with the tasks' data, each in a folder of its name as in GLUE; one task's own folder; or `hub:`.
        dropout: of student and baselines; by default what their configurations say.
        epochs: passes over the training set.
        seeds: how many runs of each model.
        losses: what the student is trained on, as in the distill step.
        teacher: a fine-tuned model, with `{task}` in place of the task's name where there are several; or how the
            recipe's model is to become one: it is fine-tuned first, on labels alone, and its best run is the teacher;
            or `null` for none, where no loss compares.
        baselines: other models or losses under names of their own, for comparison.
        also: data outside of the distribution to score on: names of tasks without training data of their own, and where
            they are.
        max_length: tokens of an example; by default what the task says.
        cache_max_bytes: what the teacher's activations may take on disk while a model learns from them; where that is
            not enough, the teacher is run at every step.
    """

    kind: ClassVar[str] = "finetune"
    changes_student: ClassVar[bool] = False
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    tasks: dict[str, TaskOptions] = Field(min_length=1)
    data: str | None = None
    epochs: float = Field(default=3.0, gt=0)
    seeds: int = Field(default=1, ge=1)
    batch: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=5e-5, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    save_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    losses: dict[str, SerializeAsAny[Loss]] = Field(default=_PLAIN, min_length=1)
    teacher: str | TeacherOptions | None = TeacherOptions()
    baselines: dict[str, Baseline] = Field(default={})
    also: dict[str, str] = Field(default={})
    max_length: int | None = Field(default=None, ge=4)
    cache_max_bytes: int = Field(default=4 * 2**30, ge=0)

    @field_validator("tasks", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if not isinstance(value, str | list | tuple | dict):
            raise KronpressError(f"tasks is {shown(value)}; give names of {', '.join(TASKS)}, or a mapping from them")
        options = value if isinstance(value, dict) else {}
        names = [value] if isinstance(value, str) else value
        return {TASKS[name].name: options.get(name) or {} for name in names}

    @field_validator("losses", mode="before")
    @classmethod
    def _named(cls, value: Any) -> dict[str, Loss]:
        return parse_losses(value)

    @field_validator("baselines", mode="after")
    @classmethod
    def _not_ours(cls, value: dict[str, Baseline]) -> dict[str, Baseline]:
        taken = ["teacher", "student"]
        for name in value:
            taken.append(path_name(name, what="a baseline", others=taken))
        return value

    @field_validator("also", mode="after")
    @classmethod
    def _known_tasks(cls, value: dict[str, str]) -> dict[str, str]:
        return {TASKS[name].name: source for name, source in value.items()}

    @model_validator(mode="after")
    def _ordered(self) -> Finetune:
        for name, options in self.tasks.items():
            if options.after is not None and options.after not in self.tasks:
                raise KronpressError(f"tasks: '{name}' comes after '{options.after}', which this step has not; add it")
        try:
            self._order()
        except CycleError as error:
            raise KronpressError(f"tasks: {' after '.join(error.args[1])}, none is first; remove one `after`") from None
        return self

    @model_validator(mode="after")
    def _taught(self) -> Finetune:
        contenders = {"student": self.losses} | {name: baseline.losses for name, baseline in self.baselines.items()}
        contenders |= {f"student on {name}": each.losses for name, each in self.tasks.items() if each.losses}
        for name, losses in contenders.items():
            for label, loss in losses.items():
                if self.teacher is None and loss.compares:
                    raise KronpressError(
                        f"the loss '{label}' of the {name} compares with a teacher; give teacher, not null"
                    )
        for name, options in self.tasks.items():
            read = [options.losses or self.losses, *(baseline.losses for baseline in self.baselines.values())]
            if options.unlabeled and not any(loss.compares for losses in read for loss in losses.values()):
                raise KronpressError(
                    f"tasks: nothing that learns '{name}' compares with a teacher and can read `unlabeled`; add such a "
                    "loss, as logits, or leave it out"
                )
        return self

    def check(self, bench: Workbench) -> None:
        """Read all data, open all models, and see that each can have every task's head and the losses asked for."""
        super().check(bench)
        bench = _with_own_tokenizer(bench)
        for name in self.also:
            known = answered_by(name)
            if not known:
                raise KronpressError(f"also: '{name}' has training data of its own; put it under tasks")
            if not set(known) & set(self.tasks):
                raise KronpressError(f"also: no task of this step answers '{name}'; add one of {', '.join(known)}")
        for name in self.tasks:
            self._with_options(name)._check_task(bench, name)

    def sources(self) -> dict[str, str]:
        """Return digests of the tasks' examples and of the models that lie here."""
        teachers = (
            [self.teacher.replace("{task}", name) for name in self.tasks] if isinstance(self.teacher, str) else []
        )
        baselines = [baseline.model for baseline in self.baselines.values() if baseline.model is not None]
        examples = {f"the data of the task '{name}'": self._data(name).digest() for name in self.tasks}
        return model_sources([*teachers, *baselines]) | examples

    def _check_task(self, bench: Workbench, name: str) -> None:
        self._share()
        data = self._data(name)
        data.check()
        teacher = self._open_teacher(self.teacher, data.task, bench) if isinstance(self.teacher, str) else None
        if isinstance(self.teacher, TeacherOptions):
            teacher = with_head(bench.teacher, data.task, bench.tokenizer)
        for contender in self._contenders(bench):
            student = with_head(contender.model, data.task, contender.tokenizer)
            data.features(data.dev, contender)
            data.require_known(contender)
            TaskDistillation(student, teacher if contender.compares else None, contender.losses)

    def run(self, bench: Workbench) -> dict[str, Any]:
        """Fine-tune all models on all tasks, going on where an interrupted run stopped."""
        bench = _with_own_tokenizer(bench)
        found = {name: self._task(bench, name) for name in self._order()}
        return {"tasks": [found[name] for name in self.tasks]}

    def _order(self) -> list[str]:
        """Return the tasks, each after that from whose models it begins."""
        before = {name: [options.after] if options.after else [] for name, options in self.tasks.items()}
        return list(TopologicalSorter(before).static_order())

    def _task(self, bench: Workbench, name: str) -> dict[str, Any]:
        options = self._with_options(name)
        data = self._data(name)
        seeds = range(bench.seed, bench.seed + self.seeds)
        settings = options.model_dump(mode="json", include=_SETTINGS)
        folder = bench.folder / name
        limit, after = self.cache_max_bytes, self.tasks[name].after
        before = bench.folder / after if after else None
        contest = Contest(bench, folder, data, options._train, options.batch, seeds, settings, limit, before)
        rows = list(options._rows(bench, contest))
        contest.close()
        examples = {"train": len(data.train), "dev": len(data.dev)}
        counts = {"unlabeled": len(data.unlabeled), "left out": data.left_out}
        examples |= {label: count for label, count in counts.items() if count}
        facts = {"task": name, "after": after, "split": "dev", "metrics": list(data.task.metrics)}
        return {**facts, "examples": examples, "rows": rows}

    def _train(
        self, contender: Contender, bench: Workbench, objective: TaskDistillation, material: Material
    ) -> dict[str, Any]:
        models = [model for model in (objective.student, objective.teacher) if model is not None]
        with training_attention(*models):
            own = {"learning_rate": contender.learning_rate, "dropout": contender.dropout}
            return self.model_copy(update=own).train(bench, objective, material)

    def _rows(self, bench: Workbench, contest: Contest) -> Iterator[dict[str, Any]]:
        teacher = None
        if isinstance(self.teacher, str):
            teacher = self._open_teacher(self.teacher, contest.data.task, bench)
            yield contest.known("teacher", teacher, bench.tokenizer)
        elif self.teacher is not None:
            options, epochs = self.teacher, self.teacher.epochs or self.epochs
            own = Contender("teacher", bench.teacher, bench.tokenizer, _PLAIN, epochs, options.learning_rate)
            yield contest.row(replace(own, dropout=options.dropout))
            teacher = contest.opened("teacher")
        for contender in self._contenders(bench):
            yield contest.row(contender, teacher=teacher)

    def _contenders(self, bench: Workbench) -> Iterator[Contender]:
        """Go through the student and the baselines."""
        student = Contender("student", bench.student, bench.tokenizer, self.losses, self.epochs, self.learning_rate)
        student = replace(student, dropout=self.dropout)
        yield student
        for name, baseline in self.baselines.items():
            rate = baseline.learning_rate or self.learning_rate
            other = replace(student, name=name, losses=baseline.losses, learning_rate=rate)
            if baseline.model is not None:
                model, tokenizer = load_with_tokenizer(baseline.model)
                _require_tokenizer(baseline.model, tokenizer, like=bench.tokenizer if other.compares else None)
                other = replace(other, model=model, tokenizer=tokenizer)
            yield other

    def _open_teacher(self, name: str, task: Task[Any, Any], bench: Workbench) -> PreTrainedModel:
        """Open the fine-tuned teacher of a task."""
        source = name.replace("{task}", task.name)
        teacher, tokenizer = load_with_tokenizer(source)
        if tokenizer is not None:
            _require_tokenizer(source, tokenizer, like=bench.tokenizer)
        if not is_headed(teacher, task):
            outputs = ", ".join(map(str, (teacher.config.id2label or {}).values()))
            wanted = f" ({', '.join(task.labels)})" if isinstance(task, ClassificationTask) else ""
            raise KronpressError(
                f"the teacher '{source}' is a {type(teacher).__name__} with the outputs {outputs}, not one fine-tuned "
                f"for '{task.name}'{wanted}; name another, or none, and the recipe's model is fine-tuned first"
            )
        known = with_head(teacher, task, bench.tokenizer)  # its own head, and the padding of the student's tokenizer
        module: nn.Module = known
        module.to(bench.student.device)
        return known

    def _with_options(self, name: str) -> Finetune:
        """Return the step with what it does otherwise for one task."""
        own = {field: value for field, value in self.tasks[name] if field not in ("data", "after", "unlabeled")}
        return self.model_copy(update={field: value for field, value in own.items() if value is not None})

    def _data(self, name: str) -> Data:
        return self._sources.read(name, max_length=self._with_options(name).max_length)

    @property
    def _sources(self) -> Sources:
        return Sources(self.tasks, self.data, self.also)


def _with_own_tokenizer(bench: Workbench) -> Workbench:
    """Return the bench with a tokenizer that tasks may give a length and padding, which the checkpoint's keeps out."""
    return replace(bench, tokenizer=copy.deepcopy(bench.tokenizer))


def _require_tokenizer(source: str, tokenizer: Any, *, like: Any | None) -> None:
    """Check that a model has a tokenizer, and one that numbers words as another does where it learns from its model."""
    if tokenizer is None:
        raise KronpressError(f"the model '{source}' has no readable tokenizer beside it; add its tokenizer files")
    if like is not None and tokenizer.get_vocab() != like.get_vocab():
        raise KronpressError(
            f"the tokenizer of '{source}' numbers words otherwise than the student's, and one learns from the other; "
            "choose a model with the same tokenizer"
        )
