"""What a step does for one task, and with which models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from kronpress.checkpoint import load_with_tokenizer
from kronpress.errors import KronpressError
from kronpress.finetune.augment import Augment
from kronpress.finetune.candidate import Candidate
from kronpress.finetune.options import LABELS_ALONE, Baseline, TeacherOptions
from kronpress.finetune.stage import Stage
from kronpress.losses import Loss
from kronpress.step import Workbench
from kronpress.tasks import ClassificationTask, Task, is_headed, with_head
from kronpress.train.settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """What a step does for one task, its own options taken into account.

    Attributes:
        epochs: passes of the student over the training set.
        losses: what the student is trained on.
        training: how; learning rate and dropout are the student's.
        teacher: a fine-tuned model, or how the recipe's model is to become one, or None.
        baselines: other models or losses, by name.
        max_length: tokens of an example; by default what the task says.
        cache_max_bytes: what the teacher's activations may take on disk.
        augment: how student, baselines and stages get more examples, or None.
        stages: further trainings at fewer bits, by name, each after the one that it starts from.
    """

    epochs: float
    losses: Mapping[str, Loss]
    training: TrainingSettings
    teacher: str | TeacherOptions | None
    baselines: Mapping[str, Baseline]
    max_length: int | None
    cache_max_bytes: int
    augment: Augment | None = None
    stages: Mapping[str, Stage] = field(default_factory=dict)

    def student(self, bench: Workbench) -> Candidate:
        """Return the student."""
        rate, dropout = self.training.learning_rate, self.training.dropout
        student = Candidate("student", bench.student, bench.tokenizer, self.losses, self.epochs, rate, dropout)
        return replace(student, augmented=self.augment is not None)

    def candidates(self, bench: Workbench) -> Iterator[Candidate]:
        """Go through the student, where it is needed, the baselines, and the stages.

        Raises:
            KronpressError: a baseline has no tokenizer, or another one than the teacher that it learns from.
        """
        student = self.student(bench)
        if not self.stages or "student" in self.starts.values():
            yield student
        for name, baseline in self.baselines.items():
            rate = baseline.learning_rate or student.learning_rate
            other = replace(student, name=name, losses=baseline.losses, learning_rate=rate)
            if baseline.model is not None:
                model, tokenizer = load_with_tokenizer(baseline.model)
                _require_tokenizer(baseline.model, tokenizer, like=bench.tokenizer if other.compares else None)
                other = replace(other, model=model, tokenizer=tokenizer)
            yield other
        yield from (self._at(stage, name=name, student=student) for name, stage in self.stages.items())

    @property
    def starts(self) -> dict[str, str]:
        """The model from which each stage begins."""
        return {name: stage.start or before for (name, stage), before in self._with_before()}

    def _with_before(self) -> Iterator[tuple[tuple[str, Stage], str]]:
        return zip(self.stages.items(), ["student", *self.stages], strict=False)

    def _at(self, stage: Stage, *, name: str, student: Candidate) -> Candidate:
        """Return the student as a stage trains it; where that begins is for others to say."""
        return replace(
            student,
            name=name,
            stage=stage,
            losses=stage.losses or student.losses,
            epochs=stage.epochs or student.epochs,
            learning_rate=stage.learning_rate or student.learning_rate,
            augmented=student.augmented and stage.augmented,
        )

    def teacher_to_be(self, bench: Workbench) -> Candidate:
        """Return the recipe's model, which becomes the teacher by labels alone."""
        assert isinstance(self.teacher, TeacherOptions)
        epochs, rate = self.teacher.epochs or self.epochs, self.teacher.learning_rate
        candidate = Candidate("teacher", bench.teacher, bench.tokenizer, LABELS_ALONE, epochs, rate)
        return replace(candidate, dropout=self.teacher.dropout)

    def open_teacher(self, task: Task[Any, Any], bench: Workbench) -> PreTrainedModel:
        """Open the fine-tuned teacher of a task.

        Raises:
            KronpressError: it has another head than the task's, or another tokenizer than the student.
        """
        assert isinstance(self.teacher, str)
        source = self.teacher.replace("{task}", task.name)
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
        headed = with_head(teacher, task, bench.tokenizer)  # its own head, and the padding of the student's tokenizer
        module: nn.Module = headed
        module.to(bench.student.device)
        return headed


def _require_tokenizer(source: str, tokenizer: Any, *, like: Any | None) -> None:
    """Check that a model has a tokenizer, and one with the same ids as another where one learns from the other."""
    if tokenizer is None:
        raise KronpressError(f"the model '{source}' has no readable tokenizer beside it; add its tokenizer files")
    if like is not None and tokenizer.get_vocab() != like.get_vocab():
        raise KronpressError(
            f"the vocabulary of '{source}' has other ids than the student's, and one learns from the other; "
            "choose a model with the same tokenizer"
        )
