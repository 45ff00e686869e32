"""Make copies of examples with some words replaced, once, and keep them in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from kronpress import processes
from kronpress.bars import Bar
from kronpress.checkpoint import files
from kronpress.finetune.augment.masked import MaskedModel
from kronpress.finetune.augment.neighbors import Neighbors
from kronpress.finetune.augment.options import Augment
from kronpress.finetune.augment.word_source import WordSource
from kronpress.finetune.augment.words import Word, replaceable, replaced
from kronpress.tasks import Example, without

_FORMAT = 1


@dataclass(frozen=True)
class Augmented:
    """Copies of examples with some of their words replaced.

    Attributes:
        examples: with the labels of those that they are copies of.
        fingerprint: of all that they depend on.
    """

    examples: Sequence[Example]
    fingerprint: str


@dataclass(frozen=True)
class Augmentation:
    """How copies are made, and where their words come from.

    Attributes:
        options: what the recipe says.
        sources: of words; the first that has any for a word is believed.
        seed: of all draws.
    """

    options: Augment
    sources: Sequence[WordSource]
    seed: int

    @classmethod
    def of(
        cls, options: Augment, model: PreTrainedModel, tokenizer: Any, *, seed: int, device: torch.device
    ) -> Augmentation:
        """Open what the options name.

        Args:
            options: what the recipe says.
            model: whose token table has the neighbors.
            tokenizer: that of `model`.
            seed: of all draws.
            device: where a masked language model is run.

        Raises:
            KronpressError: what they name is no masked language model, or has too few words.
        """
        sources: list[WordSource] = [Neighbors(model, tokenizer)]
        if options.model is not None:
            sources.insert(0, MaskedModel(options.model, device))
        what = "the recipe's model" if options.model is None else f"'{options.model}'"
        sources[0].vocabulary.require(options.candidates, what=what)
        return cls(options, sources, seed)

    def augmented(self, examples: Sequence[Example], *, unseen: Sequence[Example], file: Path) -> Augmented:
        """Make the copies, or read those that lie in the file. All processes call it.

        Args:
            examples: to copy.
            unseen: what no copy may equal, for models are selected by or scored on it.
            file: keeps them for a run that goes on; where it holds others or is damaged it is written anew.

        Raises:
            OSError: the disk is full.
        """
        fingerprint = self._fingerprint(examples, unseen)

        def write() -> None:
            if _read(file, fingerprint) is None:
                _write(file, fingerprint, without(list(self.copies(examples)), unseen))

        processes.from_main(write)
        return Augmented(_read(file, fingerprint) or (), fingerprint)

    def copies(self, examples: Sequence[Example]) -> Iterator[Example]:
        """Yield the copies of each example that differ from it and from one another."""
        words = list(dict.fromkeys(word for _, _, drawn in self._drawn(examples) for word in drawn))
        offers = dict(zip(words, self._offers(words), strict=True))
        last, seen = -1, set[tuple[str, str | None]]()
        total = len(examples) * self.options.copies
        for index, part, drawn in Bar(self._drawn(examples), total=total, desc="copies", unit="text", leave=False):
            example = examples[index]
            if index != last:
                last, seen = index, {(example.first, example.second)}
            others = {word: offers[word][int(pick * len(offers[word]))] for word, pick in drawn.items() if offers[word]}
            texts = [example.first, example.second]
            texts[part] = replaced(texts[part] or "", others)
            copy = replace(example, first=texts[0] or "", second=texts[1])
            if (copy.first, copy.second) not in seen:
                seen.add((copy.first, copy.second))
                yield copy

    def _drawn(self, examples: Sequence[Example]) -> Iterator[tuple[int, int, dict[Word, float]]]:
        """Yield for each copy its example, which text of it changes, and the words to replace, each with a number
        between 0 and 1 that picks among its candidates; always the same.
        """
        generator = np.random.default_rng(self.seed)
        for index, example in enumerate(examples):
            parts = [replaceable(text) for text in (example.first, example.second) if text is not None]
            for copy in range(self.options.copies):
                part = copy % len(parts)
                chances, picks = generator.random((2, len(parts[part]))).tolist()
                drawn = zip(parts[part], chances, picks, strict=True)
                yield index, part, {word: pick for word, chance, pick in drawn if chance < self.options.probability}

    def _offers(self, words: Sequence[Word]) -> list[tuple[str, ...]]:
        """Return the candidates for each word, from the first source that has any."""
        offers: list[tuple[str, ...]] = [()] * len(words)
        for source in self.sources:
            missing = [place for place, others in enumerate(offers) if not others]
            more = source.offers([words[place] for place in missing], count=self.options.candidates)
            for place, others in zip(missing, more, strict=True):
                offers[place] = others
        return offers

    def _fingerprint(self, examples: Sequence[Example], unseen: Sequence[Example]) -> str:
        sources = [source.digest() for source in self.sources]
        parts = (_FORMAT, self.options.model_dump(exclude={"model"}), self.seed, sources, list(examples), list(unseen))
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def _write(file: Path, fingerprint: str, examples: Sequence[Example]) -> None:
    body = "".join(json.dumps(astuple(example), ensure_ascii=False) + "\n" for example in examples)
    head = json.dumps({"fingerprint": fingerprint, "sha256": _sha256(body)})
    files.write_text(file, f"{head}\n{body}")


def _read(file: Path, fingerprint: str) -> list[Example] | None:
    """Return the examples of a file; None where there is none, or it is damaged or holds others."""
    try:
        head, _, body = file.read_bytes().decode().partition("\n")
        whole = json.loads(head) == {"fingerprint": fingerprint, "sha256": _sha256(body)}
    except (OSError, ValueError):
        return None
    return [Example(*json.loads(line)) for line in body.split("\n")[:-1]] if whole else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
