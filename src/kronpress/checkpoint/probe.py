"""A probe: inputs and the outputs they must give, kept beside the weights.

Layers that round their inputs pass them as they are: a grid makes steps of the order of sums, in which machines differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.layers import unrounded

FILE = "kronpress_probe.safetensors"
_COLUMNS = 1024
_TOKENS = 16
_MANY = 16  # outputs whose spread around their mean tells how large a difference is


@dataclass(frozen=True)
class Probe:
    """Input ids and, for an even choice of output columns, what the model answers to them."""

    ids: Int[Tensor, "1 tokens"]
    outputs: Float[Tensor, "1 rows columns"]

    def save(self, folder: Path) -> None:
        """Write the probe into a checkpoint folder."""
        files.write_tensors(folder / FILE, {"ids": self.ids, "outputs": self.outputs})

    @classmethod
    def read(cls, folder: Path) -> Probe | None:
        """Read the probe of a checkpoint folder, None where there is none."""
        if not (folder / FILE).exists():
            return None
        try:
            tensors = load_file(folder / FILE)
            return cls(tensors["ids"], tensors["outputs"])
        except (SafetensorError, KeyError) as error:
            raise KronpressError(f"{folder / FILE} is damaged ({error}); copy the checkpoint again") from error

    def deviation(self, model: PreTrainedModel) -> float:
        """Return the largest difference of the outputs, relative to their standard deviation.

        Where there are few outputs, as of a classifier, or a single one, this is the deviation from zero.
        """
        now = _outputs(model, self.ids)
        if now.shape != self.outputs.shape:
            return float("inf")
        center = self.outputs.mean() if self.outputs.numel() >= _MANY else 0.0
        scale = (self.outputs - center).square().mean().sqrt().clamp_min(1e-12)
        return float((now - self.outputs).abs().max() / scale)

    def check(self, model: PreTrainedModel, *, place: Path) -> float:
        """Return the deviation.

        Raises:
            KronpressError: it is beyond what the arithmetic of another machine explains.
        """
        found, allowed = self.deviation(model), 1e-2 if model.dtype == torch.float32 else 0.25
        if not found <= allowed:
            raise KronpressError(
                f"{place}: the model's outputs deviate from the recorded probe by {found:.3g} standard deviations "
                f"(allowed: {allowed}); the weights or the config have been changed or damaged: copy them again"
            )
        return found


def take_probe(model: PreTrainedModel, *, tokens: int = _TOKENS) -> Probe:
    """Ask the model for its outputs on an even choice of token ids.

    Raises:
        KronpressError: some are NaN or infinite.
    """
    vocabulary = int(model.config.vocab_size)
    ids = torch.linspace(0, vocabulary - 1, tokens + 2)[1:-1].long()[None]
    outputs = _outputs(model, ids)
    if not outputs.isfinite().all():
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        first = next((name for name, tensor in named.items() if not tensor.isfinite().all()), None)
        raise KronpressError(
            "the model's outputs are not finite: "
            + (f"{first} holds NaN or infinity" if first else f"sums are too large for {model.dtype}")
            + "; go back to a model before that, or train it with a lower learning rate"
        )
    return Probe(ids, outputs)


@torch.inference_mode()
def _outputs(model: PreTrainedModel, ids: Tensor) -> Float[Tensor, "1 rows columns"]:
    training = model.training
    model.eval()
    with unrounded(model):
        output = model(input_ids=ids.to(model.device))[0].float().cpu()
    model.train(training)
    output = output.reshape(1, -1, output.shape[-1])
    columns: Tensor = output[..., :: max(1, output.shape[-1] // _COLUMNS)]
    return columns.clone()
