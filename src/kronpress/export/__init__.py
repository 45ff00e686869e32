"""From a compressed model to formats that other programs read."""

from kronpress.export.dense import DenseExporter
from kronpress.export.exporter import EXPORTERS, Export, Exporter, Written
from kronpress.export.folded import FoldedExporter
from kronpress.export.gguf import GgufExporter, round_as_gguf
from kronpress.export.parity import TOLERANCE, Parity
from kronpress.export.plain import multiply_out

__all__ = [
    "EXPORTERS",
    "TOLERANCE",
    "DenseExporter",
    "Export",
    "Exporter",
    "FoldedExporter",
    "GgufExporter",
    "Parity",
    "Written",
    "multiply_out",
    "round_as_gguf",
]
