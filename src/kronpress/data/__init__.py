"""Text and tokens: where calibration, training and evaluation get their input."""

from kronpress.data.text import Corpus, read_text, read_utf8, split_held_out
from kronpress.data.tokens import tokenize, windows

__all__ = ["Corpus", "read_text", "read_utf8", "split_held_out", "tokenize", "windows"]
