"""The distill step of a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor
from torch.utils.data import ConcatDataset
from transformers import PreTrainedModel

from kronpress.activations.attention import training_attention
from kronpress.activations.head import head_of
from kronpress.checkpoint import load_with_tokenizer
from kronpress.checkpoint.digests import model_sources
from kronpress.errors import KronpressError
from kronpress.families import family_of, vocabulary_size, window_of
from kronpress.losses import LOSSES, LogitLoss, Loss, compares, parse_losses, readings_of
from kronpress.quantizers import let_learn
from kronpress.records import TeacherStorage, TrainingRecord
from kronpress.step import STEPS, Needs, Workbench
from kronpress.teacher import Storage, text_live, text_teacher
from kronpress.teacher.text_outputs import Likeliest, StoredText, check_size
from kronpress.train.compiled import compiled_blocks
from kronpress.train.language_objective import Distillation
from kronpress.train.step import TrainingStep
from kronpress.train.text import EncoderText, Frame, NextToken, Taught, Text, epochs_of
from kronpress.train.training import Material, train


@STEPS.enroll
class Distill(TrainingStep):
    """Train the student to answer like the teacher, on the recipe's training text.

    A decoder predicts the next token. An encoder reads one segment or two, and guesses masked tokens if any loss is
    one of predictions; next-sentence prediction is not learned. AdamW's β are 0.9 and 0.95.

    Attributes:
        tokens: training tokens; the text is read again, in another order, where it is shorter.
        dropout: none by default: noise in the student is noise in every loss between activations, and hardly a text is
            read often enough to be learned by heart.
        window: tokens of text per training window, 512 by default, or as many as the student sees beside special
            tokens; the text is packed, so that no token is padding.
        losses: what is minimized: names, or labels of your own, with the fields of the loss (`name` where the label is
            another, `weight`); a number alone is the weight.
        teacher: another model than the recipe's to learn from, a folder or hub id.
        validate_every: steps between measurements on held-out text; never by default.
        validation_windows: of that text.
        compile: let torch.compile translate the blocks; pays where a run is long and a C++ compiler or GPU is there.
        cache_teacher: run the teacher once over the text and store the likeliest tokens on disk until the step is done,
            rather than run it at every step; the losses that compare must be `logits` with `top_k`.
        cache_max_bytes: what that may take.
    """

    kind: ClassVar[str] = "distill"
    tokens: int = Field(ge=1)
    dropout: float | None = Field(default=0.0, ge=0, lt=1)
    window: int | None = Field(default=None, ge=2)
    losses: dict[str, SerializeAsAny[Loss]] = Field(default={"logits": LOSSES["logits"]()}, min_length=1)
    teacher: str | None = None
    validate_every: int | None = Field(default=None, ge=1)
    validation_windows: int = Field(default=16, ge=1)
    compile: bool = False
    cache_teacher: bool = False
    cache_max_bytes: int = Field(default=4 * 2**30, ge=1)

    def unread(self) -> dict[str, str]:
        """Return what belongs to a validation, a teacher or a cache that the other fields do not ask for."""
        idle = {
            "validation_windows": (self.validate_every is None, "set validate_every"),
            "cache_max_bytes": (not self.cache_teacher, "set cache_teacher: true"),
            "teacher": (not compares(self.losses), "add a loss that compares, as logits"),
        }
        return {name: f"{remedy}, or leave it out" for name, (unused, remedy) in idle.items() if unused}

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
        model, window = self._teacher_model(bench) if compares(self.losses) else None, self._window(bench.student)
        if model is not None:
            window_of(model, window, special=_special(model))
        texts = self._texts(bench, window, tokens=self._count(window) * window)
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
        texts = self._texts(bench, self._window(bench.student))
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
        let_learn(bench.student)
        objective = Distillation(bench.student, teacher, self.losses)
        with self._prepared(*objective.models):
            if isinstance(teacher, StoredText):
                return replace(self._train(bench, objective, _taught(texts, teacher)), teacher=_size_of(teacher))
            return self._train(bench, objective, texts)

    @contextmanager
    def _prepared(self, *models: PreTrainedModel) -> Iterator[None]:
        """Let the models compute as fast as training can."""
        with training_attention(*models), compiled_blocks(*models) if self.compile else nullcontext():
            yield

    def _train(self, bench: Workbench, objective: Distillation, sets: Sequence[Text | Taught]) -> TrainingRecord:
        window, (data, *validation) = self._window(bench.student), sets
        material = Material(
            data=data,
            steps=len(data) // self.batch,
            tokens_per_step=self.batch * window,
            validation=validation[0] if validation else None,
            validate_every=self.validate_every,
        )
        record = train(self.settings, objective, material, folder=bench.folder, seed=bench.seed)
        return replace(record, window=window)

    def _window(self, model: PreTrainedModel) -> int:
        """Return the tokens of text in a window, whose special tokens the model must see as well."""
        return window_of(model, self.window, special=_special(model))

    def _count(self, window: int) -> int:
        """Return how many windows are read, again and again ones included."""
        return math.ceil(self.tokens / (self.batch * window)) * self.batch

    def _checked_teacher(self, bench: Workbench) -> PreTrainedModel:
        teacher = self._teacher_model(bench)
        self._check_logits(bench, teacher)
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

    def _texts(self, bench: Workbench, window: int, *, tokens: int | None = None) -> list[Text]:
        """Return the text to train on, in the order of the training, and the validation text if there is any."""
        count = self._count(window)
        windows = bench.training_windows(size=window, tokens=tokens, drawn=count * window)
        texts = [self._text(bench, windows, order=epochs_of(len(windows), count=count, seed=bench.seed))]
        if self.validate_every is not None:
            held_out = bench.held_out_windows(size=window, count=self.validation_windows)
            texts.append(self._text(bench, held_out, order=torch.arange(len(held_out))))
        return texts

    def _text(self, bench: Workbench, windows: Int[Tensor, "windows tokens"], *, order: Int[Tensor, " count"]) -> Text:
        if family_of(bench.student).causal:
            return NextToken(windows, order)
        guessed = any(isinstance(loss, LogitLoss) for loss in self.losses.values())
        frame = Frame.of(bench.student, bench.tokenizer)
        return EncoderText(windows, order, frame, seed=bench.seed, guessed=guessed)


def _special(model: PreTrainedModel) -> int:
    """Return how many special tokens a model reads around a window: the [CLS] and [SEP] of an encoder."""
    return 0 if family_of(model).causal else 2


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
