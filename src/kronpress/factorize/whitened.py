"""Factors that are nearest for the inputs that a text gives a layer, not for all inputs alike."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.activations import BlockStream, Moments
from kronpress.bars import Bar
from kronpress.errors import KronpressError
from kronpress.factorize.feed_forward_fit import positive_definite
from kronpress.factorize.initialization import (
    INITIALIZATIONS,
    Fitted,
    Initialization,
    dense_at,
    dense_shares,
    replace_site,
)
from kronpress.factorize.request import Request
from kronpress.families import Site, window_of
from kronpress.layers import KroneckerLinear, LowRankLinear, StructuredLayer, bias_of, weight_of
from kronpress.linalg import nearest_low_rank, weighted_kronecker_sum
from kronpress.step import Workbench


class Whitened(Initialization):
    """An initialization that makes the outputs of each layer nearest to the dense ones on text.

    The text streams through the compressed model, so that each block is fitted to the inputs that it will get.

    Attributes:
        tokens: calibration tokens, from the start of the training text.
        window: tokens per window; by default 512, or as many as the model sees.
        ridge: regularization, relative to the mean second moment of an input.
    """

    tokens: int = Field(default=32768, ge=1)
    window: int | None = Field(default=None, ge=2)
    ridge: float = Field(default=1e-5, gt=0)

    @abstractmethod
    def fit(
        self, layer: nn.Module, *, site: Site, request: Request, second: Float[Tensor, "n n"]
    ) -> tuple[StructuredLayer, float]:
        """Return the structured layer that takes the place of `layer`, and √E‖(W − Ŵ)x‖²; `second` is E[x xᵀ]."""

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
        blocks = range(len(stream.layout.block_paths))
        for block in Bar(blocks, desc=f"factorize ({self.kind})", unit="block"):
            sites = by_block.get(block, [])
            seconds = _second_moments(model, sites, stream=stream, block=block) if sites else {}
            for site in sites:
                regularized, _ = positive_definite(seconds[site.path], ridge=self.ridge)
                fit = partial(self._fitted, site=site, request=request, second=regularized)
                reports.append(replace_site(model, site, fit))
            stream.advance(model, block=block)
        return reports

    def _fitted(self, layer: nn.Module, *, site: Site, request: Request, second: Float[Tensor, "n n"]) -> Fitted:
        weight = weight_of(layer).double()
        structured, error = self.fit(layer, site=site, request=request, second=second)
        return structured, error, float(torch.linalg.vecdot(weight @ second, weight).sum().sqrt())

    def _window(self, model: PreTrainedModel) -> int:
        return window_of(model, self.window)

    def settings(self, model: PreTrainedModel) -> dict[str, Any]:
        """Return its fields, with the window that this model gets."""
        return super().settings(model) | {"window": self._window(model)}

    def _by_block(self, model: PreTrainedModel, request: Request) -> dict[int, list[Site]]:
        by_block: dict[int, list[Site]] = {}
        for site in request.sites_of(model):
            if site.block is None:
                raise KronpressError(
                    f"{self.kind} is for layers inside of blocks, not {site.path}; choose other sites, or an init "
                    f"without text"
                )
            by_block.setdefault(site.block, []).append(site)
        return by_block


@INITIALIZATIONS.register("svd_whitened")
class WhitenedSvd(Whitened):
    """The nearest low-rank product on text (SVD-LLM, Wang et al., 2024): the strongest without training."""

    kind: ClassVar[str] = "svd_whitened"
    reads: ClassVar[frozenset[str]] = frozenset({"ratio"})

    def fit(
        self, layer: nn.Module, *, site: Site, request: Request, second: Float[Tensor, "n n"]
    ) -> tuple[StructuredLayer, float]:
        """Truncate the decomposition of the weight on whitened inputs."""
        weight = weight_of(layer)
        value = nearest_low_rank(weight, rank=request.rank((weight.shape[0], weight.shape[1])), second_moment=second)
        return LowRankLinear.of(value, bias=bias_of(layer)), value.error


@INITIALIZATIONS.register("van_loan_whitened")
class WhitenedVanLoan(Whitened):
    """A sum of Kronecker products near to the dense layer on text, by alternating least squares.

    What `svd_whitened` is to `svd`, this is to `van_loan`, from which it starts.
    """

    kind: ClassVar[str] = "van_loan_whitened"
    reads: ClassVar[frozenset[str]] = frozenset({"left", "right", "terms"})

    def check(self, bench: Workbench, request: Request) -> None:
        """Check also that the shapes divide."""
        super().check(bench, request)
        for site in request.sites_of(bench.student):
            for share in dense_shares(bench.student, site):
                rows, columns = weight_of(share).shape
                request.shape((rows, columns), site=site)

    def fit(
        self, layer: nn.Module, *, site: Site, request: Request, second: Float[Tensor, "n n"]
    ) -> tuple[StructuredLayer, float]:
        """Solve for the factors."""
        weight = weight_of(layer)
        shape = request.shape((weight.shape[0], weight.shape[1]), site=site)
        value = weighted_kronecker_sum(weight, shape=shape, terms=request.terms, second_moment=second)
        return KroneckerLinear.of(value, bias=bias_of(layer)), value.error


def _second_moments(
    model: PreTrainedModel, sites: list[Site], *, stream: BlockStream, block: int
) -> dict[str, Float[Tensor, "n n"]]:
    """Run a block on the stream and return E[x xᵀ] of the inputs of its sites, by path."""
    found = {site.path: _moments_of(dense_at(model, site)) for site in sites}
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
