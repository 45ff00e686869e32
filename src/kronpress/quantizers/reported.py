"""What records tell of a scheme, and of the ranges that inputs of layers are rounded to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.families import Site, layout
from kronpress.layers import QuantizedTensor, RoundedInputs, StructuredLayer, matrices_of, packed, weight_of
from kronpress.quantizers.quantizer import BITS, Quantizer
from kronpress.quantizers.scheme import TABLES, Scheme
from kronpress.records import InputRange, NumberFormat, NumberFormats

_LEFT = NumberFormat(32)


def number_formats(model: PreTrainedModel) -> NumberFormats:
    """Return the bits that most weights, and most numbers in tables, are stored in, and inputs are rounded to."""
    plan = layout(model)
    counts: dict[str, Counter[NumberFormat]] = {part: Counter() for part in ("weights", "tables", "inputs")}
    for site in (*plan.beside, *plan.sites):
        layer = model.get_submodule(site.path)
        part = counts["tables" if site.role in TABLES else "weights"]
        for shape, tensor in _matrices(layer):
            part[_LEFT if tensor is None else _format(tensor)] += math.prod(shape)
        if isinstance(layer, StructuredLayer) and layer.rounding is not None:
            counts["inputs"][_format(layer.rounding)] += 1
    most = {name: part.most_common(1)[0][0] for name, part in counts.items() if part}
    return NumberFormats(most["weights"], most.get("tables", _LEFT), most.get("inputs"))


def _matrices(layer: nn.Module) -> list[tuple[tuple[int, ...], QuantizedTensor | None]]:
    """Return the shapes of matrices and factors, with what holds them on grids."""
    if isinstance(layer, StructuredLayer):
        return [(matrix.shape, matrix.quantized) for matrix in matrices_of(layer)]
    return [(tuple(weight_of(layer).shape), None)]


def rounded_sites(model: PreTrainedModel, scheme: Scheme) -> list[Site]:
    """Return the sites of a model whose inputs a scheme rounds."""
    return [target.site for target in scheme.targets(model) if target.rounding is not None]


def input_ranges(
    model: PreTrainedModel, sites: Sequence[Site], examples: Mapping[str, Tensor]
) -> tuple[InputRange, ...]:
    """Return how the inputs of layers are rounded, as it would be stored now.

    Args:
        model: whose inputs are rounded at all of the sites.
        sites: of the layers.
        examples: by path, what the layers were given as the rounding began.
    """
    with packed(model):
        return tuple(_range(model, site, examples.get(site.path)) for site in sites)


def _range(model: PreTrainedModel, site: Site, example: Tensor | None) -> InputRange:
    layer = model.get_submodule(site.path)
    assert isinstance(layer, StructuredLayer)
    inputs = layer.rounding
    assert inputs is not None, f"the inputs of {site.path} are not rounded"
    levels = inputs.grid.numbers
    return InputRange(
        path=site.path,
        role=site.role,
        block=site.block,
        levels=inputs.grid.levels,
        ends=(levels[0], levels[-1]),
        **_stored(inputs),
        low=None if example is None else float(example.min()),
        high=None if example is None else float(example.max()),
    )


def _stored(inputs: RoundedInputs) -> dict[str, float | None]:
    """Return the stored scale and shift."""
    numbers = {"scale": inputs.scale, "shift": inputs.shift}
    return {name: None if tensor is None else float(tensor) for name, tensor in numbers.items()}


def _format(part: QuantizedTensor | RoundedInputs) -> NumberFormat:
    quantizer = part.rule.kind if isinstance(part.rule, Quantizer) else None
    return NumberFormat(BITS[part.grid.levels], quantizer, part.grid.group)
