"""The number types of GGUF files that are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from kronpress.errors import KronpressError, did_you_mean, shown
from kronpress.layers import GGUF_GRIDS, Grid


@dataclass(frozen=True)
class GgufType:
    """How the numbers of a tensor are written.

    The numbers of types and files are those of ggml.h and llama.h. They stand here because releases of the `gguf`
    library know fewer of them: 0.19 has no `Q2_0`.

    Attributes:
        name: as the command takes it.
        number: of the type, in `ggml_type`.
        file_number: of files that mostly hold it, in `llama_ftype`.
        block: numbers of a row that stand together.
        block_bytes: what they take.
    """

    name: str
    number: int
    file_number: int
    block: int
    block_bytes: int

    @property
    def grid(self) -> Grid | None:
        """Where the numbers lie; None where each is written by itself."""
        return GGUF_GRIDS.get(self.name)

    @property
    def bits(self) -> float:
        """Bits of a number, scales included."""
        return 8 * self.block_bytes / self.block

    def bytes(self, shape: Sequence[int]) -> int:
        """Return what a tensor takes, whose rows the block divides."""
        return prod(shape) // self.block * self.block_bytes

    def holds(self, shape: Sequence[int]) -> bool:
        """Whether the block divides the rows of a tensor."""
        return shape[-1] % self.block == 0

    def require(self, shape: Sequence[int], *, place: str) -> None:
        """Check that the block divides the rows of a tensor, which the message calls `place`.

        Raises:
            KronpressError: it does not; the message offers types that hold such rows.
        """
        if not self.holds(shape):
            offers = [kind.name for kind in TYPES.values() if kind.holds(shape)]
            raise KronpressError(
                f"{self.name} stores {self.block} numbers together, which does not divide the rows of {place}, "
                f"{shape[-1]} long; set --type to one of {', '.join(offers)}"
            )


TYPES: Mapping[str, GgufType] = {
    kind.name: kind
    for kind in (
        GgufType("f32", 0, 0, 1, 4),
        GgufType("f16", 1, 1, 1, 2),
        GgufType("bf16", 30, 32, 1, 2),
        GgufType("q8_0", 8, 7, 32, 34),
        GgufType("q4_1", 3, 3, 32, 20),
        GgufType("q4_0", 2, 2, 32, 18),
        GgufType("q2_0", 42, 41, 64, 18),
        GgufType("tq2_0", 35, 37, 256, 66),
        GgufType("tq1_0", 34, 36, 256, 54),
        GgufType("q1_0", 41, 40, 128, 18),
    )
}
"""By name, the largest first."""


def gguf_type(name: str) -> GgufType:
    """Return a type by name.

    Raises:
        KronpressError: there is none of that name.
    """
    if name not in TYPES:
        raise KronpressError(f"--type {shown(name)} is no number type of GGUF: {did_you_mean(name, TYPES)}")
    return TYPES[name]
