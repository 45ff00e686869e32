"""Modules that compute several roles at once, such as query, key and value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor


@dataclass(frozen=True)
class Fusion:
    """How the rows of one module are shared among the roles that it computes.

    Attributes:
        roles: what the shares compute, in the order of their rows.
        sizes: the rows of each share in proportion to the others: (heads, key heads, key heads) under grouped queries.
            A narrower module is split in the same proportion.
        runs: into how many runs each share is cut; the runs of the shares alternate. GPT-NeoX has one run per head:
            query, key and value of head 0, then those of head 1, …
    """

    roles: tuple[str, ...]
    sizes: tuple[int, ...]
    runs: int = 1

    def split(self, tensor: Shaped[Tensor, "rows *columns"]) -> list[Tensor]:
        """Return the rows of each share; they are views where there is one run."""
        unit = len(tensor) // (self.runs * sum(self.sizes))
        parts = tensor.unflatten(0, (self.runs, -1)).split([unit * size for size in self.sizes], dim=1)
        return [part.flatten(0, 1) for part in parts]

    def join(self, parts: Sequence[Shaped[Tensor, "_ *columns"]]) -> Shaped[Tensor, "rows *columns"]:
        """Return the rows of all shares in the order of the module: what `split` takes apart.

        >>> fusion = Fusion(("query", "key"), sizes=(1, 1), runs=2)
        >>> query, key = fusion.split(torch.arange(8))
        >>> query
        tensor([0, 1, 4, 5])
        >>> fusion.join((query, key))
        tensor([0, 1, 2, 3, 4, 5, 6, 7])
        """
        return torch.cat([part.unflatten(0, (self.runs, -1)) for part in parts], dim=1).flatten(0, 1)
