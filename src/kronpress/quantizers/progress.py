"""Keep what a model has learned of numbers on grids, so that an interrupted run goes on from it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.layers import QuantizedTensor, RoundedInputs
from kronpress.quantizers.quantizer import QUANTIZERS, Quantizer
from kronpress.quantizers.training import learning
from kronpress.validation import parse_named


def keep_progress(model: PreTrainedModel, path: Path) -> None:
    """Write latent numbers, what was learned beside them, and the quantizers; a checkpoint holds codes alone."""
    tensors: dict[str, Tensor] = {}
    rules: dict[str, dict[str, object]] = {}
    for name, part in learning(model):
        assert isinstance(part.rule, Quantizer)
        rules[name] = {"name": part.rule.kind, **part.rule.model_dump(mode="json")}
        tensors |= {f"{name}.learned.{key}": number.detach() for key, number in part.learned.items()}
        if isinstance(part, QuantizedTensor) and part.latent is not None:
            tensors[f"{name}.latent"] = part.latent.detach()
    files.write_tensors(path, tensors, metadata={"rules": json.dumps(rules)})


def take_progress(model: PreTrainedModel, path: Path) -> None:
    """Give a model that was opened from its checkpoint back what `keep_progress` wrote beside it.

    Raises:
        KronpressError: the file is damaged, or of another model.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            rules = json.loads((stream.metadata() or {})["rules"])
            tensors = {key: stream.get_tensor(key) for key in list(stream.keys())}
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise KronpressError(f"{path} is damaged ({error}); remove the run's folder and begin anew") from error
    module: nn.Module = model
    for name, fields in rules.items():
        part = module.get_submodule(name)
        assert isinstance(part, QuantizedTensor | RoundedInputs)
        rule: Quantizer = parse_named(fields, QUANTIZERS, key=f"{path}: {name}")
        begin = f"{name}.learned."
        learned = {key.removeprefix(begin): value for key, value in tensors.items() if key.startswith(begin)}
        if isinstance(part, QuantizedTensor):
            part.go_on(rule, learned, latent=tensors[f"{name}.latent"])
        else:
            part.go_on(rule, learned)
