"""Which hidden neurons to keep, and the down-projection that reads them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from transformers import PreTrainedModel

from kronpress.families import window_of
from kronpress.linalg import eliminate, positive_definite, refit
from kronpress.prune.feed_forward import FeedForwardStatistic, Kept
from kronpress.registry import Shelf
from kronpress.validation import Checked

PRUNE_FITS: Shelf[type[Checked]] = Shelf("fit")


@PRUNE_FITS.enroll
class Surgeon(Checked):
    """Neurons by the optimal-brain-surgeon cost, the weight by ridge regression towards the dense one.

    The new down-projection predicts, from the kept neurons of the *compressed* stream, what the block must add for
    the stream to leave the block as it does in the dense model, so that each block also repairs what those before it
    lost (see `linalg.eliminate`; MoDeGPT's Nyström step is the case without a stream).

    Attributes:
        tokens: calibration tokens, from the start of the training text.
        window: tokens per window; by default 512, or as many as the model sees.
        ridge: regularization, relative to the mean second moment of a hidden neuron.
        rounds: shares in which neurons are eliminated, re-solving in between.
    """

    kind: ClassVar[str] = "surgeon"
    tokens: int = Field(default=32768, ge=1)
    window: int | None = Field(default=None, ge=2)
    ridge: float = Field(default=1e-5, gt=0)
    rounds: int = Field(default=32, ge=1)

    def window_of(self, model: PreTrainedModel) -> int:
        """Return the tokens per window for a model."""
        return window_of(model, self.window)

    def solve(self, statistic: FeedForwardStatistic, *, keep: int) -> Kept:
        """Choose `keep` neurons and fit the weight; no model is changed."""
        moments, dense = statistic.moments, statistic.weight
        moment, cross = moments.normal_equations()
        regularized, strength = positive_definite(moment, ridge=self.ridge)
        towards = cross + strength * dense.double()
        neurons = eliminate(regularized, towards, keep=keep, rounds=self.rounds)
        weight = refit(regularized, towards, kept=neurons)
        energy = moments.target_energy()
        explained = 2 * (weight * cross[:, neurons]).sum() - (weight @ moment[neurons][:, neurons] * weight).sum()
        missed = max(energy - float(explained), 0.0)
        error = (missed / energy) ** 0.5 if energy > 0 else 0.0  # a block may add nothing
        bias = moments.intercept(weight, kept=neurons).to(dense.dtype) if moments.centered else None
        return Kept(neurons, weight.to(dense.dtype), bias, error)
