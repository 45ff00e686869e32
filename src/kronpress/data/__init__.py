"""Text and tokens: where calibration, training and evaluation get their input.

What needs torch is imported when it is first asked for, so that text is cleaned without it.
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
from kronpress.imports import lazily

if TYPE_CHECKING:
    from kronpress.data.corpus import Corpus, Shares, split_held_out
    from kronpress.data.mixture import WeightedText, mix
    from kronpress.data.text import read_text
    from kronpress.data.token_files import StoredTokens, StoredWindows, TextWindows, stored_tokens
    from kronpress.data.tokens import (
        beginning,
        bos_of,
        count_of_windows,
        count_tokens,
        knows_more,
        require_known,
        spread,
        tokenize,
        windows,
    )
else:
    _HOMES = {
        "corpus": ("Corpus", "Shares", "split_held_out"),
        "mixture": ("WeightedText", "mix"),
        "text": ("read_text",),
        "token_files": ("StoredTokens", "StoredWindows", "TextWindows", "stored_tokens"),
        "tokens": (
            "beginning",
            "bos_of",
            "count_of_windows",
            "count_of_windows",
            "count_tokens",
            "knows_more",
            "require_known",
            "spread",
            "tokenize",
            "windows",
        ),
    }
    _MODULES = {name: lazily(f"{__name__}.{home}") for home, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> object:
        """Return what computes with tokens, or with texts of any size."""
        if name in _MODULES:
            return getattr(_MODULES[name], name)
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = [
    "HUB",
    "Corpus",
    "Shares",
    "StoredTokens",
    "StoredWindows",
    "TextWindows",
    "WeightedText",
    "beginning",
    "bos_of",
    "count_of_windows",
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
    "spread",
    "stored_tokens",
    "tokenize",
    "user_path",
    "windows",
]
