"""Perplexity under named protocols, because two numbers compare only under the same one."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kronpress.data import tokenize, windows
from kronpress.errors import KronpressError
from kronpress.evaluate.inference import evaluating, require_causal, vocabulary_size
from kronpress.families import position_limit
from kronpress.registry import Shelf

TextKind = Literal["any", "wikitext-v1", "wikitext-raw"]

_TOKENS_PER_BATCH = 2048
_TOKENS_PER_CHUNK = 256  # logits of this many tokens are held in fp32 at a time


@dataclass(frozen=True)
class PerplexityResult:
    """A perplexity and all that must be said with it.

    `tokens` counts the predicted ones (the first of each window is context only).
    """

    protocol: str
    text: str
    perplexity: float
    tokens: int
    windows: int
    seconds: float


@dataclass(frozen=True)
class PerplexityProtocol:
    """How a perplexity is taken: non-overlapping windows of `window` tokens, no special tokens added.

    `weighting`: 'token' averages the nats of all predicted tokens, 'window' averages the means of the windows.
    `rows`: 'as_is' reads the text as it is; 'joined' takes its lines for the rows of a Hugging Face data set (blank
    lines are empty rows, the others keep their line end) and joins them by a blank line, as that protocol does.
    `text_kind`: WikiText v1 has `<unk>` in it and raw WikiText has not; each refuses the other.
    `remainder`: whether the short last window is dropped or kept.
    """

    name: str
    window: int
    weighting: Literal["token", "window"] = "token"
    rows: Literal["as_is", "joined"] = "as_is"
    text_kind: TextKind = "any"
    remainder: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        if self.window < 2:
            raise KronpressError(f"protocol '{self.name}': a window of {self.window} predicts nothing; use 2 or more")

    def measure(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        *,
        name: str,
        max_windows: int | None = None,
        progress: bool = True,
    ) -> PerplexityResult:
        """Measure the perplexity of `model` on `text`, which the result calls `name`.

        The model runs in its own dtype and the log-softmax in fp32. A perplexity that overflows or is not a number
        is reported as infinite. `max_windows` takes the first windows only.

        Raises:
            KronpressError: where the model, the tokenizer, the text and the protocol do not fit together.
        """
        require_causal(model, what="perplexity")
        self._check(model, text, name=name, max_windows=max_windows)
        start = time.perf_counter()
        batches = self._batches(text, tokenizer, name=name, max_windows=max_windows)
        _check_vocabulary(model, batches)
        nats = _window_nats(model, batches, progress=progress)
        predicted = torch.tensor([batch.shape[1] - 1 for batch in batches for _ in batch], dtype=torch.float64)
        return PerplexityResult(
            protocol=self.name,
            text=name,
            perplexity=_perplexity(self._mean(nats, predicted)),
            tokens=int(predicted.sum()),
            windows=len(nats),
            seconds=time.perf_counter() - start,
        )

    def _mean(self, nats: Float[Tensor, " windows"], predicted: Float[Tensor, " windows"]) -> float:
        """Average the nats of windows that predict so many tokens each."""
        return float((nats / predicted).mean() if self.weighting == "window" else nats.sum() / predicted.sum())

    def _batches(
        self, text: str, tokenizer: PreTrainedTokenizerBase, *, name: str, max_windows: int | None
    ) -> list[Int[Tensor, "batch window"]]:
        """Cut the text into batches of windows of equal length; a kept remainder is the last batch."""
        limit = None if max_windows is None else max_windows * self.window
        ids = tokenize(_as_rows(text) if self.rows == "joined" else text, tokenizer, limit=limit)
        rest = ids[len(ids) - len(ids) % self.window :]
        keep = self.remainder == "keep" and len(rest) > 1
        if keep and len(rest) == len(ids):
            return [rest[None]]
        full = windows(ids, size=self.window, name=f"the text '{name}'")
        return [*full.split(max(1, _TOKENS_PER_BATCH // self.window)), *([rest[None]] if keep else [])]

    def _check(self, model: PreTrainedModel, text: str, *, name: str, max_windows: int | None) -> None:
        limit = position_limit(model)
        if limit is not None and self.window > limit:
            fitting = [other for other, protocol in PROTOCOLS.items() if protocol.window <= limit]
            raise KronpressError(
                f"protocol '{self.name}' takes windows of {self.window} tokens and {type(model).__name__} sees at most "
                f"{limit}; choose {' or '.join(fitting) or f'a protocol of your own with window={limit}'}"
            )
        if max_windows is not None and max_windows < 1:
            raise KronpressError(f"max_windows={max_windows} leaves nothing to measure; use 1 or more, or None for all")
        _check_kind(self, text, name)


def chunked_nats(
    logits: Float[Tensor, "tokens vocabulary"], *, targets: Int[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """Return -log softmax(logits)[target] in nats, in fp32 over chunks of tokens, without an fp32 copy of the whole."""
    pairs = zip(logits.split(_TOKENS_PER_CHUNK), targets.split(_TOKENS_PER_CHUNK), strict=True)
    return torch.cat([torch.nn.functional.cross_entropy(some.float(), to, reduction="none") for some, to in pairs])


def _window_nats(
    model: PreTrainedModel, batches: list[Int[Tensor, "_ _"]], *, progress: bool
) -> Float[Tensor, " windows"]:
    """Return the summed nats of each window."""
    total = sum(len(batch) for batch in batches)
    sums = []
    with (
        evaluating(model),
        tqdm(total=total, unit="window", desc="perplexity", disable=None if progress else True) as bar,
    ):
        for batch in batches:
            ids = batch.to(model.device)
            logits = model(input_ids=ids, use_cache=False).logits
            nats = [chunked_nats(row[:-1], targets=targets[1:]) for row, targets in zip(logits, ids, strict=True)]
            sums.append(torch.stack(nats).double().sum(dim=1).cpu())
            bar.update(len(batch))
    return torch.cat(sums)


def _perplexity(mean_nats: float) -> float:
    try:
        return math.inf if math.isnan(mean_nats) else math.exp(mean_nats)
    except OverflowError:
        return math.inf


def _as_rows(text: str) -> str:
    """Join the lines as the rows of the Hugging Face data set, where a row keeps its line end and a blank row is ''."""
    lines = text.removesuffix("\n").split("\n")
    return "\n\n".join(line + "\n" if line.strip() else "" for line in lines)


def _check_kind(protocol: PerplexityProtocol, text: str, name: str) -> None:
    has_unknown = "<unk>" in text
    if protocol.text_kind == "wikitext-v1" and not has_unknown:
        raise KronpressError(
            f"protocol '{protocol.name}' is for WikiText v1, and the text '{name}' has no '<unk>' in it; "
            "give the v1 file, or choose 'wikitext-raw' or 'tokens-1024'"
        )
    if protocol.text_kind == "wikitext-raw" and has_unknown:
        raise KronpressError(
            f"protocol '{protocol.name}' is for raw WikiText, and the text '{name}' has '<unk>' in it; "
            "give the raw file, or choose 'wikitext-v1' or 'krony-pt'"
        )


def _check_vocabulary(model: PreTrainedModel, batches: list[Int[Tensor, "_ _"]]) -> None:
    highest, known = max(int(batch.max()) for batch in batches), vocabulary_size(model)
    if highest >= known:
        raise KronpressError(
            f"the tokenizer gives id {highest} and {type(model).__name__} knows {known} ids; "
            "load the tokenizer that was saved beside the model"
        )


PROTOCOLS = Shelf[PerplexityProtocol]("perplexity protocol")

for _protocol in (
    PerplexityProtocol("tokens-512", window=512),
    PerplexityProtocol("tokens-1024", window=1024),
    PerplexityProtocol("wikitext-v1", window=1024, rows="joined", text_kind="wikitext-v1"),
    PerplexityProtocol("wikitext-raw", window=1024, rows="joined", text_kind="wikitext-raw"),
    PerplexityProtocol(
        "krony-pt", window=1024, weighting="window", rows="joined", text_kind="wikitext-v1", remainder="keep"
    ),
):
    PROTOCOLS.add(_protocol.name, _protocol)
