"""Ties between the token embedding and the output head when the table is factored."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from kronpress.families import base_prefix, family_of, has_module
from kronpress.layers import KroneckerEmbedding, KroneckerLinear, StructuredLayer

_SHARED = ("left", "right", "scales")


def share_tied_factors(model: PreTrainedModel) -> None:
    """Make a factored head share the factors of the factored embedding, where the model ties the two.

    Tells transformers which parameters are tied, so that they are saved once and tied again on load.
    """
    family = family_of(model)
    embedding_path = base_prefix(model) + family.embedding
    if not (model.config.tie_word_embeddings and has_module(model, family.head)):
        return
    embedding, head = model.get_submodule(embedding_path), model.get_submodule(family.head)
    if not (isinstance(embedding, KroneckerEmbedding) and isinstance(head, KroneckerLinear)):
        _untie_if_half_factored(model, embedding, head)
        return
    names = [name for name in _SHARED if getattr(embedding, name) is not None]
    for name in names:
        setattr(head, name, getattr(embedding, name))
    kept = {key: value for key, value in (model._tied_weights_keys or {}).items() if key != f"{family.head}.weight"}
    model._tied_weights_keys = kept | {f"{family.head}.{name}": f"{embedding_path}.{name}" for name in names}
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
    if not any(parameter.is_meta for parameter in model.parameters()):
        model.tie_weights(recompute_mapping=False)


def _untie_if_half_factored(model: PreTrainedModel, embedding: nn.Module, head: nn.Module) -> None:
    if isinstance(embedding, KroneckerEmbedding) or isinstance(head, StructuredLayer):
        model.config.tie_word_embeddings = False
        model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
