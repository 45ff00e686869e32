"""Keep what a model has learned of numbers on grids, so that an interrupted run goes on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.layers import QuantizedTensor, RoundedInputs
from kronpress.quantizers.quantizer import QUANTIZERS, Quantizer
from kronpress.quantizers.training import learning
from kronpress.validation import parse_named


def learned_by(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, dict[str, object]]]:
    """Return latent numbers with what was learned beside them, by name, and the quantizers by the path of the part."""
    tensors: dict[str, Tensor] = {}
    rules: dict[str, dict[str, object]] = {}
    for name, part in learning(model):
        assert isinstance(part.rule, Quantizer)
        rules[name] = {"name": part.rule.kind, **part.rule.model_dump(mode="json")}
        tensors |= {f"{name}.learned.{key}": number.detach() for key, number in part.learned.items()}
        if isinstance(part, QuantizedTensor) and part.latent is not None:
            tensors[f"{name}.latent"] = part.latent.detach()
    return tensors, rules


def go_on_learning(
    model: nn.Module, tensors: Mapping[str, Tensor], rules: Mapping[str, Mapping[str, object]], *, place: Path
) -> None:
    """Give packed parts back what `learned_by` returned, which was read at a place."""
    for name, fields in rules.items():
        part = model.get_submodule(name)
        assert isinstance(part, QuantizedTensor | RoundedInputs)
        rule: Quantizer = parse_named(fields, QUANTIZERS, key=f"{place}: {name}")
        begin = f"{name}.learned."
        learned = {key.removeprefix(begin): value for key, value in tensors.items() if key.startswith(begin)}
        if isinstance(part, QuantizedTensor):
            part.go_on(rule, learned, latent=tensors[f"{name}.latent"])
        else:
            part.go_on(rule, learned)


def keep_progress(model: nn.Module, path: Path) -> None:
    """Write latent numbers, what was learned beside them, and the quantizers; a checkpoint holds codes alone."""
    tensors, rules = learned_by(model)
    files.write_tensors(path, tensors, metadata={"rules": json.dumps(rules)})


def take_progress(model: nn.Module, path: Path) -> None:
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
    go_on_learning(model, tensors, rules, place=path)
