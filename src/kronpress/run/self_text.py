"""How a model writes text itself, as a recipe says it."""

from __future__ import annotations

from pydantic import Field

from kronpress.validation import Checked

SELF = "self"
"""The source of a text that the model of a run writes."""


class SelfText(Checked):
    """How much the model writes, and how.

    Every token is drawn from the model's own distribution (LLM-QAT, Liu et al., 2023, section 2.1, draws the first ones
    greedily). A document begins with `<|endoftext|>`, which stands between documents in what many models learned from,
    or with bos, or with eos, whichever the tokenizer has first. A model with a chat template writes every second batch
    as chats, the user's part included (Magpie, Xu et al., 2024).

    Attributes:
        tokens: in all, rounded up to whole batches of 32 texts.
        length: tokens of each text, or as many as the model sees.
        temperature: by which logits are divided; below 1 the text is less varied.
        top_p: the probability of the likeliest tokens that are drawn from.
        seed: of the drawing.
    """

    tokens: int = Field(default=65536, ge=1, le=2**24)
    length: int = Field(default=512, ge=8)
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
