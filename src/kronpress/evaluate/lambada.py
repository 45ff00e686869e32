"""LAMBADA: the last word of a passage, which only the whole passage gives away (Paperno et al., 2016)."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kronpress.bars import Bar
from kronpress.data import beginning, read_json_lines, require_characters, require_known, user_path
from kronpress.errors import KronpressError, shown
from kronpress.evaluate.model_checks import evaluating, require_causal
from kronpress.evaluate.perplexity import chunked_nats
from kronpress.families import position_limit
from kronpress.records import LambadaScore

_TOKENS_PER_BATCH = 2048
_LARGEST_EXPONENT = 700.0  # of a float, about


@dataclass(frozen=True)
class Passage:
    """A text whose last word is asked for.

    Attributes:
        context: all before the white space before the last word.
        text: the whole, with the last word.
        place: file and line, for errors.
    """

    context: str
    text: str
    place: str


@dataclass(frozen=True)
class LambadaProtocol:
    """How LAMBADA is measured, as `lambada_openai` of the lm-evaluation-harness does it.

    The target is what follows the last space of a passage, with the white space before it. The whole passage is
    tokenized without special tokens, and the target's tokens are those beyond as many as its context has alone; a
    model that needs it reads the bos token first. The perplexity is the exponential of the mean over passages of the
    nats of all target tokens together; a word is right where every one of its tokens is the most probable one, given
    those before it.

    Published numbers are on the text as OpenAI detokenized it, with capitals and quotation marks as in the books; on
    the lowercase, tokenized original they are others. Krony-PT's column LAMBADA is no such number, but the perplexity
    of whole passages: the protocol `krony-pt-lambada`.
    """

    name: str = "lambada-openai"

    def measure(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        passages: Sequence[Passage],
        *,
        name: str,
        progress: bool = True,
    ) -> LambadaScore:
        """Measure `model` on the passages, which the result calls `name`.

        The model runs in its own dtype and the log-softmax in fp32. A perplexity that overflows or is not a number is
        reported as infinite.

        Raises:
            KronpressError: where model, tokenizer and passages do not fit together, or there are no passages.
        """
        require_causal(model, what="LAMBADA")
        if not passages:
            raise KronpressError(f"'{name}' has no passage to measure; give one or more")
        start = time.perf_counter()
        riddles, cut = _riddles(passages, tokenizer, model)
        nats, right = _nats(model, riddles, progress=progress)
        return LambadaScore(
            protocol=self.name,
            text=name,
            perplexity=_perplexity(float(nats.mean())),
            accuracy=100 * float(right.double().mean()),
            passages=len(passages),
            cut=cut,
            seconds=time.perf_counter() - start,
        )


LAMBADA = LambadaProtocol()


def read_lambada(path: str, *, limit: int | None = None) -> list[Passage]:
    """Read the passages of a .jsonl file, one object a line with its text under `text`, or the first `limit` of them.

    Raises:
        KronpressError: missing, malformed or empty, or a passage of fewer than two words; the message names the line.
    """
    if limit is not None and limit < 1:
        raise KronpressError(f"limit={limit} leaves nothing to measure; use 1 or more, or None for all")
    lines = read_json_lines(user_path(path), remedy="name a .jsonl file of LAMBADA")
    found = [_passage(record, place) for place, record in lines][:limit]
    if not found:
        raise KronpressError(f"'{path}' holds no passage; give a .jsonl file with one object {{\"text\": …}} a line")
    return found


def _passage(record: dict[str, Any], place: str) -> Passage:
    text = record.get("text")
    if not isinstance(text, str):
        raise KronpressError(f"{place}: no field 'text' with a string in it; give {{\"text\": …}} on each line")
    require_characters(text, place=place)
    text = text.rstrip()
    context = text.rpartition(" ")[0].rstrip()
    if not context:
        raise KronpressError(
            f"{place}: {shown(text)} is not two words with a space between them; "
            "give a passage, or remove the line: the last word is guessed from those before it"
        )
    return Passage(context, text, place)


class _Riddle(NamedTuple):
    """The token ids of a passage, given by its index; the last `asked` of them are the last word."""

    ids: list[int]
    asked: int
    passage: int


def _riddles(
    passages: Sequence[Passage], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> tuple[list[_Riddle], int]:
    """Tokenize the passages; return them and how many were cut to what the model sees."""
    texts = [passage.text for passage in passages] + [passage.context for passage in passages]
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    wholes, contexts = encoded[: len(passages)], encoded[len(passages) :]
    limit, begin = position_limit(model), beginning(tokenizer, model=model)
    first = [] if begin is None else [begin]
    require_known(torch.tensor([max(ids, default=0) for ids in wholes]), tokenizer, model=model)
    riddles: list[_Riddle] = []
    cut = 0
    for passage, ids, context in zip(passages, wholes, contexts, strict=True):
        asked = max(1, len(ids) - len(context))
        seen = len(ids) if limit is None else min(len(ids), limit + 1 - len(first))  # the last token is never read
        if asked >= min(len(ids), seen):
            raise KronpressError(
                f"{passage.place}: of {len(ids)} tokens {asked} are the last word's, and {type(model).__name__} "
                f"sees {limit or len(ids)} at most, which leaves nothing to guess it from; remove the line"
            )
        cut += seen < len(ids)
        riddles.append(_Riddle([*first, *ids[len(ids) - seen :]], asked, len(riddles)))
    return riddles, cut


def _nats(
    model: PreTrainedModel, riddles: list[_Riddle], *, progress: bool
) -> tuple[Float[Tensor, " passages"], Tensor]:
    """Return the nats of each last word, and whether all its tokens are the most probable ones."""
    nats = torch.zeros(len(riddles), dtype=torch.float64)
    right = torch.ones(len(riddles), dtype=torch.bool)
    with (
        evaluating(model),
        Bar(total=len(riddles), unit="passage", desc="LAMBADA", hidden=not progress) as bar,
    ):
        for batch in _batches(riddles):
            logits, targets = _asked_logits(model, batch)
            owners = torch.tensor([riddle.passage for riddle in batch for _ in range(riddle.asked)])
            nats.index_add_(0, owners, chunked_nats(logits, targets=targets).double().cpu())
            right[owners[(logits.argmax(dim=-1) != targets).cpu()]] = False
            bar.update(len(batch))
    return nats, right


def _batches(riddles: list[_Riddle]) -> Iterator[list[_Riddle]]:
    """Put passages of about the same length together, the longest first."""
    rest = sorted(riddles, key=lambda riddle: len(riddle.ids), reverse=True)
    while rest:
        size = max(1, _TOKENS_PER_BATCH // len(rest[0].ids))
        yield rest[:size]
        rest = rest[size:]


def _asked_logits(
    model: PreTrainedModel, batch: list[_Riddle]
) -> tuple[Float[Tensor, "asked vocabulary"], Int[Tensor, " asked"]]:
    """Return the logits of the target tokens, passage after passage, and these tokens.

    The passages are padded on the right, where a causal model sees nothing of it. The head computes those positions
    only at which some passage of the batch has its target.
    """
    longest = max(len(riddle.ids) for riddle in batch) - 1
    ids, mask = torch.zeros(len(batch), longest, dtype=torch.long), torch.zeros(len(batch), longest, dtype=torch.long)
    for row, riddle in enumerate(batch):
        ids[row, : len(riddle.ids) - 1] = torch.tensor(riddle.ids[:-1])
        mask[row, : len(riddle.ids) - 1] = 1
    rows = torch.tensor([row for row, riddle in enumerate(batch) for _ in range(riddle.asked)])
    places = torch.tensor([place - 1 for riddle in batch for place in range(len(riddle.ids))[-riddle.asked :]])
    targets = torch.tensor([token for riddle in batch for token in riddle.ids[-riddle.asked :]])
    kept, columns = places.unique(return_inverse=True)
    chooses = "logits_to_keep" in inspect.signature(model.forward).parameters
    choice = {"logits_to_keep": kept.to(model.device)} if chooses else {}
    inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
    logits = model(**inputs, use_cache=False, **choice).logits
    return logits[rows, columns if chooses else places], targets.to(model.device)


def _perplexity(mean_nats: float) -> float:
    return math.exp(mean_nats) if mean_nats < _LARGEST_EXPONENT else math.inf  # so is what is not a number
