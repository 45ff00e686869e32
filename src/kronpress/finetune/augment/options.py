"""What a recipe says of the augmentation of a training set."""

from __future__ import annotations

from pydantic import Field

from kronpress.validation import Checked


class Augment(Checked):
    """Copies of each training example with some of their words replaced (Jiao et al., 2020, Algorithm 1).

    Attributes:
        copies: of each example; those that are like another are left out. In a pair each changes one text, in turn.
        probability: that a word is replaced, other than stop words and what has digits in it.
        candidates: how many words stand for each to choose from.
        model: a masked language model, a folder or hub id, which names the candidates of words that are one token to
            it. Those of all others, and of all where there is none, are the nearest in the token table of the recipe's
            model.
    """

    copies: int = Field(default=20, ge=1)
    probability: float = Field(default=0.4, gt=0, le=1)
    candidates: int = Field(default=15, ge=1)
    model: str | None = None
