"""What trimming a vocabulary did."""

from __future__ import annotations

from dataclasses import dataclass

from kronpress.records.codec import Record


@dataclass(frozen=True)
class TrimRecord(Record):
    """A vocabulary before and after.

    Attributes:
        text: the name of the text that it was trimmed to.
        tokens: that the model knew.
        used: of these in the text.
        kept: that the model knows now.
        parameters_before: of the whole model.
        parameters: of the trimmed one.
        compared: lines of the text that both tokenizers have cut, all of whose tokens stay; each was cut alike.
        bytes: of the held-out text on which the next two are counted.
        tokens_before: into which the tokenizer cut it.
        tokens_after: into which the trimmed one cuts it.
    """

    text: str
    tokens: int
    used: int
    kept: int
    parameters_before: int
    parameters: int
    compared: int
    bytes: int
    tokens_before: int
    tokens_after: int
