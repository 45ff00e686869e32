"""What one right factor for several matrices of SmolLM2-135M gains, without text: `python -m benchmarks.joint_rank`.

The truncated SVD of matrices side by side, each by itself, and of the same stacked, with as many numbers (Joint Rank-k,
Peng et al., 2024, arXiv 2402.16319). Printed are the relative errors of all blocks together.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from itertools import chain

import torch
from jaxtyping import Float
from torch import Tensor, nn

import kronpress
from kronpress.families import layout
from kronpress.layers import weight_of

_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_PRODUCING = ("mlp.gate_proj", "mlp.up_proj")
# What is stacked: the paths in each block, how many blocks, and whether those of one block are stacked to begin with.
STACKS: dict[str, tuple[Sequence[str], int, bool]] = {
    "query, key and value": (_QKV, 1, False),
    "gate and up": (_PRODUCING, 1, False),
    "query, key and value, of two neighboring blocks": (_QKV, 2, True),
    "up, of two neighboring blocks": (_PRODUCING[1:], 2, True),
}

Matrix = Float[Tensor, "rows columns"]


def squared_error(matrix: Matrix, ratio: float) -> float:
    """Return that of the truncated SVD that stores a share of the numbers of a matrix."""
    rows, columns = matrix.shape
    rank = int(ratio * rows * columns / (rows + columns))
    return float(torch.linalg.svdvals(matrix.double())[rank:].square().sum())


def relative_errors(groups: Sequence[Sequence[Matrix]], ratio: float) -> tuple[float, float]:
    """Return ‖W − W'‖ / ‖W‖ over all groups with products for each matrix, and with one for the group."""
    stacked = [torch.cat(list(group)) for group in groups]
    energy = sum(float(matrix.double().square().sum()) for matrix in stacked)
    apart = sum(squared_error(matrix, ratio) for group in groups for matrix in group)
    return math.sqrt(apart / energy), math.sqrt(sum(squared_error(matrix, ratio) for matrix in stacked) / energy)


def groups_of(blocks: Sequence[nn.Module], paths: Sequence[str], *, at_once: int, together: bool) -> list[list[Matrix]]:
    """Return the matrices that are stacked, group by group."""
    found = [[weight_of(block.get_submodule(path)) for path in paths] for block in blocks]
    if together:
        found = [[torch.cat(matrices)] for matrices in found]
    return [list(chain.from_iterable(found[first : first + at_once])) for first in range(0, len(found), at_once)]


@torch.inference_mode()
def main() -> None:
    """Print the table in Markdown."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    model = kronpress.load("bundled:smollm2-135m")
    blocks = [model.get_submodule(path) for path in layout(model).block_paths]
    print("| stacked | share of the numbers | apart | stacked | gain |\n|---|---:|---:|---:|---:|")
    for name, (paths, at_once, together) in STACKS.items():
        groups = groups_of(blocks, paths, at_once=at_once, together=together)
        for ratio in (0.5, 0.75):
            apart, stacked = relative_errors(groups, ratio)
            print(f"| {name} | {ratio} | {apart:.3f} | {stacked:.3f} | {1 - stacked / apart:+.1%} |", flush=True)


if __name__ == "__main__":
    main()
