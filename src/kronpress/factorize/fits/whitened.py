"""Factors that are nearest for the inputs that a text gives a layer, not for all inputs alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations import Curvature, InputMoments, WalkProgress, curvatures, walk
from kronpress.errors import KronpressError
from kronpress.factorize.fits.fit import FITS, Fit, Put
from kronpress.factorize.forms import FORMS, Form, Metric, Norm
from kronpress.factorize.install import dense_at
from kronpress.families import Site, window_of
from kronpress.linalg import positive_definite
from kronpress.records import LayerChange
from kronpress.step import Workbench


@FITS.enroll
class Whitened(Fit):
    """The outputs of each layer nearest to the dense ones on text: √E‖(W − Ŵ)x‖² is least.

    For low-rank products that is SVD-LLM (Wang et al., 2024), the strongest without training. A sum of Kronecker
    products is found by alternating least squares, from the nearest one on. The text streams through the compressed
    model, so that each block is fitted to the inputs that it will get.

    Attributes:
        tokens: calibration tokens, in windows from all over the training text.
        window: tokens per window; by default 512, or as many as the model sees.
        ridge: regularization, relative to the mean second moment of an input.
        curvature: also weigh what leaves a layer by what its errors do to the loss (see `Curvature`), for low-rank
            products and Kronecker sums; by default all outputs count alike.
    """

    kind: ClassVar[str] = "whitened"
    norm: ClassVar[Norm] = "inputs"
    reads_text: ClassVar[bool] = True
    keeps_blocks: ClassVar[bool] = True
    tokens: int = Field(default=32768, ge=1)
    window: int | None = Field(default=None, ge=2)
    ridge: float = Field(default=1e-5, gt=0)
    curvature: Curvature | None = None

    def require_form(self, form: Form) -> None:
        """Check that the form's problems can be solved where inputs have weights, and outputs, too, if they have."""
        super().require_form(form)
        if self.curvature is not None and "two-sided" not in form.norms:
            able = [name for name, other in FORMS.items() if "two-sided" in other.norms]
            raise KronpressError(
                f"fit: {self.kind} with curvature can not find the numbers of form: {form.kind}; leave curvature out, "
                f"or take form: {', '.join(able)}"
            )

    def by_block(self) -> bool:
        """Say whether no gradients of the whole model are taken."""
        return self.curvature is None

    def check(self, bench: Workbench, sites: Sequence[Site]) -> None:
        """Check that the sites are in blocks, and that the text has a window."""
        _by_block(sites)
        size = self._window(bench.student)
        bench.training_windows(size=size, tokens=size)
        if self.curvature is not None:
            self.curvature.check(bench.student)

    def replace(
        self, bench: Workbench, sites: Sequence[Site], put: Put, *, facts: Mapping[str, Any]
    ) -> Sequence[LayerChange]:
        """Replace the layers block by block, each in the second moment of its inputs; an interrupted walk goes on."""
        model, by_block = bench.student, _by_block(sites)

        def wanted(block: int) -> list[InputMoments]:
            return [InputMoments(site.path, layer=dense_at(model, site)) for site in by_block.get(block, ())]

        windows = bench.training_windows(size=self._window(model), tokens=self.tokens)
        paths = [site.path for site in sites]
        bends = curvatures(self.curvature, model, windows, paths=paths, seed=bench.seed)
        progress = WalkProgress.of(bench.unfinished, model, windows, facts=facts, kind=LayerChange)
        for stop in walk(model, windows, wanted=wanted, progress=progress, description=f"factorize ({self.kind})"):
            gathered = zip(by_block.get(stop.block, ()), stop.statistics, strict=True)
            stop.changes += [put(site, self._metric(moments, bends.get(site.path))) for site, moments in gathered]
            stop.statistics = ()  # whose memory the next ones need
        return progress.finish()

    def _metric(self, moments: InputMoments, curvature: Float[Tensor, "out out"] | None) -> Metric:
        regularized, _ = positive_definite(moments.second_moment(), ridge=self.ridge)
        return Metric(second_moment=regularized, curvature=curvature)

    def resolved(self, model: PreTrainedModel) -> Whitened:
        """Return the fit with the window that this model gets."""
        return self.model_copy(update={"window": self._window(model)})

    def _window(self, model: PreTrainedModel) -> int:
        return window_of(model, self.window)


def _by_block(sites: Sequence[Site]) -> dict[int, list[Site]]:
    by_block: dict[int, list[Site]] = {}
    for site in sites:
        if site.block is None:
            raise KronpressError(
                f"fit: whitened is for layers inside of blocks, not {site.path}; choose other sites, or a fit without "
                "text, as nearest"
            )
        by_block.setdefault(site.block, []).append(site)
    return by_block
