"""Training text as batches: what the models read, and what they are to predict."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from kronpress.distill.cache import TeacherCache
from kronpress.distill.losses import IGNORED
from kronpress.errors import KronpressError

_MASKED, _TO_MASK, _TO_RANDOM = 0.15, 0.8, 0.1


class NextToken(Dataset[dict[str, Tensor]]):
    """Windows of text, each token labeled with the one after it."""

    def __init__(self, windows: Int[Tensor, "windows tokens"], order: Int[Tensor, " count"]) -> None:
        self.windows, self.order = windows, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = self.windows[self.order[index]]
        return {"input_ids": ids, "labels": torch.cat([ids[1:], ids.new_tensor([IGNORED])])}

    def distinct(self) -> tuple[NextToken, Int[Tensor, " count"]]:
        """Return the examples without repetition, and which of them stands at each place."""
        used, rows = self.order.unique(return_inverse=True)
        return NextToken(self.windows, used), rows


class MaskedTokens(Dataset[dict[str, Tensor]]):
    """Windows between [CLS] and [SEP] of which 15 % of the tokens are to be guessed (Devlin et al., 2019, 3.1).

    Of these 80 % are replaced by [MASK], 10 % by a random word and 10 % left. Which ones depends on the seed and the
    place in the training alone, so that an interrupted training goes on with the same; their number is the same in
    every window, so that the mean over a batch does not depend on how processes share it.
    """

    def __init__(
        self,
        windows: Int[Tensor, "windows tokens"],
        order: Int[Tensor, " count"],
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int,
        words: int,
    ) -> None:
        ids = [getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "mask")]
        if None in ids:
            raise KronpressError("the tokenizer has no [CLS], [SEP] or [MASK], which a masked language model needs")
        self.windows, self.order, self.seed, self.words = windows, order, seed, words
        self.cls, self.sep, self.mask = ids

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        ids = self.windows[self.order[index]].clone()
        labels = torch.full_like(ids, IGNORED)
        chosen = torch.randperm(len(ids), generator=generator)[: max(1, round(_MASKED * len(ids)))]
        labels[chosen] = ids[chosen]
        fate = torch.rand(len(chosen), generator=generator)
        words = torch.randint(self.words, (len(chosen),), generator=generator)
        ids[chosen] = torch.where(
            fate < _TO_MASK, self.mask, torch.where(fate < _TO_MASK + _TO_RANDOM, words, ids[chosen])
        )
        ends = [ids.new_tensor([self.cls]), ids.new_tensor([self.sep])]
        nothing = ids.new_tensor([IGNORED])
        return {"input_ids": torch.cat([ends[0], ids, ends[1]]), "labels": torch.cat([nothing, labels, nothing])}

    def distinct(self) -> tuple[MaskedTokens, Int[Tensor, " count"]]:
        """Return the examples without repetition, and which of them stands at each place: masked anew, all differ."""
        return self, torch.arange(len(self))


Text: TypeAlias = NextToken | MaskedTokens


class FromCache(Dataset[dict[str, Tensor]]):
    """Examples together with the teacher's predictions from a cache, where they begin at row `first`."""

    def __init__(self, text: Text, cache: TeacherCache, *, first: int = 0) -> None:
        self.text, self.cache, self.rows = text, cache, text.distinct()[1] + first

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        example = self.text[index]
        words, log_probabilities = self.cache[int(self.rows[index])]
        places = self.cache.key.kept.places(example)
        every = {"cached_words": words, "cached_log_probabilities": log_probabilities}
        return example | {name: _spread(value, places) for name, value in every.items()}


def _spread(values: Shaped[Tensor, "some n"], places: Bool[Tensor, " tokens"]) -> Shaped[Tensor, "tokens n"]:
    """Put the values at their places, and zeros elsewhere."""
    if bool(places.all()):
        return values
    spread = values.new_zeros(len(places), values.shape[1])
    spread[places] = values
    return spread


def epochs_of(windows: int, *, count: int, seed: int) -> Int[Tensor, " count"]:
    """Return `count` window indices: shuffled epochs over all windows, the last one cut short."""
    generator = torch.Generator().manual_seed(seed)
    passes = math.ceil(count / windows)
    return torch.cat([torch.randperm(windows, generator=generator) for _ in range(passes)])[:count]
