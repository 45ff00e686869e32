"""Make pre-trained Transformers smaller and faster with Kronecker products and their relatives.

Importing the package teaches transformers to open kronpress checkpoints with `from_pretrained`.
"""

from kronpress import hooks
from kronpress.checkpoint import load, load_with_tokenizer, save, verify
from kronpress.errors import KronpressError

hooks.watch()

__all__ = ["KronpressError", "load", "load_with_tokenizer", "save", "verify"]
__version__ = "0.1.0"
