"""The transformers plug-in: makes `from_pretrained` open checkpoints with structured layers.

A checkpoint keeps the module paths of its base model; only leaves are swapped, and `config.json` says
how under `quantization_config`. Its `model_type` is `kronpress_<base>`, which only this plug-in knows:
without it transformers would fill the swapped layers with random numbers, and so it stops instead.
"""

from __future__ import annotations

import reprlib
from typing import Any

from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import auto_factory, modeling_auto
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from kronpress.checkpoint.contents import require_one_folder
from kronpress.checkpoint.offload import require_orders_in_memory, require_ties_together
from kronpress.checkpoint.overlooked import watchful_train
from kronpress.checkpoint.resize import guarded_resize
from kronpress.checkpoint.ties import share_tied_factors
from kronpress.errors import KronpressError
from kronpress.families import FAMILIES, base_prefix, has_module, replace_module
from kronpress.layers import StructuredLayer, from_spec, parse_spec, require_fit

FORMAT_VERSION = 1
PREFIX = "kronpress_"


@register_quantization_config("kronpress")
class KronpressConfig(QuantizationConfigMixin):
    """The `quantization_config` of a checkpoint: what stands at each swapped module path.

    Attributes:
        modules: path → the layer's `spec()`.
        format_version: raised when the meaning of the fields changes.
    """

    def __init__(self, modules: Any = None, format_version: Any = FORMAT_VERSION, **unknown: Any) -> None:
        self.quant_method: Any = "kronpress"
        self.modules: dict[str, dict[str, Any]] = {} if modules is None else modules
        self.format_version: int = format_version
        unknown.pop("quant_method", None)
        if unknown or type(format_version) is not int or format_version != FORMAT_VERSION:
            other = f"{sorted(unknown) or 'no other fields'}"
            raise KronpressError(
                f"the checkpoint has format version {format_version!r:.40} with {other:.200}; "
                f"this kronpress reads version {FORMAT_VERSION}: install a newer kronpress"
            )
        if not isinstance(self.modules, dict):
            raise KronpressError(
                f"quantization_config.modules is {reprlib.repr(modules):.60}, not a mapping of module paths to layers; "
                "restore config.json, or save the model again"
            )
        for path, spec in self.modules.items():
            parse_spec(spec, place=_place(path))


@register_quantizer("kronpress")
class KronpressQuantizer(HfQuantizer):
    """Swaps the structured layers in before the weights are loaded."""

    quantization_config: KronpressConfig

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, device_map: Any = None, **options: Any
    ) -> None:
        require_one_folder(options.get("checkpoint_files") or ())
        install(model, self.quantization_config.modules)
        require_ties_together(model, device_map)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        require_orders_in_memory(model)

    def is_serializable(self) -> bool:
        """Say that `save_pretrained` works."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Say that adapters may be trained on top."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """Say that the factors themselves train; `Trainer` refuses the model otherwise."""
        return True

    @property
    def is_compileable(self) -> bool:
        """Say that `torch.compile` works."""
        return True


def install(model: PreTrainedModel, modules: dict[str, dict[str, Any]]) -> None:
    """Replace the leaves named in `modules` by empty structured layers, on the meta device or in place."""
    paths = {path: here for path in modules if (here := _path_in(model, path)) is not None}
    for path, here in paths.items():  # a base model opened from a checkpoint with a head lacks the head's
        require_fit(parse_spec(modules[path], place=_place(path)), model.get_submodule(here), place=_place(path))
    for path, here in paths.items():
        like = next(model.get_submodule(here).parameters())
        replace_module(model, here, module=from_spec(modules[path], device=like.device, dtype=like.dtype))
    whole = {type(model.get_submodule(here)).__name__ for here in paths.values()}
    model._no_split_modules = {*(model._no_split_modules or ()), *whole}  # a layer stays on one device
    share_tied_factors(model)


def _place(path: str) -> str:
    return f"quantization_config.modules['{path[:120]}']"


def _path_in(model: PreTrainedModel, path: str) -> str | None:
    prefix = f"{model.base_model_prefix}."
    for candidate in (path, path.removeprefix(prefix), base_prefix(model) + path):
        if has_module(model, candidate):
            return candidate
    return None


def structured_layers(model: nn.Module) -> dict[str, StructuredLayer]:
    """Return the structured layers of a model by path, none of them inside of another."""
    found: dict[str, StructuredLayer] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, StructuredLayer) and not path.startswith(tuple(f"{outer}." for outer in found)):
            found[path] = module
    return found


def adopt(model: PreTrainedModel) -> PreTrainedModel:
    """Make `save_pretrained` and `Trainer` treat a model with swapped leaves as a kronpress checkpoint.

    A model without structured layers is left as it is: it is saved as a plain checkpoint.
    """
    layers = structured_layers(model)
    if not layers:
        return model
    share_tied_factors(model)
    adopted: Any = model
    adopted.__class__ = _plugin_class(type(model))
    adopted.config.__class__ = adopted.config_class
    adopted.config.model_type = adopted.config_class.model_type
    config = KronpressConfig({path: layer.spec() for path, layer in layers.items()})
    adopted.config.quantization_config = config
    adopted.hf_quantizer = KronpressQuantizer(config)
    adopted.is_quantized = True
    adopted.quantization_method = "kronpress"
    return model


def _plugin_class(model_class: type[PreTrainedModel]) -> type[PreTrainedModel]:
    if model_class.__name__.startswith("Kronpress"):
        return model_class
    if model_class not in _CLASSES:
        raise KronpressError(f"{model_class.__name__} is not a model class that kronpress can save")
    return _CLASSES[model_class]


_CLASSES: dict[type[PreTrainedModel], type[PreTrainedModel]] = {}


def _own_config(base: Any, model_type: str) -> Any:
    """Return a config class that checks what a file says of the layers before anything is made of it."""

    def from_dict(cls: Any, /, config_dict: dict[str, Any], **options: Any) -> Any:
        _require_layers(config_dict.get("quantization_config"))
        return base.from_dict.__func__(cls, config_dict, **options)

    fields = {"model_type": model_type, "from_dict": classmethod(from_dict)}
    return type(f"Kronpress{base.__name__}", (base,), fields)


def _require_layers(layers: Any) -> None:
    if isinstance(layers, dict) and layers.get("quant_method") == "kronpress":
        KronpressConfig(**layers)
    elif not isinstance(layers, KronpressConfig):
        raise KronpressError(
            f"the checkpoint's quantization_config is {reprlib.repr(layers):.60}, which does not say what layers "
            "kronpress put in; restore config.json, or save the model again"
        )


def _register_family(model_type: str) -> None:
    base_config = CONFIG_MAPPING[model_type]
    own_type = PREFIX + model_type
    config: Any = _own_config(base_config, own_type)
    AutoConfig.register(own_type, config)
    for mapping in _auto_mappings():
        if base_config in mapping:
            model_class = mapping[base_config]
            if isinstance(model_class, type):
                mapping.register(config, _subclass(model_class, config))


def _auto_mappings() -> list[Any]:
    return [value for value in vars(modeling_auto).values() if isinstance(value, auto_factory._LazyAutoMapping)]


def _subclass(model_class: type[PreTrainedModel], config: type[PreTrainedConfig]) -> type[PreTrainedModel]:
    if model_class not in _CLASSES:
        casts = {"half": nn.Module.half, "float": nn.Module.float}  # which transformers refuses to quantized models
        careful = {"resize_token_embeddings": guarded_resize(model_class), "train": watchful_train(model_class)}
        fields = {"config_class": config, "__module__": __name__, **casts, **careful}
        own = type(f"Kronpress{model_class.__name__}", (model_class,), fields)
        globals()[own.__name__] = own
        _CLASSES[model_class] = own
    return _CLASSES[model_class]


def register_families() -> None:
    """Tell transformers' Auto classes of `kronpress_<base>` for each family; called once at import."""
    for model_type in FAMILIES:
        _register_family(model_type)


register_families()
