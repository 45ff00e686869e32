"""Reports of a run: an HTML page, a model card, a few lines in the terminal.

All of them read one `RunSummary` and know nothing of how it came about.
"""

from kronpress.report.card import model_card
from kronpress.report.html import render, write_report
from kronpress.report.sizes import (
    BLOCK_FLOPS,
    DISK,
    FLOPS,
    PARAMETERS,
    PARAMETERS_EFFECTIVE,
    PARAMETERS_UNTIED,
    PARAMETERS_WITHOUT_HEAD,
    Quantity,
    quantities,
)
from kronpress.report.summary import LmEvalRow, PerplexityRow, QuantizedStep, RunSummary, StepTime, TextSetRow
from kronpress.report.terminal import print_summary

__all__ = [
    "BLOCK_FLOPS",
    "DISK",
    "FLOPS",
    "PARAMETERS",
    "PARAMETERS_EFFECTIVE",
    "PARAMETERS_UNTIED",
    "PARAMETERS_WITHOUT_HEAD",
    "LmEvalRow",
    "PerplexityRow",
    "Quantity",
    "QuantizedStep",
    "RunSummary",
    "StepTime",
    "TextSetRow",
    "model_card",
    "print_summary",
    "quantities",
    "render",
    "write_report",
]
