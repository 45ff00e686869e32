"""Time Kronecker, low-rank and Monarch layers against their dense twins: `python -m benchmarks.layers`.

Dense and factored run by turns; a row shows the median of the pairwise ratios and their spread, above 1 is faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from rich.console import Console
from rich.table import Table

from kronpress.layers import (
    KroneckerLinear,
    LinearSpec,
    LowRankLinear,
    LowRankSparseLinearSpec,
    MonarchLinearSpec,
    StructuredLayer,
)
from kronpress.linalg import KroneckerShape, KroneckerSum, LowRank

MATRIX = (3072, 768)
SHAPES = {
    "right 1 × 2": ((1, 2), 1),
    "right 2 × 1": ((2, 1), 1),
    "right 3 × 3, 2 terms": ((3, 3), 2),
    "right 3 × 3, 4 terms": ((3, 3), 4),
    "right 384 × 384": ((384, 384), 1),
    "right 64 × 64": ((64, 64), 1),
}
TOKENS = (1, 128, 1024)
REPEATS, SECONDS = 7, 0.1


def layers() -> Iterator[tuple[str, StructuredLayer]]:
    """Yield the factored layers with random weights, GPT-2's up-projection in size."""
    for name, (right, terms) in SHAPES.items():
        shape = KroneckerShape.of_right(MATRIX, right=right)
        factors = torch.randn(terms, shape.m1, shape.n1), torch.randn(terms, shape.m2, shape.n2)
        yield name, KroneckerLinear.of(KroneckerSum(*factors))
    yield "low rank 307", LowRankLinear.of(LowRank(torch.randn(MATRIX[0], 307), torch.randn(307, MATRIX[1])))
    sizes = {"in_features": MATRIX[1], "out_features": MATRIX[0], "bias": False}
    yield "low rank 276 and 153 rows", filled(LowRankSparseLinearSpec(**sizes, rank=276, rows=153))
    for blocks in (4, 16):
        name = f"Monarch {blocks} × {blocks}, rank {307 // blocks}"
        yield name, filled(MonarchLinearSpec(**sizes, blocks=blocks, rank=307 // blocks))


def filled(spec: LinearSpec) -> StructuredLayer:
    """Return a layer of a form, with random weights."""
    layer = spec.build()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds of one call, averaged over about SECONDS."""
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        call()
        calls += 1
    return (time.perf_counter() - start) / calls


@torch.inference_mode()
def ratios(dense: torch.nn.Module, factored: torch.nn.Module, tokens: int) -> list[float]:
    """Return dense time ÷ factored time, pair by pair, after a warm-up."""
    x = torch.randn(tokens, MATRIX[1])
    pairs = [(seconds(lambda: dense(x)), seconds(lambda: factored(x))) for _ in range(REPEATS + 1)]
    return [slow / fast for slow, fast in pairs[1:]]


def main() -> None:
    """Print the table."""
    table = Table("layer", "parameters", "FLOPs", *(f"{count} tokens" for count in TOKENS), title="speed-up over dense")
    dense = torch.nn.Linear(MATRIX[1], MATRIX[0], bias=False)
    for name, layer in layers():
        shares = (
            f"{layer.parameter_count / dense.weight.numel():.3f}",
            f"{layer.flops_per_token / dense.weight.numel() / 2:.3f}",
        )
        cells = []
        for count in TOKENS:
            speedups = ratios(dense, layer, count)
            cells.append(f"{statistics.median(speedups):.2f}× ({min(speedups):.2f}–{max(speedups):.2f})")
        table.add_row(name, *shares, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
