"""Take tokens that a kind of text never uses out of a tokenizer, and their rows out of a model."""

from kronpress.trim.pieces import Pieces
from kronpress.trim.rows import keep_rows
from kronpress.trim.tokenizer import trimmed_tokenizer
from kronpress.trim.trim import trim

__all__ = ["Pieces", "keep_rows", "trim", "trimmed_tokenizer"]
