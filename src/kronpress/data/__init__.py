"""Text and tokens: where calibration, training and evaluation get their input."""

from kronpress.data.files import (
    neighbors,
    parse_json,
    read_json_lines,
    read_utf8,
    require_characters,
    user_path,
)
from kronpress.data.hub import HUB, hub_arguments, load_from_hub
from kronpress.data.mixture import WeightedText, mix
from kronpress.data.text import Corpus, Shares, read_text, split_held_out
from kronpress.data.tokens import beginning, bos_of, count_tokens, knows_more, require_known, tokenize, windows

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
