"""A tokenizer as GGUF describes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from kronpress.errors import KronpressError, shown

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_SPLITS = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}
"""Names by which GGUF files say how text is split before bytes are merged, by the pattern."""

_SPACE = "\u2581"  # of SentencePiece


class TokenKind(IntEnum):
    """What a token is, as GGUF counts it."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer in GGUF's terms.

    Attributes:
        model: gpt2 for BPE over bytes, llama for SentencePiece, bert for WordPiece.
        pre: how text is split before; `default` where none of the names fits.
        tokens: by id, as many as the model has rows.
        kinds: of them.
        merges: pairs of tokens, best first.
        scores: of the tokens, where the model is llama.
        special: ids by `bos`, `eos`, `unk`, `pad`, `sep` and `mask`.
        adds: whether `bos`, and `eos` or `sep`, are put around a text.
        space_prefix: whether a space is put before a text.
        chat_template: of messages.
    """

    model: str
    pre: str
    tokens: Sequence[str]
    kinds: Sequence[TokenKind]
    merges: Sequence[str] = ()
    scores: Sequence[float] = ()
    special: Mapping[str, int] = field(default_factory=dict)
    adds: Mapping[str, bool] = field(default_factory=dict)
    space_prefix: bool = False
    chat_template: str | None = None


def vocabulary_of(tokenizer: Any, *, size: int) -> Vocabulary:
    """Return a tokenizer in GGUF's terms.

    Args:
        tokenizer: a fast one.
        size: rows of the model's table; those beyond the tokenizer's tokens get names of their own.

    Raises:
        KronpressError: it is of a kind that GGUF does not know, or has more tokens than the model.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise KronpressError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, and GGUF needs its merges; convert it"
        )
    count = max(tokenizer.get_vocab().values()) + 1
    if count > size:
        raise KronpressError(f"the tokenizer has {count} tokens and the model {size}; name the model's own one")
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = described["model"]["type"]
    if kind == "BPE":
        model = "llama" if described["model"].get("byte_fallback") else "gpt2"
    elif kind == "WordPiece":
        model = "bert"
    else:
        raise KronpressError(
            f"GGUF files hold no tokenizer of the kind {shown(kind)}; leave it out of the model's folder"
        )
    return _described(model, described, tokenizer, size=size)


def _described(model: str, described: Mapping[str, Any], tokenizer: Any, *, size: int) -> Vocabulary:
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    tokens = [by_id.get(index, f"[PAD{index}]") for index in range(size)]
    kinds = [TokenKind.NORMAL if index in by_id else TokenKind.UNUSED for index in range(size)]
    if model == "llama":
        _mark_bytes(kinds, tokens)
    for entry in described["added_tokens"]:
        kinds[entry["id"]] = TokenKind.CONTROL if entry["special"] else TokenKind.USER_DEFINED
    if model == "llama" and tokenizer.unk_token_id is not None:
        kinds[tokenizer.unk_token_id] = TokenKind.UNKNOWN
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in described["model"].get("merges", ())]
    return Vocabulary(
        model=model,
        pre=_pre(described["pre_tokenizer"]) if model == "gpt2" else "default",
        tokens=_SPELLINGS[model](tokens, kinds),
        kinds=kinds,
        merges=merges,
        scores=_scores(tokens, merges) if model == "llama" else (),
        special=_special(tokenizer, model),
        adds=_adds(tokenizer, model),
        space_prefix=_prefixes(tokenizer),
        chat_template=tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
    )


def _mark_bytes(kinds: list[TokenKind], tokens: Sequence[str]) -> None:
    """Mark the tokens that stand for a byte where no other token fits."""
    for index, token in enumerate(tokens):
        if len(token) == len("<0x00>") and token.startswith("<0x"):
            kinds[index] = TokenKind.BYTE


def _as_they_are(tokens: Sequence[str], kinds: Sequence[TokenKind]) -> Sequence[str]:
    return tokens


def _with_word_starts(tokens: Sequence[str], kinds: Sequence[TokenKind]) -> Sequence[str]:
    """Mark where words start, as SentencePiece does, in place of where they go on."""
    return [
        token
        if kind in (TokenKind.CONTROL, TokenKind.UNUSED)
        else token[2:]
        if token.startswith("##")
        else _SPACE + token
        for token, kind in zip(tokens, kinds, strict=True)
    ]


_SPELLINGS: Mapping[str, Callable[[Sequence[str], Sequence[TokenKind]], Sequence[str]]] = {
    "gpt2": _as_they_are,
    "llama": _as_they_are,
    "bert": _with_word_starts,
}


def _scores(tokens: Sequence[str], merges: Sequence[str]) -> list[float]:
    """Return scores that order tokens as the merges that make them, which is all that programs read from them."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    return [-float(ranks[token]) if token in ranks else 0.0 for token in tokens]


def _pre(splitter: Mapping[str, Any] | None) -> str:
    """Return GGUF's name for how a BPE over bytes splits text."""
    steps = [] if splitter is None else splitter.get("pretokenizers", [splitter])
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and steps[0]["behavior"] == "Isolated" and not steps[1].get("use_regex", True):
        return _SPLITS.get(steps[0]["pattern"].get("Regex", ""), "default")
    return "default"


def _special(tokenizer: Any, model: str) -> dict[str, int]:
    """Return the ids of special tokens; WordPiece has `cls` and `sep` where others have `bos` and `eos`."""
    keys = {name: f"{name}_token_id" for name in ("bos", "eos", "unk", "pad", "sep", "mask")}
    if model == "bert":
        keys |= {"bos": "cls_token_id", "eos": "sep_token_id"}
    ids = {name: getattr(tokenizer, key, None) for name, key in keys.items()}
    return {name: token for name, token in ids.items() if token is not None}


def _adds(tokenizer: Any, model: str) -> dict[str, bool]:
    """Return whether the tokenizer puts tokens around a text, as it does to an empty one."""
    around = tokenizer("")["input_ids"]
    first = bool(around) and around[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id)
    after = around[first:]
    last = bool(after) and after[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id)
    return {"bos": first, "sep" if model == "bert" else "eos": last}


def _prefixes(tokenizer: Any) -> bool:
    """Return whether a space is put before a text, as the tokens of one show."""
    tokens = tokenizer.tokenize("a")
    return bool(tokens) and tokens[0].startswith((_SPACE, "\u0120"))
