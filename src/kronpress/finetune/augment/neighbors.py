"""Words whose rows in a token table point where that of another does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.bars import Bar
from kronpress.checkpoint.digests import tensors_digest
from kronpress.families import vocabulary_size
from kronpress.finetune.augment.word_source import WholeWords, single_tokens, without_itself
from kronpress.finetune.augment.words import Word

_CHUNK = 2**25  # similarities that are in memory at once


class Neighbors:
    """The nearest whole words by the cosine between rows of a model's token table; none for words of several tokens.

    Args:
        model: whose table it is, structured or not.
        tokenizer: its own.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = WholeWords.of(tokenizer, size=min(len(tokenizer), vocabulary_size(model)))
        self.rows = _rows(model, self.vocabulary.ids)

    def digest(self) -> str:
        """Return what tells these rows from others."""
        return tensors_digest([(" ".join(self.vocabulary.words), self.rows)])

    def offers(self, words: Sequence[Word], *, count: int) -> list[tuple[str, ...]]:
        """Return the nearest words, none where a word is not in the table by itself."""
        distinct = list(dict.fromkeys(map(str, words)))
        places = {token: place for place, token in enumerate(self.vocabulary.ids)}
        tokens = single_tokens(distinct, self.tokenizer)
        known = {word: places[token] for word, token in zip(distinct, tokens, strict=True) if token in places}
        nearest = dict(zip(known, self._nearest(list(known.values()), count=count + 1), strict=True))
        offers = {
            word: without_itself(word, [self.vocabulary.words[place] for place in others], count=count)
            for word, others in nearest.items()
        }
        return [offers.get(str(word), ()) for word in words]

    def _nearest(self, places: Sequence[int], *, count: int) -> list[list[int]]:
        """Return the nearest rows to each, itself left out, the nearest first."""
        found: list[list[int]] = []
        size = max(1, _CHUNK // max(1, len(self.rows)))
        with torch.inference_mode(), Bar(total=len(places), desc="nearest words", unit="word", leave=False) as bar:
            for chunk in torch.tensor(places, device=self.rows.device).split(size) if places else ():
                similarities = self.rows[chunk] @ self.rows.T
                similarities.scatter_(1, chunk[:, None], -torch.inf)
                found += similarities.topk(min(count, len(self.rows) - 1)).indices.tolist()
                bar.update(len(chunk))
        return found


@torch.no_grad()
def _rows(model: PreTrainedModel, ids: Sequence[int]) -> Float[Tensor, "words dim"]:
    """Return the rows of some tokens, of length one."""
    table: Any = model.get_input_embeddings()
    module: nn.Module = table
    place = next(module.parameters()).device
    return F.normalize(module(torch.tensor(ids, dtype=torch.long, device=place)).float(), dim=-1)
