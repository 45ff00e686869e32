"""Write a model with the scales of its Kronecker terms multiplied into the factors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel

from kronpress.checkpoint import adopt, files, save, take_probe
from kronpress.export.exporter import EXPORTERS, Export, Exporter
from kronpress.export.parity import comparison_inputs, measure
from kronpress.export.plain import in_format
from kronpress.layers import KroneckerFactors, stored_numbers


@EXPORTERS.enroll
@dataclass(frozen=True)
class FoldedExporter(Exporter):
    """A kronpress checkpoint without scales, which are multiplied into the factors (Krony-PT, section 3.3)."""

    kind: ClassVar[str] = "folded"

    def write(self, model: PreTrainedModel, folder: str | Path, *, tokenizer: Any = None) -> Export:
        """Fold the scales and save the result, once it is proven to be the same."""
        folder = Path(folder)
        files.require_empty(folder)
        folded = in_format(model, None)
        layers = [part for part in folded.modules() if isinstance(part, KroneckerFactors) and part.scales is not None]
        for layer in layers:
            layer.fold_scales()
        parity = measure(model, adopt(folded), inputs=comparison_inputs(take_probe(model), tokenizer, model=model))
        parity.check(tolerance=self.tolerance, place=str(folder))
        parameters = stored_numbers(folded)
        save(folded, folder, tokenizer=tokenizer)
        return Export(folder, f"the scales of {len(layers)} layers folded into their factors", parameters, parity)
