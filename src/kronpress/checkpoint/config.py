"""What `config.json` says of the structured layers of a checkpoint, under `quantization_config`."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig
from transformers.quantizers.auto import register_quantization_config
from transformers.utils.quantization_config import QuantizationConfigMixin

from kronpress.errors import KronpressError, shown
from kronpress.layers import parse_spec

FORMAT_VERSION = 2
PREFIX = "kronpress_"
METHOD = "kronpress"


@register_quantization_config(METHOD)
class KronpressConfig(QuantizationConfigMixin):
    """The `quantization_config` of a checkpoint: what stands at each swapped module path.

    Attributes:
        modules: path → the layer's `spec()`.
        format_version: raised when the meaning of the fields or files changes; 1 had weights in `model.safetensors`.
    """

    def __init__(self, modules: Any = None, format_version: Any = FORMAT_VERSION, **unknown: Any) -> None:
        self.quant_method: Any = METHOD
        self.modules: dict[str, dict[str, Any]] = {} if modules is None else modules
        self.format_version: int = format_version
        unknown.pop("quant_method", None)
        if unknown or type(format_version) is not int or not 1 <= format_version <= FORMAT_VERSION:
            other = f"{sorted(unknown) or 'no other fields'}"
            raise KronpressError(
                f"the checkpoint has format version {format_version!r:.40} with {other:.200}; "
                f"this kronpress reads version {FORMAT_VERSION}: install a newer kronpress"
            )
        if not isinstance(self.modules, dict):
            raise KronpressError(
                f"quantization_config.modules is {shown(modules)}, not a mapping of module paths to layers; "
                "restore config.json, or save the model again"
            )
        for path, spec in self.modules.items():
            parse_spec(spec, place=place_of(path))


def place_of(path: str) -> str:
    """Return what messages call the spec of a module."""
    return f"quantization_config.modules['{path[:120]}']"


def layers_of(config: PreTrainedConfig) -> KronpressConfig | None:
    """Return what a config says of structured layers, None where it names none."""
    layers = getattr(config, "quantization_config", None)
    if isinstance(layers, dict) and layers.get("quant_method") == METHOD:
        return KronpressConfig(**layers)
    return layers if isinstance(layers, KronpressConfig) else None


def require_layers(layers: Any) -> None:
    """Check what a file says of the layers before anything is made of it."""
    if isinstance(layers, dict) and layers.get("quant_method") == METHOD:
        KronpressConfig(**layers)
    elif not isinstance(layers, KronpressConfig):
        raise KronpressError(
            f"the checkpoint's quantization_config is {shown(layers)}, which does not say what layers "
            "kronpress put in; restore config.json, or save the model again"
        )
