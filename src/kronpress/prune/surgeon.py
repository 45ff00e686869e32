"""Which hidden neurons to keep, and the down-projection that reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field
from transformers import PreTrainedModel

from kronpress.activations import Curvature
from kronpress.families import window_of
from kronpress.linalg import eliminate, inputs_of, refit, with_ridge
from kronpress.prune.readout import Kept, Readout
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
        tokens: calibration tokens, in windows from all over the training text.
        window: tokens per window; by default 512, or as many as the model sees.
        ridge: regularization, relative to the mean second moment of a hidden neuron.
        rounds: shares in which neurons are eliminated, re-solving in between.
        curvature: weigh what the choice loses by what it does to the loss (see `Curvature`); by default all outputs
            count alike. The weight that is solved for is the same for either.
    """

    kind: ClassVar[str] = "surgeon"
    tokens: int = Field(default=32768, ge=1)
    window: int | None = Field(default=None, ge=2)
    ridge: float = Field(default=1e-5, gt=0)
    rounds: int = Field(default=32, ge=1)
    curvature: Curvature | None = None

    def window_of(self, model: PreTrainedModel) -> int:
        """Return the tokens per window for a model."""
        return window_of(model, self.window)

    def solve(self, readout: Readout, *, keep: int, run: int = 1) -> Kept:
        """Choose `keep` inputs, or runs of so many consecutive ones, and fit the weight; no model is changed."""
        with with_ridge(readout.moment, ridge=self.ridge) as strength:
            towards = readout.cross + strength * readout.dense.double()
            runs = eliminate(readout.moment, readout.weighed(towards), keep=keep, rounds=self.rounds, run=run)
            inputs = inputs_of(runs, run=run)
            weight = refit(readout.moment, towards, kept=inputs)
        return replace(readout.kept(weight, inputs=inputs), neurons=runs)
