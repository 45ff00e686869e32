"""What `config.json` says of the structured layers of a checkpoint, under `quantization_config`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers.auto import register_quantization_config
from transformers.utils.quantization_config import QuantizationConfigMixin

from kronpress.errors import KronpressError, shown
from kronpress.layers import StructuredSpec, parse_spec, require_reasonable
from kronpress.plan import Plan

FORMAT_VERSION = 2
PREFIX = "kronpress_"
METHOD = "kronpress"


@register_quantization_config(METHOD)
class KronpressConfig(QuantizationConfigMixin):
    """The `quantization_config` of a checkpoint: what stands at each swapped module path.

    Attributes:
        modules: path → what stands there.
        format_version: raised when the meaning of the fields or files changes; 1 had weights in `model.safetensors`.
    """

    def __init__(self, modules: Any = None, format_version: Any = FORMAT_VERSION, **unknown: Any) -> None:
        self.quant_method: Any = METHOD
        self.format_version: int = format_version
        unknown.pop("quant_method", None)
        if unknown or type(format_version) is not int or not 1 <= format_version <= FORMAT_VERSION:
            other = f"{sorted(unknown) or 'no other fields'}"
            raise KronpressError(
                f"the checkpoint has format version {format_version!r:.40} with {other:.200}; "
                f"this kronpress reads version {FORMAT_VERSION}: install a newer kronpress"
            )
        if not isinstance(modules, dict | None):
            raise KronpressError(
                f"quantization_config.modules is {shown(modules)}, not a mapping of module paths to layers; "
                "restore config.json, or save the model again"
            )
        self.modules = {path: _parsed(spec, place=place_of(path)) for path, spec in (modules or {}).items()}

    @property
    def plan(self) -> Plan:
        """The modules as a plan."""
        return Plan(modules=self.modules)

    def to_dict(self) -> dict[str, Any]:
        """Return what stands in the file."""
        modules = {path: spec.model_dump(mode="json") for path, spec in self.modules.items()}
        return {"quant_method": self.quant_method, "modules": modules, "format_version": self.format_version}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Go through what stands in the file."""
        yield from self.to_dict().items()


def _parsed(spec: Any, *, place: str) -> StructuredSpec:
    if isinstance(spec, StructuredSpec):  # of a model that is there
        try:
            require_reasonable(spec)
        except KronpressError as error:
            raise KronpressError(f"{place} ({spec.kind}): {error}") from error
        return spec
    return parse_spec(spec, StructuredSpec, place=place)


def place_of(path: str) -> str:
    """Return what messages call the spec of a module."""
    return f"quantization_config.modules['{path[:120]}']"


def layers_of(config: PreTrainedConfig) -> KronpressConfig | None:
    """Return what a config says of structured layers, None where it names none."""
    layers = getattr(config, "quantization_config", None)
    if isinstance(layers, dict) and layers.get("quant_method") == METHOD:
        return KronpressConfig(**layers)
    return layers if isinstance(layers, KronpressConfig) else None


def forget_quantization(model: PreTrainedModel) -> None:
    """Drop what says that a model is quantized: its weights are plain numbers now and must save as such."""
    for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer"), (model, "quantization_method")):
        if hasattr(owner, name):
            delattr(owner, name)
    setattr(model, "is_quantized", False)  # noqa: B010  (typed as a module by torch)


def require_layers(layers: Any) -> None:
    """Check what a file says of the layers before anything is made of it."""
    if isinstance(layers, dict) and layers.get("quant_method") == METHOD:
        layers = KronpressConfig(**layers)
    if not isinstance(layers, KronpressConfig) or not layers.modules:
        raise KronpressError(
            f"the checkpoint's quantization_config is {shown(layers)}, which does not say what layers "
            "kronpress put in; restore config.json, or save the model again"
        )
