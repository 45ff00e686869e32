"""Compare models whose weights lie on grids with their dense twins in float32, by turns: `python -m benchmarks.bits`.

SmolLM2-135M and all-MiniLM-L6-v2; all linear layers and the token table with its tied head in 8, 4, 3, 2 and 1 bits,
groups of 64; packed, and unpacked (the numbers beside the codes). A row shows the median of the pairwise ratios of
tokens per second and their spread, above 1 is faster than dense. A prefill reads 256 tokens, MiniLM also 16; a decode
goes on for 16 tokens. The ratios are also written to a file in JSON, as they come.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import PreTrainedModel

from kronpress.checkpoint import load
from kronpress.checkpoint.files import write_json
from kronpress.evaluate.speed import compare_speed
from kronpress.layers import (
    FactoredHead,
    Grid,
    QuantizedEmbedding,
    QuantizedLinear,
    QuantizedTensor,
    StructuredLayer,
    matrices_of,
    quantized_tensors,
    spanning,
)

NEW = 16  # tokens
MODELS = {"smollm2-135m": (256,), "minilm-l6": (256, 16)}
GRIDS = {
    8: Grid(levels="int8", group=64),
    4: Grid(levels="int4", group=64),
    3: Grid(levels="int3", group=64),
    2: Grid(levels="int2", group=64),
    1: Grid(levels="binary", group=64),
}
RESULTS = Path(__file__).with_name("results") / "bits.json"


@dataclass(frozen=True)
class Ratio:
    """How much faster than dense a model runs."""

    model: str
    bits: int
    unpacked: bool
    prompt: int
    phase: str
    ratio: float
    lowest: float
    highest: float


def rounded(layer: StructuredLayer, grid: Grid) -> StructuredLayer:
    """Put the matrices of a layer on a grid, each number to the nearest."""
    for matrix in list(matrices_of(layer)):
        coded = spanning(grid.groups(matrix.tensor.detach()), grid)
        matrix.store(QuantizedTensor.of(coded, grid, matrix.tensor.shape, dtype=matrix.tensor.dtype))
    return layer


def quantized(dense: PreTrainedModel, grid: Grid) -> PreTrainedModel:
    """Return a copy with all linear layers, the token table and the head on a grid, but for a head of its own."""
    model = copy.deepcopy(dense)
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    for path, module in list(model.named_modules()):
        if type(module) is nn.Linear and module is not head:
            model.set_submodule(path, rounded(QuantizedLinear.of(module.weight, bias=module.bias), grid))
    codes = QuantizedEmbedding.of(table.weight, padding_idx=table.padding_idx)
    model.set_input_embeddings(rounded(codes, grid))
    if head is not None and head.weight is table.weight:
        model.set_output_embeddings(FactoredHead.of(codes))
    return model


def ratios(name: str, bits: list[int], repeats: int) -> Iterator[Ratio]:
    """Measure one model in each number of bits, packed and unpacked."""
    dense = load(f"bundled:{name}").float().eval()
    for width in bits:
        student = quantized(dense, GRIDS[width])
        for unpacked in (False, True):
            if unpacked:
                for tensor in quantized_tensors(student):
                    tensor.unpack()
            for prompt in MODELS[name]:
                for row in compare_speed(dense, student, prompt_tokens=prompt, new_tokens=NEW, repeats=repeats).rows:
                    yield Ratio(name, width, unpacked, prompt, row.phase, row.ratio, row.ratio_min, row.ratio_max)


def main() -> None:
    """Print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--bits", nargs="+", type=int, choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"torch": torch.__version__, "threads": given.threads, "cpu": torch.backends.cpu.get_cpu_capability()}
    table = Table("model", "bits", "numbers", "tokens", "phase", "speed, of dense", title="few bits, against float32")
    measured = []
    for row in (row for name in given.models for row in ratios(name, given.bits, given.repeats)):
        measured.append(asdict(row))
        write_json(given.out, {**machine, "repeats": given.repeats, "ratios": measured})
        speed = f"{row.ratio:.2f}× ({row.lowest:.2f}–{row.highest:.2f})"
        table.add_row(row.model, str(row.bits), "kept" if row.unpacked else "", str(row.prompt), row.phase, speed)
    Console().print(table)


if __name__ == "__main__":
    main()
