"""Sets of texts under a name: a model is measured on each, and two models are compared on all of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from transformers import PreTrainedModel

from kronpress.data import read_text, read_utf8, split_held_out, user_path
from kronpress.errors import KronpressError, shown
from kronpress.evaluate.perplexity import PROTOCOLS
from kronpress.evaluate.perplexity_text import PerplexityText, Recall
from kronpress.notation import read_yaml
from kronpress.records import SetPerplexity, TextSetScore
from kronpress.validation import Checked, parse

_DIGITS = 12  # of the SHA-256 of a text: what is printed to tell it from others


class TextOfSet(Checked):
    """One text of a set, as the file of the set gives it.

    Attributes:
        source: a file, a folder, a pattern, several joined by commas, or `bundled:NAME`; paths start from the folder
            of the set's file.
        held_out: measure the last part of the text only, of this share of it: what a run holds out of the same text.
        windows: measure the first windows only.
        protocol: of perplexity.
    """

    source: str
    held_out: float | None = Field(default=None, gt=0, lt=1)
    windows: int | None = Field(default=None, ge=1)
    protocol: str = "tokens-512"

    @field_validator("protocol")
    @classmethod
    def _known(cls, name: str) -> str:
        return PROTOCOLS[name].name

    def read(self, name: str, *, folder: Path) -> PerplexityText:
        """Read the text, which results call `name`.

        Raises:
            KronpressError: it cannot be read.
        """
        corpus = read_text(self.source, folder=folder)
        if self.held_out is not None:
            corpus = split_held_out(corpus, fraction=self.held_out)[1]
        return PerplexityText(replace(corpus, name=name), (PROTOCOLS[self.protocol],), self.windows)


class TextSetFile(Checked):
    """What the file of a set holds: the name of the set, and its texts by theirs."""

    name: str
    texts: dict[str, TextOfSet]

    @field_validator("texts", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not value or not all(isinstance(fields, dict) for fields in value.values()):
            raise KronpressError(f"texts is {shown(value)}; give each text as NAME: {{source: …}}")
        if "general" in value:
            raise KronpressError("texts: a text is called general, as the mean over all is; choose another name")
        return {name: parse(TextOfSet, fields, place=f"texts.{name[:80]}") for name, fields in value.items()}


@dataclass(frozen=True)
class TextSet:
    """Texts under a name, each with a name of its own, in the order of their file."""

    name: str
    texts: tuple[PerplexityText, ...]

    @classmethod
    def read(cls, path: str | Path) -> TextSet:
        """Read the file of a set, and its texts.

        Raises:
            KronpressError: it is missing or malformed, or a text cannot be read.
        """
        file = user_path(str(path))
        remedy = "name the YAML file of a set of texts"
        content = read_yaml(read_utf8(file, remedy=remedy), place=str(file))
        if not isinstance(content, dict):
            raise KronpressError(f"{file} must hold a mapping with the keys {', '.join(TextSetFile.model_fields)}")
        given = parse(TextSetFile, content, place=f"text set {file.name}")
        return cls(given.name, tuple(text.read(name, folder=file.parent) for name, text in given.texts.items()))

    @property
    def fingerprint(self) -> str:
        """What tells the texts and how they are measured from others."""
        facts = [
            (text.corpus.name, text.corpus.fingerprint, [protocol.name for protocol in text.protocols or ()])
            for text in self.texts
        ]
        windows = [text.max_windows for text in self.texts]
        return hashlib.sha256(json.dumps([self.name, facts, windows]).encode()).hexdigest()

    def measure(self, model: PreTrainedModel, tokenizer: Any, *, recall: Recall) -> TextSetScore:
        """Measure a model on each text."""
        scores = []
        for text in self.texts:
            (perplexity,) = text.measure(model, tokenizer, recall=recall)
            name = text.corpus.name  # another when it was measured under another name before
            scores.append(SetPerplexity(name, text.corpus.fingerprint[:_DIGITS], replace(perplexity, text=name)))
        return TextSetScore(self.name, tuple(scores))

    def check(self, model: PreTrainedModel, tokenizer: Any) -> None:
        """Measure a window of each text.

        Raises:
            KronpressError: model, texts and protocols do not fit together.
        """
        for text in self.texts:
            text.check(model, tokenizer)
