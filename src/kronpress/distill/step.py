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
from kronpress.checkpoint import load_with_tokenizer
from kronpress.distill.attention import training_attention
from kronpress.distill.batches import EncoderText, Frame, FromCache, NextToken, Text, epochs_of
from kronpress.distill.cache import Kept, TeacherCache, build_cache, check_size
from kronpress.distill.compiled import compiled_blocks
from kronpress.distill.digests import model_sources
from kronpress.distill.distillation import Distillation, head_of
from kronpress.distill.losses import LOSSES, LogitLoss, Loss
from kronpress.distill.training import Material, TrainingStep
from kronpress.errors import KronpressError
from kronpress.families import family_of, position_limit
from kronpress.precision import has_fast_bfloat16
from kronpress.step import STEPS, Workbench
from kronpress.validation import parse_named


@STEPS.register("distill")
class Distill(TrainingStep):
    """Train the student to answer like the teacher, on the recipe's training text.

    A decoder predicts the next token. An encoder reads one segment or two, and guesses masked tokens if any loss is of
    words. AdamW's β are 0.9 and 0.95.

    Attributes:
        tokens: training tokens; the text is read again, in another order, where it is shorter.
        dropout: none by default: noise in the student is noise in every loss between activations, and hardly a text is
            read often enough to be learned by heart.
        window: tokens per training window; the text is packed, so that no token is padding.
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
    window: int = Field(default=512, ge=2)
    losses: dict[str, SerializeAsAny[Loss]] = Field(default={"logits": LOSSES["logits"]()}, min_length=1)
    teacher: str | None = None
    validate_every: int | None = Field(default=None, ge=1)
    validation_windows: int = Field(default=16, ge=1)
    compile: bool = False
    cache_teacher: bool = False
    cache_max_bytes: int = Field(default=4 * 2**30, ge=1)

    @field_validator("losses", mode="before")
    @classmethod
    def _named(cls, value: Any) -> dict[str, Loss]:
        return parse_losses(value)

    def check(self, bench: Workbench) -> None:
        """Check that models, losses and text fit together."""
        super().check(bench)
        teacher = self._teacher(bench)
        for model in (bench.student, teacher):
            if model is not None:
                self._check_window(model)
        texts = self._texts(bench, bench.training_windows(size=self.window, tokens=self._windows * self.window))
        self._check_logits(bench.student, teacher)
        Distillation(bench.student, teacher, self.losses)
        if self.cache_teacher:
            kept = Kept.of(self.losses)
            assert teacher is not None
            check_size(_once(texts), teacher, kept=kept, max_bytes=self.cache_max_bytes)

    def sources(self) -> dict[str, str]:
        """Return the digest of the teacher's folder, where there is one."""
        return model_sources([] if self.teacher is None else [self.teacher])

    def run(self, bench: Workbench) -> dict[str, Any]:
        """Train, going on from the last whole checkpoint in the step's folder."""
        texts = self._texts(bench, bench.training_windows(size=self.window))
        if self.cache_teacher:
            return self._run_from_cache(bench, texts)
        teacher = self._teacher(bench)
        self._check_logits(bench.student, teacher)
        models = [bench.student] if teacher is None else [bench.student, teacher]
        with self._prepared(*models):
            return self._train(bench, Distillation(bench.student, teacher, self.losses), texts)

    def _run_from_cache(self, bench: Workbench, texts: Sequence[Text]) -> dict[str, Any]:
        cache = processes.from_main(lambda: self._cache(bench, texts))
        lengths = [len(text.distinct()[0]) for text in texts]
        sets = [FromCache(text, cache, first=sum(lengths[:index])) for index, text in enumerate(texts)]
        objective = Distillation(bench.student, None, self.losses, cached_temperature=cache.key.kept.temperature)
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
        kept, folder = Kept.of(self.losses), bench.folder / "trainer" / "teacher"
        with suppress(KronpressError):
            return TeacherCache.open(folder, _once(texts), kept=kept)
        teacher = self._teacher(bench)
        self._check_logits(bench.student, teacher)
        assert teacher is not None
        with training_attention(teacher):
            return build_cache(folder, teacher, _once(texts), kept=kept, max_bytes=self.cache_max_bytes)

    def _train(self, bench: Workbench, objective: Distillation, sets: Sequence[Text | FromCache]) -> dict[str, Any]:
        data, *validation = sets
        material = Material(
            data=data,
            steps=self._windows // self.batch,
            tokens_per_step=self.batch * self.window,
            validation=validation[0] if validation else None,
            validate_every=self.validate_every,
        )
        return self.train(bench, objective, material)

    @property
    def _windows(self) -> int:
        """How many windows are read, again and again ones included."""
        return math.ceil(self.tokens / (self.batch * self.window)) * self.batch

    def _teacher(self, bench: Workbench) -> PreTrainedModel | None:
        """Return a copy of the teacher to compute with, if any loss compares with one."""
        if not any(loss.compares for loss in self.losses.values()):
            return None
        device = bench.student.device
        teacher = bench.teacher if self.teacher is None else self._other_teacher(bench)
        dtype = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
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
        if tokenizer is not None and tokenizer.get_vocab() != bench.tokenizer.get_vocab():
            raise KronpressError(
                f"the tokenizer of the teacher '{self.teacher}' numbers words otherwise than the student's; "
                "choose a teacher with the same tokenizer"
            )
        return teacher

    def _check_window(self, model: PreTrainedModel) -> None:
        limit = position_limit(model)
        ends = 0 if family_of(model).causal else 2  # [CLS] and [SEP]
        if limit is not None and self.window + ends > limit:
            raise KronpressError(
                f"a window of {self.window} is too long for {type(model).__name__}, which sees {limit} tokens; "
                f"set window to {limit - ends} or less"
            )

    def _check_logits(self, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
        names = [name for name, loss in self.losses.items() if isinstance(loss, LogitLoss)]
        for model in (student, teacher):
            if names and model is not None and head_of(model) is None:
                raise KronpressError(
                    f"the loss {names[0]} needs a language-model head, and {type(model).__name__} has none; "
                    f"use losses of layers, such as hidden, or a model with its head"
                )
        if names and teacher is not None:
            ours, theirs = (int(model.config.get_text_config().vocab_size) for model in (student, teacher))
            if ours != theirs:
                raise KronpressError(
                    f"the student has {ours} words and the teacher {theirs}; distillation needs the same vocabulary"
                )

    def _texts(self, bench: Workbench, windows: Int[Tensor, "windows tokens"]) -> list[Text]:
        """Return the text to train on, in the order of the training, and the validation text if there is any."""
        texts = [self._text(bench, windows, order=epochs_of(len(windows), count=self._windows, seed=bench.seed))]
        if self.validate_every is not None:
            held_out = bench.held_out_windows(size=self.window, count=self.validation_windows)
            texts.append(self._text(bench, held_out, order=torch.arange(len(held_out))))
        return texts

    def _text(self, bench: Workbench, windows: Int[Tensor, "windows tokens"], *, order: Int[Tensor, " count"]) -> Text:
        if family_of(bench.student).causal:
            return NextToken(windows, order)
        guessed = any(isinstance(loss, LogitLoss) for loss in self.losses.values())
        frame = Frame.of(bench.student, bench.tokenizer)
        return EncoderText(windows, order, frame, seed=bench.seed, guessed=guessed)


def _once(texts: Sequence[Text]) -> ConcatDataset[dict[str, Tensor]]:
    """Return every example of the texts once."""
    return ConcatDataset([text.distinct()[0] for text in texts])


def parse_losses(value: Any) -> dict[str, Loss]:
    """Read losses as a recipe gives them: a name, or a mapping of labels to fields or weights.

    Raises:
        KronpressError: an unknown loss, or fields that are not its own.
    """
    given = {value: {}} if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise KronpressError(f"losses is {value!r}; give a mapping of {', '.join(LOSSES)} to their fields")
    losses = {}
    for label, fields in given.items():
        known = {"weight": fields} if isinstance(fields, int | float) else fields or {}
        losses[str(label)] = parse_named(known, LOSSES, key=f"losses.{label}", default=str(label))
    return losses
