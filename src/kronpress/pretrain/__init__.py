"""Train on text alone, with no teacher."""

from kronpress.pretrain.step import Pretrain

__all__ = ["Pretrain"]
