"""The distill step of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor
from torch.utils.data import ConcatDataset
from transformers import PreTrainedModel

from kronpress.activations.head import head_of
from kronpress.checkpoint import load_with_tokenizer
from kronpress.checkpoint.digests import model_sources, weights_digest
from kronpress.errors import KronpressError
from kronpress.families import vocabulary_size, window_of
from kronpress.losses import LOSSES, LogitLoss, Loss, compares, parse_losses, readings_of
from kronpress.quantizers import let_learn
from kronpress.records import TeacherStorage, TrainingRecord
from kronpress.step import STEPS, Needs, Workbench
from kronpress.teacher import Storage, text_live, text_teacher
from kronpress.teacher.text_outputs import Likeliest, StoredText, check_size
from kronpress.train.language import LanguageStep, special_tokens
from kronpress.train.language_objective import Distillation
from kronpress.train.text import Taught, Text


@STEPS.enroll
class Distill(LanguageStep):
    """Train the student to answer like the teacher, on the recipe's training text.

    A decoder predicts the next token. An encoder reads one segment or two, and guesses masked tokens if any loss is
    one of predictions; next-sentence prediction is not learned.

    Attributes:
        losses: what is minimized: names, or labels of your own, with the fields of the loss (`name` where the label is
            another, `weight`); a number alone is the weight.
        teacher: another model than the recipe's to learn from, a folder or hub id.
        cache_teacher: run the teacher once over the text and store the likeliest tokens on disk until the step is done,
            rather than run it at every step; the losses that compare must be `logits` with `top_k`.
        cache_max_bytes: what that may take.
    """

    kind: ClassVar[str] = "distill"
    losses: dict[str, SerializeAsAny[Loss]] = Field(default={"logits": LOSSES["logits"]()}, min_length=1)
    teacher: str | None = None
    cache_teacher: bool = False
    cache_max_bytes: int = Field(default=4 * 2**30, ge=1)

    def unread(self) -> dict[str, str]:
        """Return what belongs to a validation, a teacher or a cache that the other fields do not ask for."""
        idle = {
            "cache_max_bytes": (not self.cache_teacher, "set cache_teacher: true"),
            "teacher": (not compares(self.losses), "add a loss that compares, as logits"),
        }
        unused = {name: f"{remedy}, or leave it out" for name, (unread, remedy) in idle.items() if unread}
        return super().unread() | unused

    @field_validator("losses", mode="before")
    @classmethod
    def _named(cls, value: Any) -> dict[str, Loss]:
        return parse_losses(value)

    def needs(self) -> Needs:
        """Return that the text is read, and whether the dense model is the teacher."""
        return replace(super().needs(), teacher=compares(self.losses) and self.teacher is None)

    def check(self, bench: Workbench) -> None:
        """Check that models, losses and text fit together."""
        super().check(bench)
        model = self._teacher_model(bench) if compares(self.losses) else None
        if model is not None:
            window_of(model, self.window_for(bench.student), special=special_tokens(model))
        texts = self.first_texts(bench, self.losses)
        self._check_logits(bench, model)
        teacher = None if model is None else text_live(model, readings=readings_of(self.losses))
        Distillation(bench.student, teacher, self.losses)
        if self.cache_teacher:
            kept = Likeliest.of(self.losses, vocabulary=vocabulary_size(bench.student))
            assert model is not None
            check_size(_once(texts), model, kept=kept, max_bytes=self.cache_max_bytes)

    def sources(self) -> dict[str, str]:
        """Return the digest of the teacher's folder, where there is one."""
        return model_sources([] if self.teacher is None else [self.teacher])

    def run(self, bench: Workbench) -> TrainingRecord:
        """Train, going on from the last whole checkpoint in the step's folder."""
        texts = self.texts(bench, self.losses)
        teacher = text_teacher(
            self.losses,
            _once(texts),
            open_model=lambda: self._checked_teacher(bench),
            vocabulary=vocabulary_size(bench.student),
            device=bench.student.device,
            storage=Storage(bench.folder / "trainer" / "teacher", self.cache_max_bytes, wanted=self.cache_teacher),
        )
        if teacher is None:
            self._check_logits(bench, None)
        if self.adapters is None:
            let_learn(bench.student)
        objective = Distillation(bench.student, teacher, self.losses)
        with self.prepared(*objective.models):
            if isinstance(teacher, StoredText):
                return replace(self.train(bench, objective, _taught(texts, teacher)), teacher=_size_of(teacher))
            return self.train(bench, objective, texts)

    def _checked_teacher(self, bench: Workbench) -> PreTrainedModel:
        teacher = self._teacher_model(bench)
        self._check_logits(bench, teacher)
        if all(loss.compares for loss in self.losses.values()) and _is_the_same(bench.student, teacher):
            raise KronpressError(
                f"the student is the same model as its teacher, {self.teacher or 'the model of the recipe'}, and can "
                "learn nothing from it; name the dense model as `teacher`, or compress before this step"
            )
        return teacher

    def _teacher_model(self, bench: Workbench) -> PreTrainedModel:
        return bench.teacher if self.teacher is None else self._other_teacher(bench)

    def _other_teacher(self, bench: Workbench) -> PreTrainedModel:
        assert self.teacher is not None
        teacher, tokenizer = load_with_tokenizer(self.teacher)
        ours, theirs = vocabulary_size(bench.student), vocabulary_size(teacher)
        if tokenizer is None and ours != theirs:
            raise KronpressError(
                f"the teacher '{self.teacher}' has a vocabulary of {theirs} and the student of {ours}, and no readable "
                "tokenizer lies beside the teacher to say whether its tokens are the same; add its tokenizer files"
            )
        if tokenizer is not None and tokenizer.get_vocab() != bench.tokenizer.get_vocab():
            raise KronpressError(
                f"the teacher '{self.teacher}' has a vocabulary with other ids than the student's; "
                "choose a teacher with the same tokenizer"
            )
        return teacher

    def _check_logits(self, bench: Workbench, teacher: PreTrainedModel | None) -> None:
        names = [name for name, loss in self.losses.items() if isinstance(loss, LogitLoss)]
        for model in (bench.student, teacher):
            if names and model is not None and head_of(model) is None:
                raise KronpressError(
                    f"the loss {names[0]} needs a language-model head, and {type(model).__name__} has none; "
                    f"use losses of layers, such as hidden, or a model with its head"
                )
        if names and teacher is not None:
            ours, theirs = vocabulary_size(bench.student), vocabulary_size(teacher)
            tokens = 1 + max(bench.tokenizer.get_vocab().values())
            if ours != theirs and tokens > min(ours, theirs):
                raise KronpressError(
                    f"the student has a vocabulary of {ours} and the teacher of {theirs}, but the tokenizer has "
                    f"{tokens} tokens, all of which both must know; choose another teacher"
                )


def _is_the_same(student: PreTrainedModel, teacher: PreTrainedModel) -> bool:
    """Say whether two models have the same layers, the rounding of their inputs included, and the same weights."""
    return str(student) == str(teacher) and weights_digest(student) == weights_digest(teacher)


def _once(texts: Sequence[Text]) -> ConcatDataset[dict[str, Tensor]]:
    """Return every example of the texts once."""
    return ConcatDataset([text.distinct()[0] for text in texts])


def _taught(texts: Sequence[Text], teacher: StoredText) -> list[Taught]:
    """Return the texts together with what a teacher said of them."""
    starts = np.cumsum([0, *(len(text.distinct()[0]) for text in texts)]).tolist()
    return [Taught(text, teacher, first=start) for text, start in zip(texts, starts, strict=False)]


def _size_of(teacher: StoredText) -> TeacherStorage:
    """Return what a report tells of stored teacher outputs."""
    return TeacherStorage(bytes=teacher.store.bytes, windows=len(teacher.store), top_k=teacher.kept.k)
