"""Write a model with the scales of its Kronecker terms multiplied into the factors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from kronpress.checkpoint import adopt, files, save, take_probe
from kronpress.export.exporter import EXPORTERS, Export
from kronpress.export.parity import TOLERANCE, comparison_inputs, measure
from kronpress.export.plain import in_format
from kronpress.layers import KroneckerFactors


@EXPORTERS.register("folded")
def export_folded(
    model: PreTrainedModel, folder: str | Path, *, tokenizer: Any = None, tolerance: float = TOLERANCE
) -> Export:
    """Fold the scales and save the result, a kronpress checkpoint, once it is proven to be the same (Krony-PT, 3.3).

    Args:
        model: any supported model, which is left as it is.
        folder: must be absent or empty.
        tokenizer: saved beside the weights; it also gives the comparison a window of real text.
        tolerance: the largest difference of outputs that is allowed; see `Parity`.

    Raises:
        KronpressError: the folded model computes something else, the folder holds something, or the disk is full.
    """
    folder = Path(folder)
    files.require_empty(folder)
    folded = in_format(model, None)
    layers = [part for part in folded.modules() if isinstance(part, KroneckerFactors) and part.scales is not None]
    for layer in layers:
        layer.fold_scales()
    parity = measure(model, adopt(folded), inputs=comparison_inputs(take_probe(model), tokenizer, model=model))
    parity.check(tolerance=tolerance, place=str(folder))
    parameters = sum(parameter.numel() for parameter in folded.parameters())
    save(folded, folder, tokenizer=tokenizer)
    return Export(folder, f"the scales of {len(layers)} layers folded into their factors", parameters, parity)
