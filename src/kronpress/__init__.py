"""Make pre-trained Transformers smaller and faster with Kronecker products and their relatives.

Importing the package teaches transformers to open kronpress checkpoints with `from_pretrained`: at once where
transformers is imported already, else right after it is. So either may be imported first, and the command line
answers without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from kronpress.errors import KronpressError
from kronpress.imports import lazily, when_imported

if TYPE_CHECKING:
    from kronpress.checkpoint import load, load_with_tokenizer, save, verify
else:
    _checkpoint = lazily("kronpress.checkpoint")

    def __getattr__(name: str) -> object:
        """Return what opens and saves models."""
        if name in __all__:
            return getattr(_checkpoint, name)
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = ["KronpressError", "load", "load_with_tokenizer", "save", "verify"]
__version__ = "0.1.0"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


when_imported("transformers", lambda: import_module("kronpress.checkpoint.plugin"))
when_imported("transformers.trainer", lambda: import_module("kronpress.checkpoint.trainer"))
