"""What the steps that train a language model on text have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from pydantic import Field, SerializeAsAny, field_validator, model_validator
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from kronpress import processes
from kronpress.activations.attention import training_attention
from kronpress.adapters import ADAPTERS, Adapters, adapted, require_adaptable
from kronpress.data import TextWindows
from kronpress.errors import KronpressError, did_you_mean
from kronpress.families import family_of, layout, window_of
from kronpress.losses import LogitLoss, Loss
from kronpress.records import AdapterRecord, TrainingRecord
from kronpress.step import Workbench
from kronpress.train.compiled import compiled_blocks
from kronpress.train.language_objective import Distillation
from kronpress.train.step import TrainingStep
from kronpress.train.text import EncoderText, Frame, NextToken, Taught, Text, epochs_of
from kronpress.train.training import Material, train
from kronpress.validation import parse_named


class LanguageStep(TrainingStep):
    """A step that trains on the recipe's text, which is packed, so that no token is padding.

    A decoder predicts the next token. An encoder reads one segment or two, and guesses masked tokens if any loss is
    one of predictions; next-sentence prediction is not learned.

    Attributes:
        tokens: training tokens; the text is read again, in another order, where it is shorter.
        epochs: how often the whole text is read, in place of `tokens`.
        dropout: none by default: noise in the student is noise in every loss between activations, and hardly a text is
            read often enough to be learned by heart.
        window: tokens of text per training window, 512 by default, or as many as the student sees beside special
            tokens.
        frozen: roles of layers that do not learn: those of sites, such as `embedding`, and `positions`.
        validate_every: steps between measurements on held-out text; never by default.
        validation_windows: of that text.
        adapters: let these learn in place of the student's own numbers, and merge them at the end; by name, or as a
            mapping with `name` and fields.
        compile: let torch.compile translate the blocks; pays where a run is long and a C++ compiler or GPU is there.
    """

    tokens: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    dropout: float | None = Field(default=0.0, ge=0, lt=1)
    window: int | None = Field(default=None, ge=2)
    frozen: tuple[str, ...] = ()
    adapters: SerializeAsAny[Adapters] | None = None
    validate_every: int | None = Field(default=None, ge=1)
    validation_windows: int = Field(default=16, ge=1)
    compile: bool = False

    @model_validator(mode="after")
    def _is_as_long_as_one_says(self) -> LanguageStep:
        if (self.tokens is None) is (self.epochs is None):
            raise KronpressError("say how long to train: either tokens, or epochs over the whole text")
        return self

    @field_validator("adapters", mode="before")
    @classmethod
    def _named_adapters(cls, value: Any) -> Adapters | None:
        chosen: Adapters | None = None if value is None else parse_named(value, ADAPTERS, key="adapters")
        return chosen

    def unread(self) -> dict[str, str]:
        """Return what belongs to a validation that is not asked for, or to layers that do not learn anyway."""
        unused = {}
        if self.validate_every is None:
            unused["validation_windows"] = "set validate_every, or leave it out"
        if self.adapters is not None:
            unused["frozen"] = "adapters leave all layers as they are; name those that take them as its sites"
        return unused

    def check(self, bench: Workbench) -> None:
        """Check that processes can share the batch, and that there are layers to freeze, or to put adapters on."""
        super().check(bench)
        _modules_of(bench.student, self.frozen)
        if self.adapters is not None:
            require_adaptable(bench.student, self.adapters)

    @contextmanager
    def prepared(self, student: PreTrainedModel, *teachers: PreTrainedModel) -> Iterator[None]:
        """Let the models compute as fast as training can, and the frozen layers of the student not learn."""
        still = {
            parameter
            for module in _modules_of(student, self.frozen)
            for parameter in module.parameters()
            if parameter.requires_grad
        }
        models = (student, *teachers)
        with training_attention(*models), compiled_blocks(*models) if self.compile else nullcontext():
            try:
                for parameter in still:
                    parameter.requires_grad_(False)
                yield
            finally:
                for parameter in still:
                    parameter.requires_grad_(True)

    def train(self, bench: Workbench, objective: Distillation, sets: Sequence[Text | Taught]) -> TrainingRecord:
        """Minimize the objective over the text, which comes with the validation text if there is any."""
        window, (data, *validation) = self.window_for(bench.student), sets
        material = Material(
            data=data,
            steps=len(data) // self.batch,
            tokens_per_step=self.batch * window,
            validation=validation[0] if validation else None,
            validate_every=self.validate_every,
        )
        with self._adapters_on(objective.student, seed=bench.seed) as adapters:
            record = train(self.settings, objective, material, folder=bench.folder, seed=bench.seed)
        return replace(record, window=window, adapters=adapters)

    @contextmanager
    def _adapters_on(self, student: PreTrainedModel, *, seed: int) -> Iterator[AdapterRecord | None]:
        """Let adapters alone learn, if the step has any, and all that the student has otherwise."""
        if self.adapters is None:
            yield None
            return
        with adapted(student, self.adapters, seed=seed) as record:
            if processes.is_main():
                tqdm.write(record.told())
            yield record

    def window_for(self, model: PreTrainedModel) -> int:
        """Return the tokens of text in a window, whose special tokens the model must see as well."""
        return window_of(model, self.window, special=special_tokens(model))

    def texts(self, bench: Workbench, losses: Mapping[str, Loss], *, tokens: int | None = None) -> list[Text]:
        """Return the text to train on, in the order of the training, and the validation text if there is any.

        Args:
            bench: has the text.
            losses: say whether tokens are to be guessed.
            tokens: that are looked at; all by default.
        """
        window = self.window_for(bench.student)
        wanted = None if self.tokens is None else self._count(self.tokens, window=window)
        drawn = None if wanted is None else wanted * window
        windows = bench.drawn_windows(size=window, tokens=tokens, drawn=drawn)
        if wanted is None:
            assert self.epochs is not None
            wanted = self._count(math.ceil(self.epochs * len(windows)) * window, window=window)
        order = epochs_of(len(windows), count=wanted, seed=bench.seed)
        texts = [_text(bench, windows, order=order, losses=losses)]
        if self.validate_every is not None:
            held_out = bench.held_out_windows(size=window, count=self.validation_windows)
            texts.append(_text(bench, held_out, order=torch.arange(len(held_out)), losses=losses))
        return texts

    def first_texts(self, bench: Workbench, losses: Mapping[str, Loss]) -> list[Text]:
        """Return the texts as far as a check needs them: no more of the training text than the training reads."""
        window = self.window_for(bench.student)
        tokens = None if self.tokens is None else self._count(self.tokens, window=window) * window
        return self.texts(bench, losses, tokens=tokens)

    def _count(self, tokens: int, *, window: int) -> int:
        """Return how many windows are read, again and again ones included."""
        return math.ceil(tokens / (self.batch * window)) * self.batch


def special_tokens(model: PreTrainedModel) -> int:
    """Return how many special tokens a model reads around a window: the [CLS] and [SEP] of an encoder."""
    return 0 if family_of(model).causal else 2


def _text(
    bench: Workbench,
    windows: TextWindows,
    *,
    order: Int[Tensor, " count"],
    losses: Mapping[str, Loss],
) -> Text:
    if family_of(bench.student).causal:
        return NextToken(windows, order)
    guessed = any(isinstance(loss, LogitLoss) for loss in losses.values())
    frame = Frame.of(bench.student, bench.tokenizer)
    return EncoderText(windows, order, frame, seed=bench.seed, guessed=guessed)


def _modules_of(model: PreTrainedModel, roles: Sequence[str]) -> list[nn.Module]:
    """Return the layers of some roles.

    Raises:
        KronpressError: the model has none of a role.
    """
    plan = layout(model)
    sites = [*plan.sites, *plan.beside]
    for role in roles:
        if role not in {site.role for site in sites}:
            raise KronpressError(f"frozen: {did_you_mean(role, sorted({site.role for site in sites}))}")
    return [model.get_submodule(site.path) for site in sites if site.role in roles]
