"""The transformers plug-in: makes `from_pretrained` open checkpoints with structured layers.

A checkpoint keeps the module paths of its base model; only leaves are swapped, and `config.json` says
how under `quantization_config`. Its `model_type` is `kronpress_<base>`, which only this plug-in knows, and its weights
have a name of their own: without the plug-in transformers would fill the swapped layers with random numbers, and so it
stops instead.

Whatever class builds a model from such a config (`AutoModelForCausalLM`, `LlamaForCausalLM`, …), the model is of the
class that this module derives from it, which knows how to save it again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto import auto_factory, modeling_auto
from transformers.quantizers.auto import register_quantizer
from transformers.quantizers.base import HfQuantizer
from typing_extensions import override

from kronpress.checkpoint import config as described
from kronpress.checkpoint import fresh, weights
from kronpress.checkpoint.classes import become
from kronpress.checkpoint.config import METHOD, PREFIX, KronpressConfig, layers_of, place_of, require_layers
from kronpress.checkpoint.contents import require_one_folder
from kronpress.checkpoint.loaded import require_whole
from kronpress.checkpoint.offload import require_orders_in_memory, require_ties_together
from kronpress.checkpoint.overlooked import watchful_train
from kronpress.checkpoint.resize import guarded_resize
from kronpress.checkpoint.ties import share_tied_factors
from kronpress.errors import KronpressError
from kronpress.families import FAMILIES, base_prefix, family_of, has_module, replace_module
from kronpress.layers import (
    StructuredLayer,
    StructuredSpec,
    is_learning,
    packed,
    require_fit,
    stored_numbers,
    structured_layers,
)


@register_quantizer(METHOD)
class KronpressQuantizer(HfQuantizer):
    """Tells transformers that the weights are stored as they are, and may be saved, trained and compiled."""

    quantization_config: KronpressConfig

    @override
    def update_attn_implementation(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """Take over a config that a class of transformers has read, before the weights are looked for."""
        _claim(config)
        return config

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, device_map: Any = None, **options: Any
    ) -> None:
        require_layers(self.quantization_config)
        require_one_folder(options.get("checkpoint_files") or ())
        require_ties_together(model, device_map)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        adopt(model)
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


class KronpressModel(PreTrainedModel):
    """What a model class of transformers gets when its leaves are swapped; see `model_class`."""

    def __init__(self, config: PreTrainedConfig, *args: Any, **options: Any) -> None:
        layers = layers_of(config)
        if layers is None:
            raise KronpressError(
                f"the config of a {type(self).__name__} names no structured layers; give it that of a checkpoint"
            )
        with _plain(config):
            super().__init__(config, *args, **options)
        config.quantization_config = layers
        install(self, layers.modules)
        whole: Any = adopt(self)
        whole.init_weights()

    def _init_weights(self, module: nn.Module) -> None:
        deviation = getattr(self.config, "initializer_range", None) or 0.02
        if not fresh.drawn(module, deviation=deviation):
            parent: Any = super()
            parent._init_weights(module)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        parent: Any = super()  # which, for code beside its own, skips what has no tensors but those of its children
        parent._initialize_weights(module, is_custom_code and not isinstance(module, StructuredLayer))

    def mark_tied_weights_as_initialized(self, loading_info: Any) -> None:
        """Mark them, but keep in mind those of which no copy is stored: a head and its table are one object."""
        missing = set(loading_info.missing_keys)
        parent: Any = super()
        parent.mark_tied_weights_as_initialized(loading_info)
        tied = self.all_tied_weights_keys.items()
        loading_info.missing_keys |= {source for target, source in tied if {source, target} <= missing}

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        paths = list(structured_layers(self))
        inside = {key for key in loading_info.unexpected_keys if key.startswith(tuple(f"{path}." for path in paths))}
        super()._adjust_missing_and_unexpected_keys(loading_info)
        loading_info.unexpected_keys |= inside  # GPT-2's pattern for old buffers, `attn.bias`, takes ours for such
        require_whole(self, loading_info, structured=paths)

    @override
    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Any] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        variant: str | None = None,
        *more: Any,
        **options: Any,
    ) -> None:
        """Save as transformers does, the weights under their own name; what was swapped is written as it is now."""
        if not structured_layers(self):
            plain: Any = adopt(self)
            plain.save_pretrained(
                save_directory, is_main_process, state_dict, push_to_hub, max_shard_size, variant, *more, **options
            )
            return
        if variant is not None:
            raise KronpressError("a model with structured layers is saved without a variant; leave `variant` out")
        adapters = getattr(self, "_hf_peft_config_loaded", False)  # which are saved alone
        name = None if adapters else weights.VARIANT
        recorded = getattr(self.config, "quantization_config", None)
        given = None if is_learning(self) else state_dict  # which would hold latent numbers
        try:
            with nullcontext() if adapters else packed(self):
                adopt(self)
                super().save_pretrained(
                    save_directory, is_main_process, given, False, max_shard_size, name, *more, **options
                )
        finally:
            share_tied_factors(self)  # what learns has other tensors than what is packed
            self.config.quantization_config = recorded  # a model around this one has other paths
        if is_main_process and not adapters:
            weights.settle(Path(save_directory))
        if push_to_hub:
            sent = {name: options[name] for name in _HUB_OPTIONS if name in options}
            self.push_to_hub(options.get("repo_id", Path(save_directory).name), max_shard_size=max_shard_size, **sent)

    @override
    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Count as transformers does, and the numbers behind codes; those that are trained are parameters alone."""
        if only_trainable:
            return super().num_parameters(only_trainable, exclude_embeddings)
        left_out = stored_numbers(self.get_input_embeddings()) if exclude_embeddings else 0
        return stored_numbers(self) - left_out

    def take_weights(self, tensors: dict[str, Any], *, place: str) -> None:
        """Load the tensors of a checkpoint folder.

        Raises:
            KronpressError: one of them is missing or not read.
        """
        share_tied_factors(self)  # what learns has other tensors than what is packed
        missing, unread = self.load_state_dict(tensors, strict=False)
        shared = {*self.all_tied_weights_keys, *(self._keys_to_ignore_on_save or ())}
        faults = [f"lacks the weight '{key}'" for key in missing if key not in shared]
        faults += [f"has the weight '{key}', which the model has not" for key in unread]
        if faults:
            raise KronpressError(f"{place} {faults[0]}; it is not a checkpoint of this model: name one that is")


_HUB_OPTIONS = ("commit_message", "commit_description", "private", "token", "revision", "create_pr", "tags")


def install(model: PreTrainedModel, modules: Mapping[str, StructuredSpec]) -> None:
    """Replace the leaves named in `modules` by empty structured layers, on the meta device or in place.

    Raises:
        KronpressError: the model has no such leaf, or the layer does not fit it. A model without a head
            may lack that.
    """
    places = {path: here for path in modules if (here := _path_in(model, path)) is not None}
    for path in modules.keys() - places.keys() - {family_of(model).head}:
        raise KronpressError(
            f"quantization_config names the module '{path[:120]}', and this {type(model).__name__} has none there; "
            "restore config.json, or save the model again"
        )
    if len(set(places.values())) < len(places):
        raise KronpressError("quantization_config names a module twice; restore config.json, or save the model again")
    for path, here in places.items():
        require_fit(modules[path], model.get_submodule(here), place=place_of(path))
    for path, here in places.items():
        like = next(model.get_submodule(here).parameters())
        replace_module(model, here, module=modules[path].build(device=like.device, dtype=like.dtype))
    whole = {type(model.get_submodule(here)).__name__ for here in places.values()}
    model._no_split_modules = {*(model._no_split_modules or ()), *whole}  # a layer stays on one device
    share_tied_factors(model)


def _path_in(model: PreTrainedModel, path: str) -> str | None:
    prefix = f"{model.base_model_prefix}."
    for candidate in (path, path.removeprefix(prefix), base_prefix(model) + path):
        if candidate and has_module(model, candidate):
            return candidate
    return None


def adopt(model: PreTrainedModel) -> PreTrainedModel:
    """Make `save_pretrained` and `Trainer` treat a model with swapped leaves as a kronpress checkpoint.

    A model without structured layers is a plain one, and is saved as such.
    """
    layers = structured_layers(model)
    if not layers:
        _release(model)
        return model
    share_tied_factors(model)
    for part in model.modules():  # the base model inside of it can be saved too
        if isinstance(part, PreTrainedModel) and structured_layers(part) and _is_named(type(part)):
            become(part, model_class(type(part)))
    adopted: Any = model
    config = KronpressConfig({path: layer.spec for path, layer in layers.items()})
    _claim(adopted.config).quantization_config = config
    adopted.hf_quantizer = KronpressQuantizer(config)
    adopted.is_quantized = True
    adopted.quantization_method = METHOD
    return model


def _release(model: PreTrainedModel) -> None:
    """Make a model of ours, none of whose leaves is swapped any more, one of transformers again."""
    for part in model.modules():
        if isinstance(part, KronpressModel):
            become(part, type(part).__mro__[2])
            config: Any = part.config
            if type(config) in _CONFIGS.values():
                config.__class__ = _base_of(type(config))
                config.model_type = type(config).model_type
            described.forget_quantization(part)


def model_class(base: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Return the class of the models of the class `base` of transformers whose leaves are swapped.

    Raises:
        KronpressError: `base` is not of a supported family, or not a class of transformers.
    """
    if issubclass(base, KronpressModel):
        return base
    name = f"Kronpress{base.__name__}"
    if base.config_class not in _CONFIGS or not _is_named(base):
        raise KronpressError(
            f"{base.__name__} is not a model class that kronpress can open or save; take one that transformers has for "
            f"{', '.join(FAMILIES)}"
        )
    if name not in globals():
        casts = {"half": nn.Module.half, "float": nn.Module.float}  # which transformers refuses to quantized models
        careful = {"resize_token_embeddings": guarded_resize(base), "train": watchful_train(base)}
        fields = {"config_class": _CONFIGS[base.config_class], "__module__": __name__, **casts, **careful}
        globals()[name] = type(name, (KronpressModel, base), fields)
    own: type[PreTrainedModel] = globals()[name]
    return own


def _is_named(base: type[PreTrainedModel]) -> bool:
    """Say whether transformers has a name for a model class, or one was derived from it; OPT's decoder has none."""
    return issubclass(base, KronpressModel) or getattr(transformers, base.__name__, None) is base


_CONFIGS: dict[Any, Any] = {}  # the config class of transformers → the one for checkpoints with structured layers
_WITH_MODELS: set[Any] = set()


def _base_of(own: Any) -> Any:
    return next(base for base, derived in _CONFIGS.items() if derived is own)


def _claim(config: Any) -> Any:
    """Make a config of transformers one of the family's `kronpress_<base>`."""
    if type(config) not in _CONFIGS.values():
        if type(config) not in _CONFIGS:
            raise KronpressError(f"a {type(config).__name__} cannot describe a model with structured layers")
        own = _CONFIGS[type(config)]
        if str(config.model_type).startswith(PREFIX) and config.model_type != own.model_type:
            raise KronpressError(
                f"the checkpoint holds a {config.model_type} model, which no {type(config).__name__} describes; "
                "open it with AutoModelForCausalLM or another Auto class"
            )
        _register_models(own)
        config.__class__ = own
        config.model_type = own.model_type
    return config


@contextmanager
def _plain(config: Any) -> Iterator[None]:
    """Let a config be one without structured layers for a while, so that the models inside are built as they are."""
    own, layers = type(_claim(config)), config.quantization_config
    config.__class__ = _base_of(own)
    del config.quantization_config
    try:
        yield
    finally:
        config.__class__ = own
        config.quantization_config = layers


def _register_config(model_type: str) -> None:
    def new(cls: Any, *_: Any, **__: Any) -> Any:
        _register_models(cls)
        return object.__new__(cls)

    def weights_file(config: Any) -> str | None:
        layers = layers_of(config)
        return None if layers is not None and layers.format_version == 1 else weights.INDEX

    def from_dict(cls: Any, /, config_dict: dict[str, Any], **options: Any) -> Any:
        require_layers(config_dict.get("quantization_config"))
        return base.from_dict.__func__(cls, config_dict, **options)

    base: Any = CONFIG_MAPPING[model_type]
    own_type = PREFIX + model_type
    names = {"model_type": own_type, "transformers_weights": property(weights_file)}
    fields = {**names, "__new__": new, "from_dict": classmethod(from_dict)}
    own: Any = type(f"Kronpress{base.__name__}", (base,), {"__module__": __name__, **fields})
    globals()[own.__name__] = _CONFIGS[base] = own
    AutoConfig.register(own_type, own)


def _register_models(config: Any) -> None:
    """Tell the Auto classes of the models of a family, whose modules are loaded by that."""
    if config not in _WITH_MODELS:
        _WITH_MODELS.add(config)
        base = _base_of(config)
        for mapping in (value for value in vars(modeling_auto).values() if isinstance(value, _Mapping)):
            found: Any = mapping.get(base, None)
            if getattr(found, "config_class", None) is base:  # some mappings hold models of other families as well
                own: Any = model_class(found)
                mapping.register(config, own)


_Mapping = auto_factory._LazyAutoMapping


def _new_model(cls: type[PreTrainedModel], *args: Any, **options: Any) -> PreTrainedModel:
    """Make an object of the derived class where the config names structured layers."""
    config = options.get("config", args[0] if args else None)
    ours = type(config) in _CONFIGS.values()
    structured = ours or (isinstance(config, PreTrainedConfig) and layers_of(config) is not None)
    model: PreTrainedModel = object.__new__(model_class(cls) if structured else cls)
    return model


def __getattr__(name: str) -> Any:
    """Find a derived class by its name, as unpickling does."""
    base: Any = getattr(transformers, name.removeprefix("Kronpress"), None) if name.startswith("Kronpress") else None
    if getattr(base, "config_class", None) not in _CONFIGS:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return model_class(base)


def _is_true(record: logging.LogRecord) -> bool:
    """Say whether transformers is right to warn that a `kronpress_llama` is opened by a class for `llama`."""
    return f"model of type `{PREFIX}" not in record.getMessage()


logging.getLogger("transformers.configuration_utils").addFilter(_is_true)
for _model_type in FAMILIES:
    _register_config(_model_type)
setattr(PreTrainedModel, "__new__", staticmethod(_new_model))  # noqa: B010  (typed as a method)
