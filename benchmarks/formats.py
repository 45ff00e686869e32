"""Compare matrix products in bfloat16 with those in float32, by turns: `python -m benchmarks.formats`.

Speed-ups of single products, medians of pairwise ratios and their spread, and what `precision: auto` makes of this
machine.
"""

from __future__ import annotations

import statistics

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.layers import seconds
from kronpress.precision import choose

SIDES = (512, 1024, 2048)
REPEATS = 5


@torch.inference_mode()
def main() -> None:
    """Print the table and the choice."""
    table = Table("product", "TFLOP/s in fp32", "in bf16", "ratio", title="bfloat16, against float32")
    for side in SIDES:
        slow, fast = (torch.randn(side, side).to(dtype) for dtype in (torch.float32, torch.bfloat16))
        pairs = [(seconds(lambda x=slow: x @ x), seconds(lambda x=fast: x @ x)) for _ in range(REPEATS + 1)][1:]
        rates = [2e-12 * side**3 / statistics.median(column) for column in zip(*pairs, strict=True)]
        ratios = [single / half for single, half in pairs]
        spread = f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"
        table.add_row(f"{side} × {side}", *(f"{rate:.3f}" for rate in rates), spread)
    Console().print(table)
    print(f"precision: auto is {choose('auto', torch.device('cpu'))}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
