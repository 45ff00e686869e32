"""Write a model as a plain checkpoint of its base architecture, which opens without kronpress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from kronpress.checkpoint import Probe, bytes_of, files, structured_layers, write_checkpoint
from kronpress.export.exporter import EXPORTERS, Export, Exporter
from kronpress.export.parity import comparison_inputs, measure
from kronpress.export.plain import multiply_out


@EXPORTERS.enroll
@dataclass(frozen=True)
class DenseExporter(Exporter):
    """A plain checkpoint of the base architecture, which opens without kronpress."""

    kind: ClassVar[str] = "dense"

    def write(self, model: PreTrainedModel, folder: str | Path, *, tokenizer: Any = None) -> Export:
        """Multiply factors, scales and orders out and save the result, once it is proven to be the same.

        What is compared with `model` is the checkpoint as it opens again from disk; see `parity` for how. A model
        without factors is written as it is. The base architecture must have a place for every part.
        """
        folder = Path(folder)
        files.require_empty(folder)
        plain = multiply_out(model)
        with files.staged(folder, needed=bytes_of(plain)) as staging:
            write_checkpoint(staging, plain, tokenizer=tokenizer)
            reopened = _reopen(staging, like=model)
            parity = measure(model, reopened, inputs=_inputs(staging, tokenizer, model))
            parity.check(tolerance=self.tolerance, place=str(folder))
            parameters = sum(parameter.numel() for parameter in reopened.parameters())
            export = Export(folder, _done(len(structured_layers(model))), parameters, parity)
            files.write_text(staging / "README.md", _card(export, type(reopened).__name__, tolerance=self.tolerance))
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
    return f"{layers} layers with factors or codes made dense" if layers else "a plain model, as it is"


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
