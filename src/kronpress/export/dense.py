"""Write a model as a plain checkpoint of its base architecture, which opens without kronpress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from kronpress.checkpoint import Probe, bytes_of, files, structured_layers, write_checkpoint
from kronpress.export.exporter import EXPORTERS, Export
from kronpress.export.parity import TOLERANCE, comparison_inputs, measure
from kronpress.export.plain import multiply_out


@EXPORTERS.register("dense")
def export_dense(
    model: PreTrainedModel, folder: str | Path, *, tokenizer: Any = None, tolerance: float = TOLERANCE
) -> Export:
    """Multiply factors, scales and orders out and save the result, once it is proven to be the same.

    What is compared with `model` is the checkpoint as it opens again from disk; see `parity` for how.

    Args:
        model: any supported model, which is left as it is; one without factors is written as it is.
        folder: must be absent or empty, and stays so where the export is refused.
        tokenizer: saved beside the weights; it also gives the comparison a window of real text.
        tolerance: the largest difference of outputs that is allowed; see `Parity`.

    Raises:
        KronpressError: the export is not the model, the base architecture has no place for a part of it, the folder
            holds something, or the disk has too little space.
    """
    folder = Path(folder)
    files.require_empty(folder)
    plain = multiply_out(model)
    with files.staged(folder, needed=bytes_of(plain)) as staging:
        write_checkpoint(staging, plain, tokenizer=tokenizer)
        reopened = _reopen(staging, like=model)
        parity = measure(model, reopened, inputs=_inputs(staging, tokenizer, model))
        parity.check(tolerance=tolerance, place=str(folder))
        parameters = sum(parameter.numel() for parameter in reopened.parameters())
        export = Export(folder, _done(len(structured_layers(model))), parameters, parity)
        files.write_text(staging / "README.md", _card(export, type(reopened).__name__, tolerance=tolerance))
    return export


def _reopen(folder: Path, *, like: PreTrainedModel) -> PreTrainedModel:
    """Open a plain checkpoint as transformers does without kronpress."""
    config = AutoConfig.from_pretrained(folder)
    model_class: Any = getattr(transformers, config.architectures[0])
    attention = like.config._attn_implementation  # which no checkpoint stores
    model: PreTrainedModel = model_class.from_pretrained(folder, dtype=like.dtype, attn_implementation=attention)
    module: nn.Module = model
    module.to(like.device)
    return model


def _inputs(folder: Path, tokenizer: Any, model: PreTrainedModel) -> list[Tensor]:
    probe = Probe.read(folder)
    assert probe is not None
    return comparison_inputs(probe, tokenizer, model=model)


def _done(layers: int) -> str:
    return f"the factors of {layers} layers, multiplied out" if layers else "a model without factors, as it is"


def _card(export: Export, model_class: str, *, tolerance: float) -> str:
    return f"""---
library_name: transformers
tags: [kronpress]
---

# {export.folder.name}

A dense export by kronpress: {export.done}. It holds {export.parameters:,} parameters and needs nothing but
transformers. The size is that of the dense architecture again; what the compression lost in quality stays lost.

Parity with the compressed model: {export.parity.sentence(tolerance=tolerance)}.

```python
from transformers import {model_class}

model = {model_class}.from_pretrained("path/to/this/folder")
```
"""
