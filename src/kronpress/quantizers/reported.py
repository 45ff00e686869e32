"""What records tell of a scheme, and of the ranges that inputs of layers are rounded to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from kronpress.families import Site
from kronpress.layers import RoundedInputs, StructuredLayer, packed
from kronpress.quantizers.scheme import Scheme
from kronpress.quantizers.storage import Rounding, Storage
from kronpress.records import InputRange, NumberFormat, NumberFormats


def number_formats(scheme: Scheme) -> NumberFormats:
    """Return the bits and the quantizers of a scheme."""
    inputs = None if scheme.inputs is None or scheme.inputs.leaves else _format(scheme.inputs)
    return NumberFormats(_format(scheme.weights), _format(scheme.tables), inputs)


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


def _format(width: Storage | Rounding) -> NumberFormat:
    return NumberFormat(width.bits) if width.leaves else NumberFormat(width.bits, width.quantizer.kind, width.group)
