"""Products with matrices on grids, computed on a CPU from bytes that hold the codes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from kronpress.layers.grid import Grid

_BAG = 256  # columns at most that are summed up in one go; short sums round less, and threads share the bags
_NAMES = {2: "2bit", 4: "4bit", 8: "byte"}


@cache
def available() -> bool:
    """Say whether torch has fast sums of columns here: those of FBGEMM, which come with it on x86."""
    names = [f"embedding_bag_{name}_{what}" for name in _NAMES.values() for what in ("rowwise_offsets", "unpack")]
    has_them = all(hasattr(torch.ops.quantized, name) for name in names)
    return has_them and "fbgemm" in torch.backends.quantized.supported_engines


@dataclass(frozen=True)
class Columns:
    """The codes of a matrix W (m, n) column by column, in 2, 4 or 8 bits, for torch's quantized embedding bags.

    x · Wᵀ is a sum of columns, weighted by the numbers of x: what an embedding bag computes. It reads the codes as they
    are, in a quarter to a sixteenth of the bytes of float32, and adds in float32. The columns of a group, which have
    one scale for each row of W, go into a bag of their own, and its sum is multiplied by the scales.

    Attributes:
        bits: of a code here.
        table: (n, bytes) the codes of each column, then the step and the lowest level, for torch to read.
        starts: of the bags, and n.
        scale: (groups, m), or (1, 1) for one scale in all.
        shift: likewise, or None.
        rows: m.
    """

    bits: int
    table: UInt8[Tensor, "n bytes"]
    starts: Tensor
    scale: Float[Tensor, "groups scales"]
    shift: Float[Tensor, "groups scales"] | None
    rows: int

    @classmethod
    def of(
        cls, codes: UInt8[Tensor, "m n"], scale: Float[Tensor, "scales groups"], shift: Tensor | None, *, grid: Grid
    ) -> Columns:
        """Return the columns of a matrix whose codes and scales are given."""
        (rows, width), groups = codes.shape, scale.shape[1]
        bits = next(bits for bits in _NAMES if grid.base <= 2**bits)
        bag = width // groups if groups > 1 else _BAG
        starts = torch.tensor([*range(0, width, bag), width], dtype=torch.int32)
        table = torch.cat([_side_by_side(codes.t(), bits), _affine(grid, bits).expand(width, -1)], dim=1)
        turned = None if shift is None else shift.float().t().contiguous()
        return cls(bits, table, starts, scale.float().t().contiguous(), turned, rows)

    def times(self, x: Float[Tensor, "tokens n"]) -> Float[Tensor, "tokens m"]:
        """Return x · Wᵀ in float32; it takes time in proportion to the tokens."""
        tokens, width = x.shape
        index = torch.arange(width, dtype=torch.int32).repeat(tokens)
        starts = self.starts if tokens == 1 else self._starts_of(tokens)
        # arguments: scale gradients by frequency, mode (a sum), pruned weights, weights, mapping, the last start is n
        sums = self._call("rowwise_offsets", index, starts, False, 0, False, x.float().reshape(-1), None, True)
        sums = sums.view(tokens, len(self.starts) - 1, -1)[..., : self.rows]
        y = sums.sum(dim=1) * self.scale if len(self.scale) == 1 else (sums * self.scale).sum(dim=1)
        if self.shift is None:
            return y
        return y + (x.float().view(tokens, len(self.shift), -1).sum(dim=-1)[..., None] * self.shift).sum(dim=1)

    def matrix(self) -> Float[Tensor, "m n"]:
        """Return W, the very numbers that its grid reads; as the transpose of a contiguous matrix."""
        levels = self._call("unpack")[:, : self.rows]
        values = levels.reshape(len(self.scale), -1, self.rows).mul_(self.scale[:, None])
        values = values if self.shift is None else values.add_(self.shift[:, None])
        return values.view(-1, self.rows).t()

    def _starts_of(self, tokens: int) -> Tensor:
        ends = self.starts[1:] + self.starts[-1] * torch.arange(tokens, dtype=torch.int32)[:, None]
        return F.pad(ends.flatten(), (1, 0))

    def _call(self, what: str, *arguments: object) -> Tensor:
        result: Tensor = getattr(torch.ops.quantized, f"embedding_bag_{_NAMES[self.bits]}_{what}")(
            self.table, *arguments
        )
        return result


def _side_by_side(codes: UInt8[Tensor, "n m"], bits: int) -> UInt8[Tensor, "n bytes"]:
    """Write the codes of each row into bytes, low bits first."""
    together = 8 // bits
    padded = F.pad(codes, (0, -codes.shape[1] % together))
    parts = [padded[:, place::together] << (bits * place) for place in range(together)]
    return torch.stack(parts).sum(dim=0, dtype=torch.uint8)


def _affine(grid: Grid, bits: int) -> UInt8[Tensor, " bytes"]:
    """Return from a level to the next, and the lowest, in the number format that torch reads them in."""
    dtype = torch.float32 if bits == 8 else torch.float16
    return torch.tensor([grid.step, grid.lowest], dtype=dtype).view(torch.uint8)
