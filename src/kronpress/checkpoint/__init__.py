"""How a compressed model is saved and opened again; importing this registers the transformers plug-in."""

import transformers  # noqa: F401  (first: right after it the plug-in is imported, with what it needs of this room)

from kronpress.checkpoint.bundled import BUNDLED
from kronpress.checkpoint.config import KronpressConfig
from kronpress.checkpoint.load import load, load_with_tokenizer
from kronpress.checkpoint.notes import note, notes_of
from kronpress.checkpoint.plugin import adopt
from kronpress.checkpoint.probe import Probe, take_probe
from kronpress.checkpoint.save import LARGE_SHARD, bytes_of, save, write_checkpoint, write_manifest
from kronpress.checkpoint.ties import settle_ties
from kronpress.checkpoint.verify import verify
from kronpress.layers import structured_layers

__all__ = [
    "BUNDLED",
    "LARGE_SHARD",
    "KronpressConfig",
    "Probe",
    "adopt",
    "bytes_of",
    "load",
    "load_with_tokenizer",
    "note",
    "notes_of",
    "save",
    "settle_ties",
    "structured_layers",
    "take_probe",
    "verify",
    "write_checkpoint",
    "write_manifest",
]
