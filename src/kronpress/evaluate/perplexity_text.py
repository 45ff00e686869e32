"""A text and the protocols by which perplexity is measured on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.data import Corpus, require_known, tokenize
from kronpress.data import windows as windows_of
from kronpress.evaluate.perplexity import PROTOCOLS, PerplexityProtocol, longest_protocol
from kronpress.families import position_limit
from kronpress.precision import number_format
from kronpress.records import Perplexity, Record

_FIDELITY_WINDOWS, _FIDELITY_SIZE = 64, 128

R = TypeVar("R", bound=Record)


@runtime_checkable
class Recall(Protocol):
    """Looks up what was measured under a key before, or measures it."""

    def __call__(self, key: str, kind: type[R], measure: Callable[[], R], /) -> R:
        """Return the record."""


@dataclass(frozen=True)
class PerplexityText:
    """A text to measure perplexity on.

    Attributes:
        protocols: None for tokens-512, or tokens-N with the N tokens that the models see.
        max_windows: measure the first windows only.
    """

    corpus: Corpus
    protocols: tuple[PerplexityProtocol, ...] | None = None
    max_windows: int | None = None

    def fitting(self, *models: PreTrainedModel) -> PerplexityText:
        """Return the text with protocols that suit all models, where none are named."""
        return self if self.protocols is not None else replace(self, protocols=(PROTOCOLS[longest_protocol(*models)],))

    def measure(self, model: PreTrainedModel, tokenizer: Any, *, recall: Recall) -> list[Perplexity]:
        """Measure a model by each protocol; the results name the text without its folders."""
        name, precision = self.corpus.name, number_format(model.device).name

        def measured(protocol: PerplexityProtocol) -> Perplexity:
            result = protocol.measure(model, tokenizer, self.corpus, name=name, max_windows=self.max_windows)
            return replace(result, text=Path(name).name)

        return [
            recall(
                f"{protocol.name}/{self.corpus.fingerprint}/{self.max_windows}/{precision}",
                Perplexity,
                partial(measured, protocol),
            )
            for protocol in self.protocols or ()
        ]

    def check(self, model: PreTrainedModel, tokenizer: Any) -> None:
        """Measure a window by each protocol.

        Raises:
            KronpressError: model, text and protocol do not fit together.
        """
        for protocol in self.fitting(model).protocols or ():
            protocol.measure(model, tokenizer, self.corpus, name=self.corpus.name, max_windows=1, progress=False)

    def fidelity_windows(self, model: PreTrainedModel, tokenizer: Any) -> Int[Tensor, "windows tokens"]:
        """Return windows on which two models' outputs are compared.

        Raises:
            KronpressError: the text is too short, or has tokens that the model does not know.
        """
        size = min(_FIDELITY_SIZE, position_limit(model) or _FIDELITY_SIZE)
        ids = tokenize(self.corpus, tokenizer, limit=size * _FIDELITY_WINDOWS)
        require_known(ids, tokenizer, model=model)
        return windows_of(ids, size=size, name=self.corpus.name)
