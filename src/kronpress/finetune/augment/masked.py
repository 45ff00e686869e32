"""Words that a masked language model expects where another stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.bars import Bar
from kronpress.checkpoint import load_with_tokenizer
from kronpress.checkpoint.digests import weights_digest
from kronpress.errors import KronpressError
from kronpress.families import position_limit, vocabulary_size
from kronpress.finetune.augment.word_source import WholeWords, without_itself
from kronpress.finetune.augment.words import Word
from kronpress.precision import mixed_precision
from kronpress.tasks import Feature, collate
from kronpress.tasks.batches import by_length
from kronpress.tasks.predict import TOKENS_PER_BATCH


class MaskedModel:
    """The whole words that a masked language model finds most probable; none for words of several tokens.

    Args:
        source: a folder or hub id.
        device: where the model is run.

    Raises:
        KronpressError: it is no masked language model, or its tokenizer cannot tell where in a text a token stands.
    """

    def __init__(self, source: str, device: torch.device) -> None:
        self.model, self.tokenizer = load_with_tokenizer(source)
        _require_masked(source, self.model, self.tokenizer)
        module: nn.Module = self.model
        module.to(device)
        self.vocabulary = WholeWords.of(self.tokenizer, size=min(len(self.tokenizer), vocabulary_size(self.model)))

    def digest(self) -> str:
        """Return what tells the model from others."""
        return weights_digest(self.model)

    def offers(self, words: Sequence[Word], *, count: int) -> list[tuple[str, ...]]:
        """Return what may stand in the place of each word, masked by itself; nothing for a word of several tokens."""
        masked = self._masked(words)
        offers: dict[int, tuple[str, ...]] = {}
        lengths = [len(feature.ids) for feature, _ in masked]
        with torch.inference_mode(), mixed_precision(self.model.device), self._bar(len(masked)) as bar:
            for rows in by_length(lengths, tokens=TOKENS_PER_BATCH):
                features = [masked[row][0] for row in rows]
                likeliest = self._likeliest(features, [masked[row][1] for row in rows], count=count + 1)
                for feature, others in zip(features, likeliest, strict=True):
                    named = [self.vocabulary.words[place] for place in others]
                    offers[feature.example] = without_itself(str(words[feature.example]), named, count=count)
                bar.update(len(rows))
        return [offers.get(index, ()) for index in range(len(words))]

    @staticmethod
    def _bar(total: int) -> Bar:
        return Bar(total=total, desc="masked words", unit="word", leave=False)

    def _masked(self, words: Sequence[Word]) -> list[tuple[Feature, int]]:
        """Return what the model reads for each word that is one token, with that token masked, and its place."""
        texts = {text: row for row, text in enumerate(dict.fromkeys(word.text for word in words))}
        if not texts:
            return []
        limit = position_limit(self.model)
        encoded = self.tokenizer(
            list(texts), return_offsets_mapping=True, truncation=limit is not None, max_length=limit
        )
        masked = []
        for index, word in enumerate(words):
            ids, offsets = encoded["input_ids"][texts[word.text]], encoded["offset_mapping"][texts[word.text]]
            places = [place for place, (start, end) in enumerate(offsets) if start < word.end and end > word.start]
            if len(places) == 1:
                (place,) = places
                with_mask = (*ids[:place], int(self.tokenizer.mask_token_id), *ids[place + 1 :])
                masked.append((Feature(with_mask, None, (), index), place))
        return masked

    def _likeliest(self, features: Sequence[Feature], places: Sequence[int], *, count: int) -> list[list[int]]:
        """Return the most probable whole words at one place of each feature, by their numbers in the vocabulary."""
        device = self.model.device
        inputs = collate(features, pad=int(self.tokenizer.pad_token_id))
        with _only_at(self.model, torch.tensor(places, device=device)):
            logits = self.model(**{name: value.to(device) for name, value in inputs.items()}).logits[:, 0]
        words = logits[:, torch.tensor(self.vocabulary.ids, device=device)]
        likeliest: list[list[int]] = words.topk(min(count, words.shape[1])).indices.tolist()
        return likeliest


@contextmanager
def _only_at(model: PreTrainedModel, places: Int[Tensor, " batch"]) -> Iterator[None]:
    """Let the head of a model see one token of each row: (batch, tokens, dim) → (batch, 1, dim)."""

    def keep(module: nn.Module, inputs: Any, output: Any) -> Any:
        states = output.last_hidden_state
        output["last_hidden_state"] = states[torch.arange(len(states), device=states.device), places][:, None]
        return output

    core: Any = model.base_model
    handle = core.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _require_masked(source: str, model: PreTrainedModel, tokenizer: Any) -> None:
    if not type(model).__name__.endswith("ForMaskedLM"):
        raise KronpressError(
            f"augment: '{source}' is a {type(model).__name__} and no masked language model; name one under model, or "
            "leave it out, and neighbors in the token table take its place"
        )
    if tokenizer is None or not tokenizer.is_fast or None in (tokenizer.mask_token_id, tokenizer.pad_token_id):
        raise KronpressError(
            f"augment: '{source}' has no tokenizer.json with tokens for mask and padding beside it; add it"
        )
