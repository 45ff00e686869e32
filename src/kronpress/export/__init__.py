"""From a compressed model to formats that other programs read."""

from kronpress.export.dense import EXPORTERS, Export, export_dense
from kronpress.export.parity import TOLERANCE, Parity
from kronpress.export.plain import multiply_out

__all__ = ["EXPORTERS", "TOLERANCE", "Export", "Parity", "export_dense", "multiply_out"]
