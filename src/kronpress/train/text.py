"""Training text as batches: what the models read, and what they are to predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kronpress.data import TextWindows, require_known
from kronpress.errors import KronpressError
from kronpress.losses import IGNORED
from kronpress.teacher.text_outputs import StoredText

_MASKED, _TO_MASK, _TO_RANDOM = 0.15, 0.8, 0.1


class NextToken(Dataset[dict[str, Tensor]]):
    """Windows of text, each token labeled with the one after it."""

    def __init__(self, windows: TextWindows, order: Int[Tensor, " count"]) -> None:
        self.windows, self.order = windows, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = self.windows[int(self.order[index])]
        return {"input_ids": ids, "labels": torch.cat([ids[1:], ids.new_tensor([IGNORED])])}

    def distinct(self) -> tuple[NextToken, Int[Tensor, " count"]]:
        """Return the examples without repetition, and which of them stands at each place."""
        used, rows = self.order.unique(return_inverse=True)
        return NextToken(self.windows, used), rows


@dataclass(frozen=True)
class Frame:
    """What an encoder reads around the tokens of a text and in their place.

    Attributes:
        cls: id of the token before all.
        sep: id of the token after each segment.
        mask: id of the token in place of one to be guessed.
        ordinary: ids of the ordinary tokens, which are guessed and stand in for others: those of the tokenizer that are
            not special and that the model knows.
        segments: kinds of segments that the model tells apart.
    """

    cls: int
    sep: int
    mask: int
    ordinary: tuple[int, ...]
    segments: int = 1

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Frame:
        """Return the frame of a model.

        Raises:
            KronpressError: the tokenizer lacks one of the three tokens.
        """
        before, after, mask = (getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "mask"))
        if None in (before, after, mask):
            raise KronpressError("the tokenizer has no [CLS], [SEP] or [MASK], which an encoder reads around its text")
        require_known(torch.tensor([before, after, mask]), tokenizer, model=model)
        config = model.config.get_text_config()
        special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        others = set(tokenizer.get_vocab().values()) - special - set(tokenizer.all_special_ids)
        ordinary = tuple(sorted(token for token in others if token < config.vocab_size))
        return cls(before, after, mask, ordinary, getattr(config, "type_vocab_size", 1))


class EncoderText(Dataset[dict[str, Tensor]]):
    """Windows between [CLS] and [SEP], as BERT reads text in its pre-training (Devlin et al., 2019, 3.1).

    Where the model tells segments apart, half of the windows are two segments, a token at a random place having given
    way to another [SEP]. Where tokens are to be `guessed`, these are 15 %, of which 80 % are replaced by [MASK], 10 %
    by a random token and 10 % left. Special tokens in the text are never replaced, and guessed only where a window has
    too few others. All of it depends on the seed and the place in the training alone, so that an interrupted training
    goes on with the same; the number of guesses is the same in every window, so that the mean over a batch does not
    depend on how processes share it.
    """

    def __init__(
        self,
        windows: TextWindows,
        order: Int[Tensor, " count"],
        frame: Frame,
        *,
        seed: int,
        guessed: bool = True,
    ) -> None:
        self.windows, self.order, self.frame, self.seed, self.guessed = windows, order, frame, seed, guessed
        self._ordinary = torch.tensor(frame.ordinary)
        self._is_ordinary = torch.zeros(2 + int(self._ordinary.max()), dtype=torch.bool)  # the last is for all above
        self._is_ordinary[self._ordinary] = True

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        ids = self.windows[int(self.order[index])].clone()
        cut = self._cut(len(ids), generator)
        labels = self._guesses(ids, generator, cut=cut) if self.guessed else torch.full_like(ids, IGNORED)
        ends, nothing = ids.new_tensor([self.frame.cls, self.frame.sep]), ids.new_tensor([IGNORED])
        ids = torch.cat([ends[:1], ids, ends[1:]])
        ids[1 + cut] = self.frame.sep
        example = {"input_ids": ids, "labels": torch.cat([nothing, labels, nothing])}
        if self.frame.segments > 1:
            example["token_type_ids"] = (torch.arange(len(ids)) > 1 + cut).long()
        return example

    def _cut(self, tokens: int, generator: torch.Generator) -> int:
        """Draw which token of a window gives way to a [SEP], with one or more on either side; else the window's end."""
        pair, place = torch.rand(2, generator=generator).tolist()
        return 1 + int(place * (tokens - 2)) if self.frame.segments > 1 and pair < 0.5 and tokens > 2 else tokens

    def _guesses(self, ids: Int[Tensor, " tokens"], generator: torch.Generator, *, cut: int) -> Int[Tensor, " tokens"]:
        """Mask some tokens in place, but not the one at the cut, and return what they were, as labels."""
        labels = torch.full_like(ids, IGNORED)
        places = torch.randperm(len(ids), generator=generator)
        places = places[places != cut]
        ordinary_first = (~self._ordinary_ones(ids[places])).to(torch.uint8).argsort(stable=True)
        chosen = places[ordinary_first][: max(1, round(_MASKED * len(ids)))]
        labels[chosen] = own = ids[chosen]
        fate = torch.rand(len(chosen), generator=generator)
        others = self._ordinary[torch.randint(len(self._ordinary), (len(chosen),), generator=generator)]
        changed = torch.where(fate < _TO_MASK, self.frame.mask, others)
        ids[chosen] = torch.where(self._ordinary_ones(own) & (fate < _TO_MASK + _TO_RANDOM), changed, own)
        return labels

    def _ordinary_ones(self, ids: Int[Tensor, " tokens"]) -> Bool[Tensor, " tokens"]:
        return self._is_ordinary[ids.clamp(max=len(self._is_ordinary) - 1)]

    def distinct(self) -> tuple[EncoderText, Int[Tensor, " count"]]:
        """Return the examples without repetition, and which of them stands at each place: cut anew, all differ."""
        return self, torch.arange(len(self))


Text: TypeAlias = NextToken | EncoderText


class Taught(Dataset[dict[str, Tensor]]):
    """Examples together with what a stored teacher said of them, where they begin at row `first` of what it stored."""

    def __init__(self, text: Text, teacher: StoredText, *, first: int = 0) -> None:
        self.text, self.teacher, self.rows = text, teacher, text.distinct()[1] + first

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        example = self.text[index]
        return example | self.teacher.said_of(example, row=int(self.rows[index]))


def epochs_of(windows: int, *, count: int, seed: int) -> Int[Tensor, " count"]:
    """Return `count` window indices: shuffled epochs over all windows, the last one cut short."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(count, dtype=torch.int32)  # half of what torch.randperm takes
    for start in range(0, count, windows):
        order[start : start + windows] = torch.randperm(windows, generator=generator)[: count - start]
    return order
