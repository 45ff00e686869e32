"""The finetune step of a recipe."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from kronpress.checkpoint.digests import model_sources
from kronpress.errors import KronpressError, shown
from kronpress.finetune.augment import Augment, Augmentation
from kronpress.finetune.comparison import Comparison
from kronpress.finetune.data import TaskData
from kronpress.finetune.objective import TaskDistillation
from kronpress.finetune.options import LABELS_ALONE, Baseline, SelectOn, TaskOptions, TeacherOptions
from kronpress.finetune.plan import TaskPlan
from kronpress.finetune.sources import Sources, answered_by
from kronpress.finetune.stage import Stage
from kronpress.losses import Loss, compares, parse_losses, readings_of
from kronpress.records import FinetuneRecord, ModelScore, TaskRecord
from kronpress.step import STEPS, Needs, Workbench
from kronpress.tasks import TASKS, SentenceTask, with_head
from kronpress.teacher import task_live
from kronpress.train.settings import Beta
from kronpress.train.step import TrainingStep
from kronpress.validation import path_name

COPIES = ".work/.augmented.jsonl"
"""The file with the copies of a task's examples, in the folder of the task; no model's name begins with a dot."""


@STEPS.enroll
class Finetune(TrainingStep):
    """Fine-tune student and teacher on tasks, the student by distillation if its losses compare; the student of later
    steps stays what it is.

    Each task gets a copy of the model with a new head, or the teacher's where it learns from one and that fits, trained
    with several seeds. Of each run the epoch that does best on what `select_on` says counts; the best run of each model
    by the same measure is saved in the step's folder, under task and model. Scores are those of the dev set, which by
    default has selected them as well. What models read of another task, in `unlabeled` or `after`, has no example of
    the dev sets that they are scored on, nor of what they are selected by.

    AdamW's β are 0.9 and 0.999.

    Attributes:
        tasks: names, or a mapping from names to what the step does differently for them.
        data: a folder with the tasks' data, each in a folder of its name as in GLUE; one task's own folder; or `hub:`.
        dropout: of student and baselines; by default what their configurations say.
        epochs: passes over the training set.
        seeds: how many runs of each model.
        select_on: what selects epochs and best runs, the teacher's too: `dev`, or `train`: a tenth of the training set,
            which the step's seed draws, the same for all models, and no model is trained on. Dev then only reports, and
            the best score on dev over all epochs stands beside.
        losses: what the student is trained on, as in the distill step.
        teacher: a fine-tuned model, with `{task}` in place of the task's name where there are several; or how the
            recipe's model is to become one: it is fine-tuned first, on labels alone, and its best run is the teacher;
            or `null` for none, where no loss compares.
        baselines: other models or losses under names of their own, for comparison.
        stages: further trainings of the student, by names of their own: each puts its numbers on grids of fewer bits
            and begins from the best epoch of another; where none begins from the student, that is not trained.
        augment: copies of the training examples with words replaced, which student, baselines and stages read as well
            and the teacher does not; none by default.
        also: data outside of the distribution to score on: names of tasks without training data of their own, and where
            they are.
        max_length: tokens of an example; by default what the task says.
        cache_max_bytes: what the teacher's activations may take on disk while a model learns from them; where that is
            not enough, the teacher is run at every step.
    """

    kind: ClassVar[str] = "finetune"
    changes_student: ClassVar[bool] = False
    tasks: dict[str, TaskOptions] = Field(min_length=1)
    data: str | None = None
    epochs: float = Field(default=3.0, gt=0)
    seeds: int = Field(default=1, ge=1)
    select_on: SelectOn = "dev"
    batch: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=5e-5, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    save_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    losses: dict[str, SerializeAsAny[Loss]] = Field(default=LABELS_ALONE, min_length=1)
    teacher: str | TeacherOptions | None = TeacherOptions()
    baselines: dict[str, Baseline] = Field(default={})
    stages: dict[str, Stage] = Field(default={})
    augment: Augment | None = None
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

    @model_validator(mode="after")
    def _staged(self) -> Finetune:
        taken = ["teacher", "student", *self.baselines]
        for name, stage in self.stages.items():
            for key, other in (("start", stage.start), ("teacher", stage.teacher)):
                if other is not None and other not in taken:
                    raise KronpressError(f"stages.{name}: {key} is {shown(other)}; name one of {', '.join(taken)}")
            taken.append(path_name(name, what="a stage", others=taken))
        if self.stages and any(options.after for options in self.tasks.values()):
            raise KronpressError("stages: every task passes through all of them; leave out `after`")
        return self

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
    def _copied(self) -> Finetune:
        for name in self.tasks:
            if self._augment(name) is not None and not isinstance(TASKS[name], SentenceTask):
                raise KronpressError(
                    f"augment: the answers of '{name}' stand at places in its texts, which other words would move; "
                    f"give tasks: {{{name}: {{augment: null}}}}"
                )
        return self

    @model_validator(mode="after")
    def _taught(self) -> Finetune:
        candidates = {"student": self.losses} | {name: baseline.losses for name, baseline in self.baselines.items()}
        candidates |= {f"student on {name}": task.losses for name, task in self.tasks.items() if task.losses}
        candidates |= {f"stage {name}": stage.losses for name, stage in self.stages.items() if stage.losses}
        for name, losses in candidates.items():
            for label, loss in losses.items():
                if self.teacher is None and loss.compares:
                    raise KronpressError(
                        f"the loss '{label}' of the {name} compares with a teacher; give teacher, not null"
                    )
        for name, options in self.tasks.items():
            read = [options.losses or self.losses, *(baseline.losses for baseline in self.baselines.values())]
            if options.unlabeled and not any(map(compares, read)):
                raise KronpressError(
                    f"tasks: nothing that learns '{name}' compares with a teacher and can read `unlabeled`; add such a "
                    "loss, as logits, or leave it out"
                )
        return self

    def _augment(self, name: str) -> Augment | None:
        own = self.tasks[name].augment
        return self.augment if own == "step" else own

    def _all_augment(self) -> set[Augment]:
        """Return the ways of augmentation of all tasks."""
        return {options for options in map(self._augment, self.tasks) if options is not None}

    def plan(self, name: str) -> TaskPlan:
        """Return what the step does for one task."""
        own = self.tasks[name]
        different = {"batch": own.batch, "learning_rate": own.learning_rate}
        return TaskPlan(
            epochs=own.epochs or self.epochs,
            losses=own.losses or self.losses,
            training=self.settings.model_copy(update={key: value for key, value in different.items() if value}),
            teacher=self.teacher,
            baselines=self.baselines,
            max_length=own.max_length or self.max_length,
            cache_max_bytes=self.cache_max_bytes,
            augment=self._augment(name),
            stages=self.stages,
        )

    def read(self, name: str, *, seed: int = 0) -> TaskData:
        """Read the data of one task; `seed` draws what is held out of the training set.

        Raises:
            KronpressError: what is missing or malformed, or would be training and dev set at once.
        """
        sources = Sources(self.tasks, self.data, self.also, self.select_on, seed)
        return sources.read(name, max_length=self.plan(name).max_length)

    def needs(self) -> Needs:
        """Return that no text but that of the tasks is read, and whether the dense model becomes the teacher, or its
        token table is looked into.
        """
        dense = isinstance(self.teacher, TeacherOptions) or bool(self._all_augment())
        return replace(super().needs(), teacher=dense, text=False)

    def check(self, bench: Workbench) -> None:
        """Read all data, open all models, and see that each can have every task's head and the losses asked for."""
        super().check(bench)
        bench = _with_own_tokenizer(bench)
        for name in self.also:
            answered = answered_by(name)
            if not answered:
                raise KronpressError(f"also: '{name}' has training data of its own; put it under tasks")
            if not set(answered) & set(self.tasks):
                raise KronpressError(f"also: no task of this step answers '{name}'; add one of {', '.join(answered)}")
        for options in self._all_augment():
            _augmentation(options, bench)
        for name in self.tasks:
            self._check_task(bench, name)

    def sources(self) -> dict[str, str]:
        """Return digests of the tasks' examples and of the models that lie here."""
        teachers = (
            [self.teacher.replace("{task}", name) for name in self.tasks] if isinstance(self.teacher, str) else []
        )
        baselines = [baseline.model for baseline in self.baselines.values() if baseline.model is not None]
        masked = [options.model for options in self._all_augment() if options.model is not None]
        examples = {f"the data of the task '{name}'": self.read(name).digest() for name in self.tasks}
        return model_sources([*teachers, *baselines, *masked]) | examples

    def _check_task(self, bench: Workbench, name: str) -> None:
        plan, data = self.plan(name), self.read(name, seed=bench.seed)
        plan.training.passes()
        data.check()
        teacher = plan.open_teacher(data.task, bench) if isinstance(plan.teacher, str) else None
        if isinstance(plan.teacher, TeacherOptions):
            teacher = with_head(bench.teacher, data.task, bench.tokenizer)
        for candidate in plan.candidates(bench):
            student = with_head(candidate.model, data.task, candidate.tokenizer)
            if candidate.stage is not None:
                candidate.stage.require(student)
            data.features(data.dev, candidate)
            data.require_known(candidate)
            model = teacher if candidate.compares else None
            asked = None if model is None else task_live(model, readings=readings_of(candidate.losses))
            TaskDistillation(student, asked, candidate.losses)

    def run(self, bench: Workbench) -> FinetuneRecord:
        """Fine-tune all models on all tasks, going on where an interrupted run stopped."""
        bench = _with_own_tokenizer(bench)
        results = {name: self._task(bench, name) for name in self._order()}
        return FinetuneRecord(tuple(results[name] for name in self.tasks))

    def _order(self) -> list[str]:
        """Return the tasks, each after that from whose models it begins."""
        before = {name: [options.after] if options.after else [] for name, options in self.tasks.items()}
        return list(TopologicalSorter(before).static_order())

    def _task(self, bench: Workbench, name: str) -> TaskRecord:
        plan, folder, after = self.plan(name), bench.folder / name, self.tasks[name].after
        data = self.read(name, seed=bench.seed)
        if plan.augment is not None:
            data = _with_copies(data, plan.augment, bench, file=folder / COPIES)
        comparison = Comparison(
            plan=plan,
            data=data,
            folder=folder,
            device=bench.student.device,
            seeds=range(bench.seed, bench.seed + self.seeds),
            before=bench.folder / after if after else None,
        )
        models = tuple(_rows(comparison, bench))
        comparison.close()
        return _report(data, models, after=after)


def _augmentation(options: Augment, bench: Workbench) -> Augmentation:
    return Augmentation.of(options, bench.teacher, bench.tokenizer, seed=bench.seed, device=bench.student.device)


def _with_copies(data: TaskData, options: Augment, bench: Workbench, *, file: Path) -> TaskData:
    """Return the data with copies of the training examples, which lie in the file until the task is done."""
    augmentation = _augmentation(options, bench)
    return replace(data, augmented=augmentation.augmented(data.train, unseen=data.unseen, file=file))


def _rows(comparison: Comparison, bench: Workbench) -> Iterator[ModelScore]:
    """Report on teacher, student and baselines, each fine-tuned when its turn comes."""
    plan, task, teacher = comparison.plan, comparison.data.task, None
    if isinstance(plan.teacher, str):
        teacher = plan.open_teacher(task, bench)
        yield comparison.row_as_it_is("teacher", teacher, bench.tokenizer)
    elif plan.teacher is not None:
        yield comparison.row(plan.teacher_to_be(bench))
        teacher = comparison.opened("teacher")
    for candidate in plan.candidates(bench):
        if candidate.stage is None:
            yield comparison.row(candidate, teacher=teacher)
            continue
        start, other = plan.starts[candidate.name], candidate.stage.teacher
        begun = teacher if start == "teacher" and teacher is not None else comparison.opened(start)
        learned_from = comparison.opened(other) if other else teacher
        yield comparison.row(replace(candidate, model=begun), teacher=learned_from)


def _report(data: TaskData, models: tuple[ModelScore, ...], *, after: str | None) -> TaskRecord:
    """Return what a step tells of one task."""
    examples = {"train": len(data.train), "dev": len(data.dev)}
    counts = {
        "held out": len(data.held_out),
        "augmented": 0 if data.augmented is None else len(data.augmented.examples),
        "unlabeled": len(data.unlabeled),
        "left out": data.left_out,
    }
    examples |= {label: count for label, count in counts.items() if count}
    record = TaskRecord(data.task.name, "dev", tuple(data.task.metrics), examples, models, after=after)
    return replace(record, selected_on="train" if data.held_out else "dev")


def _with_own_tokenizer(bench: Workbench) -> Workbench:
    """Return the bench with a tokenizer that tasks may give a length and padding, which the checkpoint's keeps out."""
    return replace(bench, tokenizer=copy.deepcopy(bench.tokenizer))
