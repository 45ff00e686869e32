"""Training text as batches: what the models read, and what they are to predict."""

from __future__ import annotations

import math

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

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
    ) -> None:
        ids = [getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "mask")]
        if None in ids:
            raise KronpressError("the tokenizer has no [CLS], [SEP] or [MASK], which a masked language model needs")
        self.windows, self.order, self.seed, self.words = windows, order, seed, len(tokenizer)
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


def epochs_of(windows: int, *, count: int, seed: int) -> Int[Tensor, " count"]:
    """Return `count` window indices: shuffled epochs over all windows, the last one cut short."""
    generator = torch.Generator().manual_seed(seed)
    passes = math.ceil(count / windows)
    return torch.cat([torch.randperm(windows, generator=generator) for _ in range(passes)])[:count]
