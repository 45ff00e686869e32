"""The distill step of a recipe."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from pydantic import Field, SerializeAsAny, field_validator
from torch import Tensor, nn
from torch.utils.data import ConcatDataset
from transformers import PreTrainedModel

from kronpress import processes
from kronpress.activations.attention import training_attention
from kronpress.activations.head import head_of
from kronpress.checkpoint import load_with_tokenizer
from kronpress.checkpoint.digests import model_sources
from kronpress.errors import KronpressError
from kronpress.families import family_of, vocabulary_size, window_of
from kronpress.losses import LOSSES, LogitLoss, Loss, parse_losses
from kronpress.precision import computes_in_bfloat16
from kronpress.step import STEPS, Workbench
from kronpress.teacher.token_store import Kept, TeacherCache, build_cache, check_size
from kronpress.train.compiled import compiled_blocks
from kronpress.train.language_objective import Distillation
from kronpress.train.step import Material, TrainingStep
from kronpress.train.text import EncoderText, Frame, FromCache, NextToken, Text, epochs_of


@STEPS.register("distill")
class Distill(TrainingStep):
    """Train the student to answer like the teacher, on the recipe's training text.

    A decoder predicts the next token. An encoder reads one segment or two, and guesses masked tokens if any loss is of
    words; next-sentence prediction is not learned. AdamW's β are 0.9 and 0.95.

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
        cache_teacher: run the teacher once over the text and keep the likeliest words on disk until the step is done,
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
            "teacher": (not any(loss.compares for loss in self.losses.values()), "add a loss that compares, as logits"),
        }
        return {name: f"{remedy}, or leave it out" for name, (unused, remedy) in idle.items() if unused}

    @field_validator("losses", mode="before")
    @classmethod
    def _named(cls, value: Any) -> dict[str, Loss]:
        return parse_losses(value)

    def check(self, bench: Workbench) -> None:
        """Check that models, losses and text fit together."""
        super().check(bench)
        teacher, window = self._teacher(bench), self._window(bench.student)
        if teacher is not None:
            window_of(teacher, window, special=_special(teacher))
        texts = self._texts(bench, window, tokens=self._count(window) * window)
        self._check_logits(bench, teacher)
        Distillation(bench.student, teacher, self.losses)
        if self.cache_teacher:
            kept = Kept.of(self.losses, words=vocabulary_size(bench.student))
            assert teacher is not None
            check_size(_once(texts), teacher, kept=kept, max_bytes=self.cache_max_bytes)

    def sources(self) -> dict[str, str]:
        """Return the digest of the teacher's folder, where there is one."""
        return model_sources([] if self.teacher is None else [self.teacher])

    def run(self, bench: Workbench) -> dict[str, Any]:
        """Train, going on from the last whole checkpoint in the step's folder."""
        texts = self._texts(bench, self._window(bench.student))
        if self.cache_teacher:
            return self._run_from_cache(bench, texts)
        teacher = self._teacher(bench)
        self._check_logits(bench, teacher)
        models = [bench.student] if teacher is None else [bench.student, teacher]
        with self._prepared(*models):
            return self._train(bench, Distillation(bench.student, teacher, self.losses), texts)

    def _run_from_cache(self, bench: Workbench, texts: Sequence[Text]) -> dict[str, Any]:
        cache = processes.from_main(lambda: self._cache(bench, texts))
        lengths = [len(text.distinct()[0]) for text in texts]
        sets = [FromCache(text, cache, first=sum(lengths[:index])) for index, text in enumerate(texts)]
        objective = Distillation(
            bench.student,
            None,
            self.losses,
            cached_temperature=cache.key.kept.temperature,
            cached_vocabulary=cache.key.vocabulary,
        )
        size = {"bytes": cache.bytes, "windows": cache.key.rows, "top_k": cache.key.kept.k}
        with self._prepared(bench.student):
            return self._train(bench, objective, sets) | {"teacher_cache": size}

    @contextmanager
    def _prepared(self, *models: PreTrainedModel) -> Iterator[None]:
        """Let the models compute as fast as training can."""
        with training_attention(*models), compiled_blocks(*models) if self.compile else nullcontext():
            yield

    def _cache(self, bench: Workbench, texts: Sequence[Text]) -> TeacherCache:
        """Open the teacher cache that an interrupted run finished, or build what is missing of it."""
        kept = Kept.of(self.losses, words=vocabulary_size(bench.student))
        folder = bench.folder / "trainer" / "teacher"
        with suppress(KronpressError):
            return TeacherCache.open(folder, _once(texts), kept=kept)
        teacher = self._teacher(bench)
        self._check_logits(bench, teacher)
        assert teacher is not None
        with training_attention(teacher):
            return build_cache(folder, teacher, _once(texts), kept=kept, max_bytes=self.cache_max_bytes)

    def _train(self, bench: Workbench, objective: Distillation, sets: Sequence[Text | FromCache]) -> dict[str, Any]:
        window, (data, *validation) = self._window(bench.student), sets
        material = Material(
            data=data,
            steps=len(data) // self.batch,
            tokens_per_step=self.batch * window,
            validation=validation[0] if validation else None,
            validate_every=self.validate_every,
        )
        return self.train(bench, objective, material) | {"window": window}

    def _window(self, model: PreTrainedModel) -> int:
        """Return the tokens of text in a window, whose special tokens the model must see as well."""
        return window_of(model, self.window, special=_special(model))

    def _count(self, window: int) -> int:
        """Return how many windows are read, again and again ones included."""
        return math.ceil(self.tokens / (self.batch * window)) * self.batch

    def _teacher(self, bench: Workbench) -> PreTrainedModel | None:
        """Return a copy of the teacher to compute with, if any loss compares with one."""
        if not any(loss.compares for loss in self.losses.values()):
            return None
        device = bench.student.device
        teacher = bench.teacher if self.teacher is None else self._other_teacher(bench)
        dtype = torch.bfloat16 if computes_in_bfloat16(device) else torch.float32
        frozen = {  # what deepcopy takes for the copies of the parameters; buffers, such as frequencies, stay precise
            id(each): nn.Parameter(each.detach().to(device, dtype), requires_grad=False)
            for each in teacher.parameters()
        }
        mine: nn.Module = copy.deepcopy(teacher, frozen).eval()
        mine.to(device)
        assert isinstance(mine, PreTrainedModel)
        return mine

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
                f"the tokenizer of the teacher '{self.teacher}' numbers words otherwise than the student's; "
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
        windows = bench.training_windows(size=window, tokens=tokens)
        texts = [self._text(bench, windows, order=epochs_of(len(windows), count=self._count(window), seed=bench.seed))]
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
