"""Prove that an export computes what the factors compute.

The products of the factors are rounded to the number format of the checkpoint, and a deep network amplifies that as it
does the rounding of each operation. The difference of the outputs alone can not tell rounding from a mistake, so three
things are asked:

1. weights: each stored layer is the product of its factors to one rounding, in float64 and on random inputs;
2. function: with the products unrounded, the whole networks agree in float64;
3. use: as they run, in the number format they are stored in, the networks differ by no more than the tolerance, or,
   where that number format is coarser, by ten times what it costs the model itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.checkpoint import Probe, structured_layers
from kronpress.data import read_text, tokenize
from kronpress.errors import KronpressError
from kronpress.export.plain import fill, in_format, twin
from kronpress.families import replace_module
from kronpress.layers import FactoredEmbedding, StructuredLayer, unrounded

TOLERANCE = 1e-4
_ROUNDING_FACTOR = 10
_TEXT, _CHARACTERS, _TOKENS = "bundled:python-reference", 4000, 128
_VECTORS = 64
_ROWS = 2**12


@dataclass(frozen=True)
class Parity:
    """How equal a model with factors and its dense export are; differences are the largest absolute ones.

    Attributes:
        outputs: what was compared, "logit" or "hidden state".
        number_format: in which both are stored and run, for instance "float32".
        as_run: difference of the outputs in that number format.
        rounding: difference between the model's own outputs in that number format and in float64.
        exact: difference of the outputs in float64, the products unrounded; Llama's norms round to float32 all the
            same, which hides relative differences of activations below 1e-7.
        weights: the largest ‖(Ŵ − W)x‖ / ‖Wx‖ of a stored layer Ŵ and its factors W, in float64.
        worst: the path of that layer, empty where no layer has factors.
    """

    outputs: str
    number_format: str
    as_run: float
    rounding: float
    exact: float
    weights: float
    worst: str

    def check(self, *, tolerance: float, place: str) -> None:
        """Compare with what is allowed; `place` is what the message calls the export.

        Raises:
            KronpressError: the export is not the model.
        """
        unit = torch.finfo(getattr(torch, self.number_format)).eps
        if not self.weights <= unit:
            raise KronpressError(
                f"{place}: the weight of {self.worst} is off the product of its factors by a relative "
                f"{self.weights:.2g}, which is more than {self.number_format} rounds ({unit:.2g}), so nothing was "
                "exported; check the model with `kronpress verify`, or load it in float32"
            )
        if not self.exact <= tolerance:
            raise KronpressError(
                f"{place}: the largest {self.outputs} difference is {self.exact:.2g} in float64, where {tolerance:g} "
                "is allowed, so nothing was exported; check the model with `kronpress verify`"
            )
        if not self.as_run <= max(tolerance, _ROUNDING_FACTOR * self.rounding):
            raise KronpressError(
                f"{place}: the largest {self.outputs} difference is {self.as_run:.2g} in {self.number_format}, where "
                f"{tolerance:g} is allowed and rounding costs the model itself {self.rounding:.2g}, so nothing was "
                "exported; allow more with --tolerance"
            )

    def sentence(self, *, tolerance: float) -> str:
        """Say it on one line; beyond the tolerance, with the rounding that explains it."""
        text = f"the largest {self.outputs} difference is {self.as_run:.2g} in {self.number_format}"
        if self.as_run > tolerance:
            text += f" (whose rounding alone moves the compressed model's own {self.outputs}s by {self.rounding:.2g})"
        return f"{text} and {self.exact:.2g} in float64; the weights are equal to {self.weights:.2g}"


def comparison_inputs(probe: Probe, tokenizer: Any, *, model: PreTrainedModel) -> list[Int[Tensor, "_ _"]]:
    """Return the ids of the probe and, where there is a tokenizer, a window of the bundled text."""
    if tokenizer is None:
        return [probe.ids]
    positions = getattr(model.config, "max_position_embeddings", None) or 2 * _TOKENS  # RoBERTa lacks two of them
    ids = tokenize(read_text(_TEXT).text[:_CHARACTERS], tokenizer, limit=min(_TOKENS, positions // 2))
    known = ids[ids < model.config.vocab_size]
    return [probe.ids, known[None]] if len(known) else [probe.ids]


def measure(model: PreTrainedModel, export: PreTrainedModel, *, inputs: Sequence[Int[Tensor, "_ _"]]) -> Parity:
    """Compare a model with its dense export, which may have been opened again from its folder."""
    name, as_run = _answers(in_format(model, None), inputs)
    _, as_exported = _answers(in_format(export, None), inputs)
    _, precise = _answers(in_format(model, torch.float64), inputs)
    _, exact = _answers(_unrounded(export, model), inputs)
    weights, worst = _worst_layer(model, export)
    return Parity(
        outputs=name,
        number_format=str(model.dtype).removeprefix("torch."),
        as_run=_difference(as_run, as_exported),
        rounding=_difference(as_run, precise),
        exact=_difference(precise, exact),
        weights=weights,
        worst=worst,
    )


@torch.inference_mode()
def _answers(model: PreTrainedModel, inputs: Sequence[Tensor]) -> tuple[str, list[Tensor]]:
    """Return what the outputs are called, and the outputs."""
    with unrounded(model):
        answers = [model(input_ids=ids.to(model.device)) for ids in inputs]
    name = "hidden state" if "last_hidden_state" in answers[0] else "logit"
    return name, [answer[0].double().cpu() for answer in answers]


def _unrounded(export: PreTrainedModel, model: PreTrainedModel) -> PreTrainedModel:
    """Return the export in float64, with the products of the factors as they were before they were rounded."""
    precise = in_format(export, torch.float64)
    for path, layer in structured_layers(model).items():
        stored = precise.get_submodule(path)
        if isinstance(stored, StructuredLayer):
            replace_module(precise, path, module=in_format(layer, torch.float64))
        else:
            fill(stored, twin(layer), dtype=torch.float64, place=path)
    return precise


def _difference(some: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    return float(torch.stack([(a - b).abs().max() for a, b in zip(some, other, strict=True)]).max())


def _worst_layer(model: PreTrainedModel, export: PreTrainedModel) -> tuple[float, str]:
    layers = structured_layers(model)
    if not layers:
        return 0.0, ""
    errors = torch.tensor([layer_error(layer, export.get_submodule(path)) for path, layer in layers.items()])
    return float(errors.max()), list(layers)[int(errors.argmax())]  # both find a number that is not one


@torch.inference_mode()
def layer_error(layer: StructuredLayer, stored: nn.Module) -> float:
    """Return ‖(Ŵ − W)x + b̂ − b‖ / ‖Wx + b‖ in float64, for the weight Ŵ stored for the factors W of a layer.

    x runs over random vectors for a matrix, over every row for a table.
    """
    factored, dense = in_format(layer, torch.float64), in_format(stored, torch.float64)
    missed, whole = 0.0, 0.0
    for given in _layer_inputs(layer):
        expected = factored(given)
        missed += float((dense(given) - expected).square().sum())
        whole += float(expected.square().sum())
    return (missed / whole) ** 0.5 if whole else missed


def _layer_inputs(layer: StructuredLayer) -> list[Float[Tensor, "_ n"] | Int[Tensor, " _"]]:
    rows, columns = layer.matrix
    device = next(itertools.chain(layer.parameters(), layer.buffers())).device
    if isinstance(layer, FactoredEmbedding):
        return list(torch.arange(rows, device=device).split(_ROWS))
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(_VECTORS, columns, generator=generator, dtype=torch.float64).to(device)]
