"""Low-rank factors for the inputs that a text gives: the strongest low-rank baseline that needs no training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from kronpress.calibrate import BlockStream, Moments
from kronpress.errors import KronpressError
from kronpress.factorize.feed_forward_fit import positive_definite
from kronpress.factorize.initialization import INITIALIZATIONS, Fitted, Initialization, replace_site
from kronpress.factorize.request import Request
from kronpress.families import Site, position_limit
from kronpress.layers import LowRankLinear, bias_of, weight_of
from kronpress.linalg import nearest_low_rank
from kronpress.step import Workbench


@INITIALIZATIONS.register("svd_whitened")
class WhitenedSvd(Initialization):
    """The low-rank product whose outputs are nearest to the dense ones on text (SVD-LLM, Wang et al., 2024).

    The text streams through the compressed model, so that each block is fitted to the inputs that it will get.

    Attributes:
        tokens: calibration tokens, from the start of the training text.
        window: tokens per window.
        ridge: regularization, relative to the mean second moment of an input.
    """

    kind: ClassVar[str] = "svd_whitened"
    tokens: int = Field(default=32768, ge=1)
    window: int = Field(default=512, ge=2)
    ridge: float = Field(default=1e-5, gt=0)

    def check(self, bench: Workbench, request: Request) -> None:
        """Check that the sites are in blocks, and that the text has a window."""
        self._by_block(bench.student, request)
        bench.training_windows(size=self._window(bench.student), tokens=self._window(bench.student))

    @torch.no_grad()
    def apply(self, bench: Workbench, request: Request) -> list[dict[str, Any]]:
        """Replace each selected site, block by block."""
        model, by_block = bench.student, self._by_block(bench.student, request)
        windows = bench.training_windows(size=self._window(model), tokens=self.tokens)
        stream = BlockStream.begin(model, windows)
        reports = []
        for block in tqdm(range(len(stream.layout.block_paths)), desc="whitened SVD", unit="block", disable=None):
            sites = by_block.get(block, [])
            seconds = _second_moments(model, sites, stream=stream, block=block) if sites else {}
            for site in sites:
                regularized, _ = positive_definite(seconds[site.path], ridge=self.ridge)
                reports.append(replace_site(model, site, partial(_fit, request=request, second=regularized)))
            stream.advance(model, block=block)
        return reports

    def _window(self, model: PreTrainedModel) -> int:
        return min(self.window, position_limit(model) or self.window)

    def _by_block(self, model: PreTrainedModel, request: Request) -> dict[int, list[Site]]:
        by_block: dict[int, list[Site]] = {}
        for site in request.sites_of(model):
            if site.block is None:
                raise KronpressError(f"svd_whitened is for layers inside of blocks, not {site.path}; use svd there")
            by_block.setdefault(site.block, []).append(site)
        return by_block


def _fit(layer: nn.Module, *, request: Request, second: Float[Tensor, "n n"]) -> Fitted:
    weight = weight_of(layer)
    rank = request.rank((weight.shape[0], weight.shape[1]))
    value = nearest_low_rank(weight, rank=rank, second_moment=second)
    energy = torch.linalg.vecdot(weight.double() @ second, weight.double()).sum()
    return LowRankLinear.of(value, bias=bias_of(layer)), value.error, float(energy.sqrt())


def _second_moments(
    model: PreTrainedModel, sites: list[Site], *, stream: BlockStream, block: int
) -> dict[str, Float[Tensor, "n n"]]:
    """Run a block on the stream and return E[x xᵀ] of the inputs of its sites, by path."""
    found = {site.path: _moments_of(model.get_submodule(site.path)) for site in sites}
    with _observing(model, found):
        for _ in stream.outputs(model, block=block):
            pass
    return {path: moments.normal_equations()[0] for path, moments in found.items()}


def _moments_of(layer: nn.Module) -> Moments:
    weight = weight_of(layer)
    return Moments(weight.shape[1], 0, centered=False, device=weight.device)


@contextmanager
def _observing(model: PreTrainedModel, found: dict[str, Moments]) -> Iterator[None]:
    def observer(moments: Moments) -> Any:
        def observe(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs = args[0].flatten(0, -2)
            moments.add(inputs, inputs[:, :0])

        return observe

    handles = [model.get_submodule(path).register_forward_pre_hook(observer(m)) for path, m in found.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
