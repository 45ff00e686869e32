"""Low-rank adapters of peft on layers with factors, which peft does not know by itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kronpress.adapters.package import peft_package
from kronpress.checkpoint import structured_layers
from kronpress.errors import KronpressError
from kronpress.layers import FactoredEmbedding, StructuredLayer


def lora_config(model: PreTrainedModel, **options: Any) -> Any:
    """Return a `peft.LoraConfig` that puts adapters on the linear layers of `model`, with factors or without.

    Args:
        model: the model that the adapters are for.
        options: fields of `LoraConfig`; by default `target_modules` are all linear layers but the output head.

    Raises:
        KronpressError: peft is not installed.
    """
    config = peft_package().LoraConfig(**({"target_modules": linear_layers(model)} | options))
    config._register_custom_module({StructuredLayer: _adapter_class()})
    return config


def open_adapters(model: PreTrainedModel, folder: str | Path, **options: Any) -> Any:
    """Return `model` with the adapters that `save_pretrained` of peft wrote into `folder`.

    Args:
        model: the model that the adapters were trained on.
        folder: where adapter_config.json is.
        options: those of `peft.PeftModel.from_pretrained`, such as `is_trainable`.

    Raises:
        KronpressError: peft is not installed.
    """
    config = peft_package().LoraConfig.from_pretrained(str(folder))
    config._register_custom_module({StructuredLayer: _adapter_class()})
    return peft_package().PeftModel.from_pretrained(model, str(folder), config=config, **options)


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Return the paths of all linear layers, with factors or without, but the output head and what is inside."""
    factored = structured_layers(model)
    inside = tuple(f"{path}." for path in factored)
    head = model.get_output_embeddings()
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D | StructuredLayer)
        and not isinstance(module, FactoredEmbedding)
        and not path.startswith(inside)
        and module is not head
    ]


@cache
def _adapter_class() -> type[Any]:
    linear = peft_package().tuners.lora.Linear

    def sizes(_: Any, module: nn.Module) -> tuple[int, int]:
        assert isinstance(module, StructuredLayer)
        return module.matrix[1], module.matrix[0]

    def refuse(self: Any, *_: Any, **__: Any) -> None:
        raise KronpressError(
            f"an adapter cannot be merged into the factors of a {type(self.get_base_layer()).__name__}; keep it apart, "
            "or export the model with `kronpress export --format dense` and put the adapter on that"
        )

    plain = property(lambda _: {(): None})  # the variants of LoRA look at a dense weight
    fields = {"_get_in_out_features": sizes, "merge": refuse, "lora_variants": plain}
    return type("FactoredLoraLinear", (linear,), fields)
