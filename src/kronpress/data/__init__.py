"""Text and tokens: where calibration, training and evaluation get their input.

What computes with tokens is imported when it is first asked for, so that text is read and cleaned without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kronpress.data.files import (
    neighbors,
    parse_json,
    read_json_lines,
    read_utf8,
    require_characters,
    user_path,
)
from kronpress.data.hub import HUB, hub_arguments, load_from_hub
from kronpress.data.text import Corpus, Shares, read_text, split_held_out
from kronpress.imports import lazily

if TYPE_CHECKING:
    from kronpress.data.mixture import WeightedText, mix
    from kronpress.data.tokens import beginning, bos_of, count_tokens, knows_more, require_known, tokenize, windows
else:
    _mixture, _tokens = lazily("kronpress.data.mixture"), lazily("kronpress.data.tokens")

    def __getattr__(name: str) -> object:
        """Return what computes with tokens."""
        if name in ("WeightedText", "mix"):
            return getattr(_mixture, name)
        if name in __all__:
            return getattr(_tokens, name)
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = [
    "HUB",
    "Corpus",
    "Shares",
    "WeightedText",
    "beginning",
    "bos_of",
    "count_tokens",
    "hub_arguments",
    "knows_more",
    "load_from_hub",
    "mix",
    "neighbors",
    "parse_json",
    "read_json_lines",
    "read_text",
    "read_utf8",
    "require_characters",
    "require_known",
    "split_held_out",
    "tokenize",
    "user_path",
    "windows",
]
