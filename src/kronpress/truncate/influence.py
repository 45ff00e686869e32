"""Blocks by how much they turn what passes through them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.activations import Statistic, walk
from kronpress.families import layout
from kronpress.records import BlockMeasure
from kronpress.step import Workbench
from kronpress.truncate.choice import CHOICES, Chosen, Measured, calibration


@CHOICES.enroll
class Influence(Measured):
    """The blocks of the largest influence: 1 - the mean cosine of what enters a block and what leaves it.

    ShortGPT (Men et al., 2024), eq. 1. All blocks are measured once, in the whole model.
    """

    kind: ClassVar[str] = "influence"

    def choose(self, bench: Workbench, *, keep: int | None) -> Chosen:
        """Measure every block and keep those with the largest influence."""
        model = bench.student
        paths = layout(model).block_paths
        number = self.number(keep, model)
        windows = calibration(bench, tokens=self.tokens)
        stops = walk(model, windows, wanted=lambda block: [_Turn(paths[block])], description="block influence")
        turns = [1 - float(torch.cat(stop.statistics[0].cosines).mean()) for stop in stops]
        largest = sorted(range(len(turns)), key=lambda block: (-turns[block], block))[:number]
        measured = tuple(BlockMeasure(block, value) for block, value in enumerate(turns))
        return Chosen(tuple(sorted(largest)), measured, "influence, 1 - cosine")


class _Turn(Statistic):
    """The cosine of what enters a block and what leaves it, token by token."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.cosines: list[Float[Tensor, "windows tokens"]] = []
        self._entering: Tensor | None = None

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        """Look at what enters the block."""

        def enter(_: object, args: tuple[Tensor, ...]) -> None:
            self._entering = args[0]

        handle = model.get_submodule(self.path).register_forward_pre_hook(enter)
        try:
            yield
        finally:
            handle.remove()

    def after_compressed(self, index: int, output: Float[Tensor, "windows tokens dim"]) -> None:
        """Compare."""
        assert self._entering is not None
        self.cosines.append(F.cosine_similarity(self._entering.float(), output.float(), dim=-1))
