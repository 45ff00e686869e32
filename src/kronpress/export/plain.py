"""Build the plain model that computes what a model with factors computes."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kronpress.checkpoint import settle_ties, structured_layers
from kronpress.errors import KronpressError
from kronpress.layers import StructuredLayer, bias_of, scale_of, weight_of

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def multiply_out(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model as one of its base architecture, the factors multiplied out in float64.

    The result has the number format of `model`, which is left as it is and shares its other tensors with it.

    Raises:
        KronpressError: the base architecture has no place for a weight or a bias of the model, or does not round inputs
            of layers as the model does.
    """
    layers = structured_layers(model)
    for path, layer in layers.items():
        if layer.rounding is not None:
            raise KronpressError(
                f"{path} rounds its inputs to {layer.rounding.grid.levels}, which no layer of a plain checkpoint does; "
                "export a model whose inputs are not rounded (a stage or step without `inputs`)"
            )
    plain = _empty(model)
    inside = tuple(f"{path}." for path in layers)
    kept = {name: value for name, value in model.state_dict().items() if not name.startswith(inside)}
    found = plain.load_state_dict(kept, strict=False, assign=True)
    assert not found.unexpected_keys and all(name.startswith(inside) for name in found.missing_keys), found
    _share_buffers(plain, model)
    for path, layer in layers.items():
        fill(plain.get_submodule(path), twin(layer), dtype=model.dtype, place=path)
    _tie(plain)
    plain.eval()
    return plain


@torch.no_grad()
def twin(layer: StructuredLayer) -> nn.Module:
    """Return the dense twin of a layer, in float64."""
    return in_format(layer, torch.float64).to_dense()


def in_format(module: AnyModule, dtype: torch.dtype | None) -> AnyModule:
    """Return a copy of a module in evaluation mode, in another number format; it shares what need not change."""
    memo: dict[int, Any] = {}  # what deepcopy takes for the copies of these tensors
    for tensor in (*module.parameters(), *module.buffers()):
        cast = tensor.detach().to(dtype) if dtype and tensor.is_floating_point() else tensor
        is_parameter = isinstance(tensor, nn.Parameter) and cast is not tensor
        memo[id(tensor)] = nn.Parameter(cast, requires_grad=False) if is_parameter else cast
    duplicate = copy.deepcopy(module, memo)
    duplicate.eval()
    return duplicate


def fill(target: nn.Module, dense: nn.Module, *, dtype: torch.dtype, place: str) -> None:
    """Give a layer of the base architecture the weight of `dense`, turned as its class stores it, and its bias.

    A bias that `dense` lacks becomes zero.

    Raises:
        KronpressError: the shape is another, or `target` takes no bias; `place` is what the message calls it.
    """
    weight, bias, before = weight_of(dense), bias_of(dense), target.weight
    weight = weight.T if isinstance(target, Conv1D) else weight
    assert isinstance(before, Tensor)
    if weight.shape != before.shape:
        raise KronpressError(
            f"{place} is {tuple(weight.shape)} where the config of the base architecture calls for "
            f"{tuple(before.shape)}; export a model whose layers are as wide as its config says"
        )
    if bias is not None and bias_of(target) is None:
        raise KronpressError(
            f"{place} has a bias, and the base architecture has no place for it; export a model without that bias"
        )
    if bias_of(target) is not None:
        bias = torch.zeros(len(weight_of(dense)), device=weight.device) if bias is None else bias
        target.bias = nn.Parameter(bias.detach().to(dtype))
    target.weight = nn.Parameter(weight.to(dtype).contiguous())


def _empty(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the base architecture without memory."""
    base: Any = _base(type(model))
    with torch.device("meta"):
        plain: PreTrainedModel = base(base_config(model))
    pooler = getattr(model.base_model, "pooler", None)
    if isinstance(pooler, nn.Module) and getattr(plain.base_model, "pooler", pooler) is None:  # which no head reads
        setattr(plain.base_model, "pooler", copy.deepcopy(pooler).to("meta"))  # noqa: B010  (typed as a tensor)
    if model.can_generate():
        plain.generation_config = copy.deepcopy(model.generation_config)
    return plain


def _base(own: type[Any]) -> type[Any]:
    """Return the class that the plug-in derived `own` from, or `own` where it did not."""
    return next(each for each in own.__mro__ if not each.__name__.startswith("Kronpress"))


def base_config(model: PreTrainedModel) -> Any:
    """Return the config of a model as its base architecture has it."""
    config: Any = copy.deepcopy(model.config)
    config.__class__ = _base(type(config))
    config.model_type = config.__class__.model_type
    config.architectures = [_base(type(model)).__name__]
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _share_buffers(plain: PreTrainedModel, model: PreTrainedModel) -> None:
    """Take over the buffers that no checkpoint stores, such as rotary frequencies; a table's scale is its owner's."""
    buffers = dict(model.named_buffers())
    for name, buffer in list(plain.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            module = plain.get_submodule(owner)
            value = buffers[name] if name in buffers else torch.tensor(scale_of(module), device=model.device)
            module.register_buffer(leaf, value, persistent=False)


def _tie(plain: PreTrainedModel) -> None:
    """Tie embedding and head where the model did, if they are still equal; else let the config say that they differ."""
    settle_ties(plain)
    plain.all_tied_weights_keys = plain.get_expanded_tied_weights_keys(all_submodels=True)
    plain.tie_weights(recompute_mapping=False)
    _separate(plain)


def _separate(plain: PreTrainedModel) -> None:
    """Give parameters that are not tied a memory of their own, as saving drops the second of two that share one."""
    seen: set[int] = set()
    for name, parameter in list(plain.named_parameters(remove_duplicate=False)):
        if name not in plain.all_tied_weights_keys and parameter.data_ptr() in seen:
            parameter.data = parameter.data.clone()
        seen.add(parameter.data_ptr())
