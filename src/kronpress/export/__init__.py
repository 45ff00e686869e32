"""From a compressed model to formats that other programs read."""

from kronpress.export.dense import export_dense
from kronpress.export.exporter import EXPORTERS, Export
from kronpress.export.folded import export_folded
from kronpress.export.parity import TOLERANCE, Parity
from kronpress.export.plain import multiply_out

__all__ = ["EXPORTERS", "TOLERANCE", "Export", "Parity", "export_dense", "export_folded", "multiply_out"]
