"""GGUF files, which llama.cpp and transformers open; needs the extra `gguf`."""

from kronpress.export.gguf.blocks import packed_blocks
from kronpress.export.gguf.exact import OnGguf, on_gguf
from kronpress.export.gguf.exporter import GgufExport, GgufExporter
from kronpress.export.gguf.rounding import round_as_gguf
from kronpress.export.gguf.types import TYPES, GgufType, gguf_type

__all__ = [
    "TYPES",
    "GgufExport",
    "GgufExporter",
    "GgufType",
    "OnGguf",
    "gguf_type",
    "on_gguf",
    "packed_blocks",
    "round_as_gguf",
]
