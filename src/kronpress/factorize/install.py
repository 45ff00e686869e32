"""Put factors where a dense layer stood, and settle the output head over them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.checkpoint import note
from kronpress.errors import KronpressError
from kronpress.factorize.target import Fitted, Target
from kronpress.families import Site, base_prefix, family_of, has_module, replace_module
from kronpress.layers import (
    FactoredEmbedding,
    FactoredHead,
    FusedLinear,
    StructuredLayer,
    bias_of,
    linear,
    quantized_tensors,
    rounded_inputs,
    scale_of,
    stored_numbers,
    weight_of,
)
from kronpress.records import LayerChange

FitTo: TypeAlias = Callable[[Float[Tensor, "out in"], Target, Int[Tensor, " rows"] | None], Fitted]


@torch.no_grad()
def replace_site(model: PreTrainedModel, site: Site, fit: FitTo, *, whole: bool = False) -> LayerChange:
    """Put what `fit` makes of a dense weight, or of each share of a fused one, in its place; return what changed.

    Args:
        model: the model.
        site: where the dense layer stands.
        fit: gives the layer that stands for a weight, and is told which rows of a fused one that is.
        whole: let a fused weight be one matrix.

    Raises:
        KronpressError: the site has been factorized already.
    """
    layer = dense_at(model, site)
    parted = shares_of(layer, site, whole=whole)
    rows = [None] if len(parted) == 1 else site.split(torch.arange(len(weight_of(layer))))
    shares = [fit(weight_of(part), Target.of(site, part), its) for part, its in zip(parted, rows, strict=True)]
    parts = [share.layer for share in shares]
    runs = None if site.fusion is None or whole else site.fusion.runs
    structured = parts[0] if runs is None else FusedLinear.of(parts, bias=bias_of(layer), runs=runs)
    if isinstance(structured, FactoredEmbedding):
        structured.scale = scale_of(layer)
    error, norm = math.hypot(*(share.error for share in shares)), math.hypot(*(share.norm for share in shares))
    replace_module(model, site.path, module=structured)
    return LayerChange(
        path=site.path,
        role=site.role,
        block=site.block,
        parameters_before=stored_numbers(layer),
        parameters_after=structured.parameter_count,
        relative_error=error / max(norm, 1e-30),
        layer=structured.extra_repr() or repr(structured),
    )


def dense_at(model: PreTrainedModel, site: Site) -> nn.Module:
    """Return the dense layer at a site.

    Raises:
        KronpressError: the site has been factorized already.
    """
    layer = model.get_submodule(site.path)
    if isinstance(layer, StructuredLayer):
        raise KronpressError(
            f"{site.path} has factors or codes already; factorize first, choose other sites, or set again: true to "
            "factorize factors anew"
        )
    return layer


def multiplied_out(layer: nn.Module, site: Site) -> nn.Module:
    """Return the dense layer that computes what the factors at a site compute; a dense one is returned itself.

    Raises:
        KronpressError: it has codes of a grid, which would be lost, or is a table or a head over one.
    """
    if not isinstance(layer, StructuredLayer):
        return layer
    if any(chain(quantized_tensors(layer), rounded_inputs(layer))):
        raise KronpressError(f"{site.path} has codes of a grid, which factors would lose; quantize after factorizing")
    if isinstance(layer, FactoredEmbedding | FactoredHead):
        raise KronpressError(f"{site.path} is a factorized table, which again: true does not take; choose other sites")
    return layer.to_dense()


@torch.no_grad()
def multiply_out(model: PreTrainedModel, sites: Sequence[Site]) -> None:
    """Put the dense layers in the place of factors at sites; see `multiplied_out`."""
    for site in sites:
        layer = model.get_submodule(site.path)
        dense = multiplied_out(layer, site)
        if dense is not layer:
            replace_module(model, site.path, module=dense)


def shares_of(layer: nn.Module, site: Site, *, whole: bool = False) -> list[nn.Module]:
    """Return the dense layers that a module stands for: itself, or one without bias for each share of a fused one."""
    return [layer] if site.fusion is None or whole else [linear(share) for share in site.split(weight_of(layer))]


def dense_shares(model: PreTrainedModel, site: Site, *, whole: bool = False, again: bool = False) -> list[nn.Module]:
    """Return `shares_of` the layer at a site; none where it has been factorized already, if not `again`."""
    layer = model.get_submodule(site.path)
    layer = multiplied_out(layer, site) if again else layer
    return [] if isinstance(layer, StructuredLayer) else shares_of(layer, site, whole=whole)


def without_tied_head(model: PreTrainedModel, sites: Sequence[Site], *, head: str | None) -> list[Site]:
    """Return the sites without an output head that shares its matrix with a token table among them."""
    tied = model.config.tie_word_embeddings or head == "tied"
    shared = tied and any(site.role == "embedding" for site in sites)
    return [site for site in sites if not (shared and site.role == "head")]


def settle_head(model: PreTrainedModel, *, mode: str | None) -> None:
    """Give a model whose embedding has just been factorized the head that `mode` names (see `Factorize.head`).

    Raises:
        KronpressError: a head of its own is to be tied to an embedding of another size.
    """
    family = family_of(model)
    embedding = model.get_submodule(base_prefix(model) + family.embedding)
    if not (has_module(model, family.head) and isinstance(embedding, FactoredEmbedding)):
        return
    head = model.get_submodule(family.head)
    if isinstance(head, StructuredLayer):  # settled by an earlier step
        return
    if not model.config.tie_word_embeddings:
        if mode == "tied":
            _drop_head(model, head, embedding)
        return
    if mode in ("tied", None):
        replace_module(model, family.head, module=FactoredHead.of(embedding, bias=bias_of(head)))
        return
    model.config.tie_word_embeddings = False
    own = copy.deepcopy(head)  # BERT shares the bias of its head with another module
    if mode == "untied":
        own = FactoredHead.of(copy.deepcopy(embedding), bias=bias_of(own))
    replace_module(model, family.head, module=own)


def _drop_head(model: PreTrainedModel, head: nn.Module, embedding: FactoredEmbedding) -> None:
    """Tie a head that has weights of its own to the factors of the embedding, and say so."""
    path, weight = family_of(model).head, weight_of(head)
    if weight.shape != embedding.matrix:
        raise KronpressError(
            f"{path} is {tuple(weight.shape)} and the embedding {embedding.matrix}, so that they cannot be tied; "
            "leave out head: tied"
        )
    replace_module(model, path, module=FactoredHead.of(embedding, bias=bias_of(head)))
    model.config.tie_word_embeddings = True
    note(
        model,
        f"head: tied dropped the trained weights of the output head {path} ({weight.numel():,} numbers, other than "
        "those of the embedding); without head: tied they are kept",
    )
