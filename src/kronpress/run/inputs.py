"""What a run works on: the model that it compresses, and its texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import torch
from transformers import PreTrainedModel

from kronpress.checkpoint import load_with_tokenizer
from kronpress.data import Corpus, WeightedText, mix, read_text, split_held_out
from kronpress.data.cleaning import Cleaning
from kronpress.data.sources import source_files
from kronpress.errors import KronpressError
from kronpress.layers import quantized_tensors
from kronpress.run.cleaned import read_cleaned, require_files
from kronpress.run.recipe import TextShare, TextSource, shares_of


@dataclass(frozen=True)
class Texts:
    """What a run trains on and what it measures on, each a text or several with weights.

    Attributes:
        notes: what cleaning took out of the training texts.
    """

    train: Sequence[WeightedText]
    held_out: Sequence[WeightedText]
    notes: Sequence[str] = ()

    @classmethod
    def read(cls, source: TextSource) -> Texts:
        """Read the texts; where no text is held out, the last tenth of each is.

        Raises:
            KronpressError: one of them cannot be read, or two are the same.
        """
        for share in shares_of(source.train).values() if source.clean else ():
            require_files(share.source)
        train, notes = _read(source.train), list[str]()
        for first, second in combinations(train, 2):
            if first.corpus.fingerprint == second.corpus.fingerprint:
                raise KronpressError(
                    f"the training texts '{first.corpus.name}' and '{second.corpus.name}' are the same; name one"
                )
        held_out = None if source.held_out is None else _read(source.held_out)
        for measured, trained in product(held_out or (), train):
            _require_other(measured.corpus, trained.corpus)
        _require_other_files(source)
        if source.clean is not None:
            train, notes = _cleaned(source.train, train, source.clean)
        if held_out is not None:
            return cls(train, held_out, notes)
        halves = [(*split_held_out(text.corpus), text.weight) for text in train]
        return cls(
            [WeightedText(kept, weight) for kept, _, weight in halves],
            [WeightedText(held_out, weight) for _, held_out, weight in halves],
            notes,
        )

    def mixed(self, tokenizer: Any) -> tuple[Corpus, Corpus]:
        """Return the training text and the held-out text, several of either interleaved by their weights."""
        return mix(self.train, tokenizer), mix(self.held_out, tokenizer)


def _read(source: str | Mapping[str, TextShare]) -> list[WeightedText]:
    return [
        WeightedText(replace(read_text(share.source), name=name), share.weight)
        for name, share in shares_of(source).items()
    ]


def _cleaned(
    source: str | Mapping[str, TextShare], raw: Sequence[WeightedText], settings: Cleaning
) -> tuple[list[WeightedText], list[str]]:
    """Return the texts as they are cleaned, and what went of them."""
    texts, notes = [], []
    for (name, share), text in zip(shares_of(source).items(), raw, strict=True):
        corpus, told = read_cleaned(share.source, text.corpus, settings)
        texts.append(WeightedText(replace(corpus, name=name), share.weight))
        notes.append(told)
    return texts, notes


def _require_other_files(source: TextSource) -> None:
    """Check that no file of a held-out text is one of a training text, such as one of its folder.

    Raises:
        KronpressError: one is.
    """
    if source.held_out is None:
        return
    trained, measured = (
        {path.resolve() for share in shares_of(side).values() for path in source_files(share.source)}
        for side in (source.train, source.held_out)
    )
    if both := trained & measured:
        raise KronpressError(
            f"the held-out text has the file '{min(both)}', which is trained on too, and that would flatter the "
            "result; leave it out of one of them"
        )


def _require_other(held_out: Corpus, train: Corpus) -> None:
    if held_out.fingerprint == train.fingerprint:
        raise KronpressError(
            f"the held-out text '{held_out.name}' is the training text '{train.name}', which would flatter the result; "
            "name another, or none, and the last tenth is held out"
        )


def open_model(name: str) -> tuple[PreTrainedModel, Any]:
    """Return the model of a recipe, as it is stored, and its tokenizer.

    Raises:
        KronpressError: there is no such model, or no tokenizer beside it.
    """
    model, tokenizer = load_with_tokenizer(name)
    if tokenizer is None:
        raise KronpressError(f"the model '{name}' has no readable tokenizer beside it; add its tokenizer files")
    return model, tokenizer


def computing_device() -> torch.device:
    """Return where models compute: the GPU of this process, if there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def ready(model: PreTrainedModel, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Move a model to where it computes, with parameters of `dtype`."""
    module: torch.nn.Module = model
    module.to(computing_device())
    for parameter in module.parameters():  # buffers, such as rotary frequencies, stay precise
        parameter.data = parameter.data.to(dtype)
    for tensor in quantized_tensors(model):
        tensor.give(dtype)
    return model
