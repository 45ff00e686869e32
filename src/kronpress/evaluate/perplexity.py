"""Perplexity under named protocols, because two numbers compare only under the same one."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import override

from kronpress.bars import Bar
from kronpress.data import Corpus, StoredTokens, bos_of, require_known, stored_tokens, tokenize
from kronpress.errors import KronpressError
from kronpress.evaluate.model_checks import evaluating, require_causal
from kronpress.evaluate.text_formats import (
    DOCUMENTS,
    KIND_NAMES,
    ROWS,
    Detokenizer,
    Documents,
    Normalizer,
    Rows,
    TextKind,
    count_words,
    detokenize,
    unfit,
)
from kronpress.evaluate.windows import Window, batches, begun, roll, slide
from kronpress.families import family_of, position_limit, window_of
from kronpress.records import Perplexity
from kronpress.registry import Shelf

_TOKENS_PER_BATCH = 2048
_AFTER_BOS = "+bos"
_TOKENS_PER_CHUNK = 256  # logits of this many tokens are held in fp32 at a time


@dataclass(frozen=True)
class PerplexityProtocol:
    """How a perplexity is taken; the model sees no special tokens but those that `first` and `begin` ask for.

    `window`: how many tokens the model reads at once.
    `weighting`: 'token' averages the nats of all predicted tokens, 'window' averages the means of the windows.
    `rows`: 'as_is' reads the text as it is. The others take its lines for the rows of a Hugging Face data set: 'joined'
    joins those of WikiText (blank lines are empty rows, the others keep their line end) by a blank line,
    'concatenated' by nothing; 'sentences' joins those of the Penn Treebank (no white space around) by a space;
    'passages' joins those of LAMBADA by a blank line.
    `text_kind`: the text a protocol is for; another one is refused where it can be told.
    `remainder`: whether the short last window is dropped or kept.
    `stride`: how far the next window starts from the last, `window` by default; a token counts once, in the first
    window that predicts it.
    `normalizer`: perplexity per token, or per byte or word of the text before detokenizing: exp(nats per token times
    tokens per word); 'word' and 'word+eos' differ in what counts as one (see `count_words`).
    `detokenizer`: undoes the set's own tokenizer first.
    `documents`: whether windows cross from one article of WikiText to the next ('whole') or not ('pages').
    `first`: 'context' never predicts the first token, 'scored' has it predicted from the beginning-of-text token, as
    lm-eval does: then every token of the text counts, and the short last window is filled up with context.
    `begin`: 'bos' has every window begin with the bos token, with room for one token of the text fewer. Models that
    are much worse without it (Gemma) are measured so under every protocol, and its name then ends in '+bos'.
    `compares`: whose numbers are taken like this.
    """

    name: str
    window: int
    weighting: Literal["token", "window"] = "token"
    rows: Rows = "as_is"
    text_kind: TextKind = "any"
    remainder: Literal["drop", "keep"] = "drop"
    stride: int | None = None
    normalizer: Normalizer = "token"
    detokenizer: Detokenizer = "none"
    documents: Documents = "whole"
    first: Literal["context", "scored"] = "context"
    begin: Literal["nothing", "bos"] = "nothing"
    compares: str = ""

    def __post_init__(self) -> None:
        least = 3 if self.begin == "bos" else 2
        if self.window < least:
            raise KronpressError(
                f"protocol '{self.name}': a window of {self.window} predicts nothing; use {least} or more"
            )
        if self.stride is not None and not 1 <= self.stride <= self.window:
            raise KronpressError(
                f"protocol '{self.name}': a stride of {self.stride} skips or repeats tokens of windows of "
                f"{self.window}; use 1 to {self.window}"
            )

    @property
    def summary(self) -> str:
        """Say in a line how the perplexity is taken and whose numbers compare."""
        stride = f", stride {self.stride}" if self.stride else ""
        per = {"word+eos": "per word or line end"}.get(self.normalizer, f"per {self.normalizer}")
        mean = ", mean of window means" if self.weighting == "window" else ""
        clean = ", detokenized" if self.detokenizer != "none" else ""
        mean += ", each after the bos token" if self.begin == "bos" else ""
        compares = f"; as {self.compares}" if self.compares else ""
        return f"{KIND_NAMES[self.text_kind]}{clean}; windows of {self.window}{stride}; {per}{mean}{compares}"

    def measure(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text: str | Corpus,
        *,
        name: str,
        max_windows: int | None = None,
        progress: bool = True,
    ) -> Perplexity:
        """Measure the perplexity of `model` on `text`, which the result calls `name`.

        A large text is read window by window, where the protocol takes any text as it is. The model runs in its own
        dtype and the log-softmax in fp32. A perplexity that overflows or is not a number is reported as infinite.
        `max_windows` takes the first windows only.

        Raises:
            KronpressError: where the model, the tokenizer, the text and the protocol do not fit together.
        """
        require_causal(model, what="perplexity")
        if self.begin == "nothing" and family_of(model).begins_with == "bos":
            after = self.after_bos()
            return after.measure(model, tokenizer, text, name=name, max_windows=max_windows, progress=progress)
        start = time.perf_counter()
        whole = text.text if isinstance(text, Corpus) and not (text.is_large and self._takes_any_text) else text
        sample = next(whole.pieces()) if isinstance(whole, Corpus) else whole
        self._check(model, sample, name=name, max_windows=max_windows)
        documents = self._documents(model, tokenizer, whole, max_windows=max_windows)

        def cut() -> Iterator[Window]:
            return itertools.islice(self._windows(documents, tokenizer), max_windows)

        counted = [(len(window.targets), window.highest) for window in cut()]
        self._check_length(sum(map(len, documents)), len(counted), name=name)
        require_known(torch.tensor([highest for _, highest in counted]), tokenizer, model=model)
        nats = _window_nats(model, cut(), total=len(counted), progress=progress)
        predicted = torch.tensor([targets for targets, _ in counted], dtype=torch.float64)
        words = self._words(sample)
        ratio = sum(map(len, documents)) / words if words else None
        return Perplexity(
            protocol=self.name,
            text=name,
            perplexity=_perplexity(self._mean(nats, predicted) * (ratio or 1)),
            tokens=int(predicted.sum()),
            windows=len(nats),
            seconds=time.perf_counter() - start,
            words=words,
            tokens_per_word=ratio,
        )

    def after_bos(self) -> PerplexityProtocol:
        """Return the protocol whose windows begin with the token of the beginning of a text."""
        return dataclasses.replace(self, name=f"{self.name}{_AFTER_BOS}", begin="bos", compares="")

    def _mean(self, nats: Float[Tensor, " windows"], predicted: Float[Tensor, " windows"]) -> float:
        """Average the nats of windows that predict so many tokens each."""
        return float((nats / predicted).mean() if self.weighting == "window" else nats.sum() / predicted.sum())

    def _words(self, text: str) -> int | None:
        if self.normalizer == "token":
            return None
        return sum(count_words(document, self.normalizer) for document in DOCUMENTS[self.documents](text))

    @property
    def _takes_any_text(self) -> bool:
        """Whether a text is read as it is, from its first token on, and nothing of it is counted but tokens."""
        as_it_is = (self.rows, self.text_kind, self.detokenizer, self.documents) == ("as_is", "any", "none", "whole")
        return as_it_is and self.normalizer == "token" and self.first == "context"

    def _documents(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text: str | Corpus,
        *,
        max_windows: int | None,
    ) -> Sequence[Int[Tensor, " tokens"] | StoredTokens]:
        """Tokenize a text; no further than needed where the ratio of tokens to words is not."""
        limited = max_windows is not None and self.normalizer == "token"
        limit = self.window + ((max_windows or 1) - 1) * (self.stride or self.window) if limited else None
        if isinstance(text, Corpus):
            whole = limit is None
            return [stored_tokens(text, tokenizer, model=model) if whole else tokenize(text, tokenizer, limit=limit)]
        read = (detokenize(ROWS[self.rows](document), self.detokenizer) for document in DOCUMENTS[self.documents](text))
        return [tokenize(document, tokenizer, limit=limit) for document in read]

    def _windows(
        self, documents: Iterable[Int[Tensor, " _"] | StoredTokens], tokenizer: PreTrainedTokenizerBase
    ) -> Iterator[Window]:
        size = self.window - (self.begin == "bos")
        stride = min(self.stride or size, size)
        for ids in documents:
            if self.first == "context":
                cut = slide(ids, size=size, stride=stride, keep_rest=self.remainder == "keep")
            else:
                assert isinstance(ids, Tensor), "stored tokens are read without a mark before them"
                begin = ids.new_tensor([_beginning(tokenizer, self.name)])
                cut = roll(torch.cat([begin, ids]), size=size, stride=stride)
            yield from begun(cut, first=bos_of(tokenizer, reader=self.name)) if self.begin == "bos" else cut

    def _check(self, model: PreTrainedModel, text: str, *, name: str, max_windows: int | None) -> None:
        limit = position_limit(model)
        if limit is not None and self.window > limit:
            fitting = [other for other in _fitting(text) if PROTOCOLS[other].window <= limit] or [f"tokens-{limit}"]
            raise KronpressError(
                f"protocol '{self.name}' takes windows of {self.window} tokens and {type(model).__name__} sees at most "
                f"{limit}; choose {' or '.join(fitting)}"
            )
        if max_windows is not None and max_windows < 1:
            raise KronpressError(f"max_windows={max_windows} leaves nothing to measure; use 1 or more, or None for all")
        reason = unfit(self.text_kind, text)
        if reason is not None:
            raise KronpressError(
                f"protocol '{self.name}' is for {KIND_NAMES[self.text_kind]}, and the text '{name}' {reason}; "
                f"give the file that the protocol is for, or choose {' or '.join(_fitting(text))}"
            )

    def _check_length(self, tokens: int, windows: int, *, name: str) -> None:
        if not windows:
            raise KronpressError(
                f"the text '{name}' has only {tokens} tokens; a window of {self.window} needs {self.window}: "
                f"give a longer text or a window of at most {tokens}"
            )


def chunked_nats(
    logits: Float[Tensor, "tokens vocabulary"], *, targets: Int[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """Return -log softmax(logits)[target] in nats, in fp32 over chunks of tokens, without an fp32 copy of the whole."""
    pairs = zip(logits.split(_TOKENS_PER_CHUNK), targets.split(_TOKENS_PER_CHUNK), strict=True)
    return torch.cat([torch.nn.functional.cross_entropy(some.float(), to, reduction="none") for some, to in pairs])


def _window_nats(
    model: PreTrainedModel, windows: Iterator[Window], *, total: int, progress: bool
) -> Float[Tensor, " windows"]:
    """Return the summed nats of each window."""
    sums = []
    with (
        evaluating(model),
        Bar(total=total, unit="window", desc="perplexity", hidden=not progress) as bar,
    ):
        for batch in batches(windows, tokens=_TOKENS_PER_BATCH):
            ids = torch.stack([window.reads for window in batch]).to(model.device)
            logits = model(input_ids=ids, use_cache=False).logits
            nats = [_nats(row, window) for row, window in zip(logits, batch, strict=True)]
            sums.append(torch.stack(nats).double().sum(dim=1).cpu())
            bar.update(len(batch))
    return torch.cat(sums)


def _nats(logits: Float[Tensor, "tokens vocabulary"], window: Window) -> Float[Tensor, " predicted"]:
    scored = logits[window.skip : window.skip + len(window.targets)]
    return chunked_nats(scored, targets=window.targets.to(logits.device))


def _perplexity(mean_nats: float) -> float:
    try:
        return math.inf if math.isnan(mean_nats) else math.exp(mean_nats)
    except OverflowError:
        return math.inf


def _beginning(tokenizer: PreTrainedTokenizerBase, protocol: str) -> int:
    """Return the token that a text begins with, as lm-eval chooses it."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise KronpressError(
        f"protocol '{protocol}' begins with the tokenizer's bos or eos token, and {type(tokenizer).__name__} has "
        "neither; set tokenizer.bos_token, or choose a protocol per token"
    )


def _fitting(text: str) -> list[str]:
    """Return the protocols that may take this text, but for those that only compare tokenizers."""
    some = {name: protocol for name, protocol in PROTOCOLS.items() if protocol.normalizer != "byte"}
    return [name for name, protocol in some.items() if unfit(protocol.text_kind, text) is None]


class _Protocols(Shelf[PerplexityProtocol]):
    """Protocols by name; beside those that were added, each `tokens-N` is one, with windows of N tokens.

    Each has one of the same name and '+bos', whose windows begin with the token of the beginning of a text.
    """

    @override
    def __getitem__(self, name: object) -> PerplexityProtocol:
        if str(name).endswith(_AFTER_BOS):
            return self[str(name).removesuffix(_AFTER_BOS)].after_bos()
        counted = re.fullmatch("tokens-(0|[1-9][0-9]{0,8})", str(name))
        if counted and name not in self:
            return PerplexityProtocol(str(name), window=int(counted[1]))
        try:
            return super().__getitem__(name)
        except KronpressError as error:
            raise KronpressError(f"{error}, or tokens-N for windows of N tokens") from None


PROTOCOLS = _Protocols("perplexity protocol")


def longest_protocol(*models: PreTrainedModel) -> str:
    """Return the name of the protocol for any text with windows of 512 tokens, or as many as all the models see."""
    return f"tokens-{min(window_of(model) for model in models)}"


_SPARSEGPT = "GPTQ, SparseGPT and those who use their scripts"

for _protocol in (
    PerplexityProtocol("tokens-512", window=512),
    PerplexityProtocol("tokens-1024", window=1024),
    PerplexityProtocol(
        "bytes-512", window=512, normalizer="byte", remainder="keep", compares="models with another tokenizer"
    ),
    PerplexityProtocol("wikitext-v1", window=1024, rows="joined", text_kind="wikitext-v1"),
    PerplexityProtocol("wikitext-raw", window=1024, rows="joined", text_kind="wikitext-raw"),
    PerplexityProtocol(
        "krony-pt",
        window=1024,
        weighting="window",
        rows="joined",
        text_kind="wikitext-v1",
        remainder="keep",
        compares="Krony-PT's and TQCompressor's tables",
    ),
    PerplexityProtocol(
        "krony-pt-lambada",
        window=1024,
        weighting="window",
        rows="passages",
        text_kind="lambada",
        remainder="keep",
        compares="Krony-PT's LAMBADA, on the lowercase test set",
    ),
    PerplexityProtocol(
        "gpt2-zero-shot",
        window=1024,
        rows="joined",
        text_kind="wikitext-raw",
        remainder="keep",
        compares="GPT-2's zero-shot WikiText-2",
    ),
    PerplexityProtocol(
        "wikitext-stride-512",
        window=1024,
        rows="joined",
        text_kind="wikitext-raw",
        remainder="keep",
        stride=512,
        compares="Hugging Face's guide to perplexity",
    ),
    PerplexityProtocol("wikitext-2048", window=2048, rows="joined", text_kind="wikitext-raw", compares=_SPARSEGPT),
    PerplexityProtocol(
        "wikitext-run-clm",
        window=1024,
        rows="concatenated",
        text_kind="wikitext-raw",
        compares="fine-tuning by Hugging Face's run_clm",
    ),
    PerplexityProtocol(
        "wikitext-word",
        window=1024,
        text_kind="wikitext-raw",
        normalizer="word",
        detokenizer="wikitext",
        documents="pages",
        first="scored",
        compares="lm-eval's wikitext, GPT-2's zero-shot WikiText-103",
    ),
    PerplexityProtocol(
        "wikitext-v1-word",
        window=1024,
        text_kind="wikitext-v1",
        normalizer="word+eos",
        first="scored",
        compares="models trained on words",
    ),
    PerplexityProtocol("ptb", window=1024, rows="sentences", text_kind="ptb"),
    PerplexityProtocol("ptb-2048", window=2048, rows="sentences", text_kind="ptb", compares="SparseGPT's script"),
    PerplexityProtocol(
        "ptb-word",
        window=1024,
        text_kind="ptb",
        normalizer="word+eos",
        detokenizer="ptb",
        first="scored",
        compares="models trained on words",
    ),
):
    PROTOCOLS.add(_protocol.name, _protocol)
