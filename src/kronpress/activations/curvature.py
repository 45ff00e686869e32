"""How the loss bends with what layers put out: errors are weighed by what they do to the predictions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.activations.moments import Moments
from kronpress.activations.statistics import noted_outputs
from kronpress.bars import Bar
from kronpress.data import spread
from kronpress.errors import KronpressError
from kronpress.families import is_causal
from kronpress.linalg import positive_definite
from kronpress.precision import mixed_precision
from kronpress.validation import Checked

_BATCH_TOKENS = 1024  # whose logits are in memory in float32, with their gradient


class Curvature(Checked):
    """Weigh errors of what a layer puts out by E[g gᵀ], g being the gradient of the loss there.

    Together with the second moment of its inputs that is the Kronecker-factored curvature of the loss (K-FAC; Martens
    and Grosse, 2015). The gradient is that of the dense model, summed over the tokens that a position reaches. The
    first position of a window, whose activations are far larger than those of the others, is left out.

    Attributes:
        loss: `kl` draws each next token from the model's own predictions, so that E[g gᵀ] is the curvature of the KL
            divergence from the dense model; `text` takes that of the text (the empirical Fisher information).
        tokens: of the calibration text, in windows from all over it, whose gradients are taken.
        ridge: what is added to the diagonal, relative to its mean; the more, the nearer to no weights.
    """

    loss: Literal["kl", "text"] = "kl"
    tokens: int = Field(default=8192, ge=1)
    ridge: float = Field(default=0.1, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, fields: Any) -> Any:
        return {"loss": fields} if isinstance(fields, str) else fields

    def check(self, model: PreTrainedModel) -> None:
        """Check that the model has such a loss.

        Raises:
            KronpressError: it does not predict the next token.
        """
        if not is_causal(model):
            raise KronpressError(
                f"curvature is that of a model's predictions of the next token, and {type(model).__name__} makes "
                "none; leave it out"
            )

    def measure(
        self, model: PreTrainedModel, windows: Int[Tensor, "windows tokens"], *, paths: Collection[str], seed: int
    ) -> Mapping[str, Float[Tensor, "out out"]]:
        """Return E[g gᵀ] with its ridge, positive definite and in float64, for the layer at each path."""
        read = spread(windows, count=max(1, self.tokens // windows.shape[1])).to(model.device)
        generator = torch.Generator(model.device).manual_seed(seed)
        moments: dict[str, Moments] = {}
        for batch in Bar(read.split(max(1, _BATCH_TOKENS // windows.shape[1])), desc="curvature", unit="step"):
            for path, gradient in self._gradients(model, batch, paths=paths, generator=generator):
                size = gradient.shape[-1]
                if path not in moments:
                    moments[path] = Moments(size, 0, centered=False, device=gradient.device)
                rows = gradient.unflatten(0, (len(batch), -1)) if gradient.ndim == 2 else gradient  # OPT flattens
                later = rows[:, 1:].reshape(-1, size)
                moments[path].add(later, later[:, :0])
        return {
            path: positive_definite(moment.normal_equations()[0], ridge=self.ridge)[0]
            for path, moment in moments.items()
        }

    def _gradients(
        self,
        model: PreTrainedModel,
        batch: Int[Tensor, "windows tokens"],
        *,
        paths: Collection[str],
        generator: torch.Generator,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the gradient of the summed loss of a batch at what each layer puts out."""
        with noted_outputs(model, paths) as outputs, mixed_precision(model.device):
            logits = model(input_ids=batch, use_cache=False).logits[:, :-1].flatten(0, 1).float()
        targets = batch[:, 1:].flatten()
        if self.loss == "kl":
            targets = torch.multinomial(logits.detach().softmax(dim=-1), 1, generator=generator)[:, 0]
        loss = F.cross_entropy(logits, targets, reduction="sum")
        yield from zip(outputs, torch.autograd.grad(loss, list(outputs.values())), strict=True)


def curvatures(
    asked: Curvature | None,
    model: PreTrainedModel,
    windows: Int[Tensor, "windows tokens"],
    *,
    paths: Collection[str],
    seed: int,
) -> Mapping[str, Float[Tensor, "out out"]]:
    """Return the curvature of the loss in what the layer at each path puts out; none where it is not asked for."""
    return {} if asked is None else asked.measure(model, windows, paths=paths, seed=seed)
