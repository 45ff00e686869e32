"""More examples to train on: copies of those there are, with words replaced by others that fit (TinyBERT)."""

from kronpress.finetune.augment.augmentation import Augmentation, Augmented
from kronpress.finetune.augment.options import Augment

__all__ = ["Augment", "Augmentation", "Augmented"]
