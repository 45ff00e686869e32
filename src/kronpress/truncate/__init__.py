"""Keep some of a model's blocks, or pool its width: what comes out is a plain model."""

from kronpress.truncate import formulas, greedy, influence  # noqa: F401  (they fill the shelf)
from kronpress.truncate.blocks import keep_blocks
from kronpress.truncate.choice import CHOICES, Choice
from kronpress.truncate.pool import Pool
from kronpress.truncate.step import Truncate

__all__ = ["CHOICES", "Choice", "Pool", "Truncate", "keep_blocks"]
