"""Search the orders of SmolLM2's matrices and print errors and seconds of CPU time: `python -m benchmarks.orders`.

To compare with another commit, run this file with that commit's `src` first on PYTHONPATH, the two by turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

import kronpress
from kronpress.layers import weight_of
from kronpress.linalg import KroneckerShape, Member, search_orders

ROWS, COLUMNS, BOTH = {"rows": "order"}, {"columns": "order"}, {"rows": "order", "columns": "other order"}
GATED = {"mlp.gate_proj": ROWS, "mlp.up_proj": ROWS, "mlp.down_proj": COLUMNS}
SEARCHES = [
    ("feed-forward, folded", GATED, (2, 1), 1),
    ("feed-forward, folded", GATED, (4, 2), 4),
    ("feed-forward, folded", GATED, (3, 3), 1),
    ("query", {"self_attn.q_proj": ROWS}, (2, 1), 1),
    ("key", {"self_attn.k_proj": ROWS}, (2, 1), 1),
    ("value", {"self_attn.v_proj": ROWS}, (2, 1), 1),
    ("output", {"self_attn.o_proj": COLUMNS}, (1, 2), 1),
    ("output", {"self_attn.o_proj": BOTH}, (4, 2), 4),
    ("down", {"mlp.down_proj": BOTH}, (2, 2), 2),
    ("down", {"mlp.down_proj": BOTH}, (4, 2), 4),
]


def members(
    model: PreTrainedModel, block: int, sides: dict[str, dict[str, str]], right: tuple[int, int], terms: int
) -> Iterator[Member]:
    """Yield the members of one search in one block."""
    for path, names in sides.items():
        weight = weight_of(model.get_submodule(f"model.layers.{block}.{path}"))
        shape = KroneckerShape.of_right((weight.shape[0], weight.shape[1]), right=right)
        yield Member(weight, shape, terms=terms, **names)


def relative_error(searched: list[Member], orders: dict[str, Tensor]) -> float:
    """Return the root of the mean squared relative error."""
    return (sum(member.squared_error(orders) for member in searched) / len(searched)) ** 0.5


@torch.inference_mode()
def main() -> None:
    """Print one line for each search and block, and the sum of the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, nargs="+", default=[0, 10, 22])
    blocks = parser.parse_args().blocks
    model = kronpress.load("bundled:smollm2-135m")
    torch.set_num_threads(1)
    total = 0.0
    print(f"{'search':22} {'right':6} {'terms':>5} {'block':>5} {'as is':>8} {'searched':>8} {'seconds':>8}")
    for name, sides, right, terms in SEARCHES:
        for block in blocks:
            searched = list(members(model, block, sides, right, terms))
            start = time.process_time()
            orders = search_orders(searched)
            seconds = time.process_time() - start
            total += seconds
            identity = {key: torch.arange(len(order)) for key, order in orders.items()}
            before, after = relative_error(searched, identity), relative_error(searched, orders)
            size = f"{right[0]} × {right[1]}"
            print(f"{name:22} {size:6} {terms:5} {block:5} {before:8.4f} {after:8.4f} {seconds:8.2f}", flush=True)
    print(f"{total:.1f} seconds in all")


if __name__ == "__main__":
    main()
