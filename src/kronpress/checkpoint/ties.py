"""Ties between the token embedding and the output head: what the tensors say, and what factors share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.checkpoint.notes import note
from kronpress.errors import KronpressError
from kronpress.families import base_prefix, family_of, has_module
from kronpress.layers import FactoredEmbedding, FactoredHead, StructuredLayer


def settle_ties(model: PreTrainedModel) -> None:
    """Let a model's config say whether embedding and head are tied, as its tensors are.

    Transformers keeps a head that a file holds beside another embedding, though the config says that they are tied;
    whatever ties them anew would lose it. Where they are tied, the bias that the head computes with counts.
    """
    family, config = family_of(model), model.config
    if not has_module(model, family.head) or any(parameter.is_meta for parameter in model.parameters()):
        return
    embedding = model.get_submodule(base_prefix(model) + family.embedding)
    head = model.get_submodule(family.head)
    if not isinstance(embedding, StructuredLayer) and not isinstance(head, StructuredLayer):
        _settle_weights(model, embedding, head)
    elif config.tie_word_embeddings and not (
        isinstance(embedding, FactoredEmbedding) and isinstance(head, FactoredHead)
    ):
        _untie(model, head)
    if config.tie_word_embeddings:
        _settle_biases(model, head=f"{family.head}.")


def _settle_weights(model: PreTrainedModel, embedding: nn.Module, head: nn.Module) -> None:
    weight, table = head.weight, embedding.weight
    assert isinstance(weight, nn.Parameter) and isinstance(table, nn.Parameter)
    if model.config.tie_word_embeddings and not _equal(weight, table):
        _untie(model, head)
        note(
            model,
            "its config says that the output head is the token embedding, but its weights hold a head of its own, "
            "which is kept (tie_word_embeddings: false)",
        )
    elif not model.config.tie_word_embeddings and weight is table:
        model.config.tie_word_embeddings = True
    else:
        return
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def _untie(model: PreTrainedModel, head: nn.Module) -> None:
    model.config.tie_word_embeddings = False
    if isinstance(head.bias, nn.Parameter):  # BERT shares it with another module
        head.bias = nn.Parameter(head.bias.detach().clone())


def _equal(weight: Tensor, table: Tensor) -> bool:
    return weight is table or (weight.shape == table.shape and torch.equal(weight, table.to(weight.device)))


def _settle_biases(model: PreTrainedModel, *, head: str) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for target, source in (model._tied_weights_keys or {}).items():
        if target.startswith(head) and target.endswith("bias") and target in parameters:
            owner, _, name = source.rpartition(".")
            setattr(model.get_submodule(owner), name, parameters[target])


def share_tied_factors(model: PreTrainedModel) -> None:
    """Make a factored head share the table of the factored embedding, where the model ties the two.

    Tells transformers which tensors are tied, so that they are saved once and tied again on load.
    """
    settle_ties(model)
    family = family_of(model)
    embedding_path = base_prefix(model) + family.embedding
    if not has_module(model, family.head):
        return
    embedding, head = model.get_submodule(embedding_path), model.get_submodule(family.head)
    _take_back(model, head=family.head)
    if not model.config.tie_word_embeddings:
        pass
    elif isinstance(embedding, FactoredEmbedding) and isinstance(head, FactoredHead):
        if head.table.spec != embedding.spec:
            raise KronpressError(
                f"'{family.head}' and '{embedding_path}' are tied, and their factors have other shapes; "
                "set tie_word_embeddings to false, or give both the same"
            )
        head.table = embedding
        _declare(model, embedding, path=embedding_path, head=family.head)
    elif isinstance(embedding, StructuredLayer) or isinstance(head, StructuredLayer):
        model.config.tie_word_embeddings = False
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
    if not any(parameter.is_meta for parameter in model.parameters()):
        model.tie_weights(recompute_mapping=False)


def _take_back(model: PreTrainedModel, *, head: str) -> None:
    """Forget what was declared of a head that may no longer be tied."""
    table = f"{head}.table."
    for name in ("_keys_to_ignore_on_save", "_keys_to_ignore_on_load_missing"):
        keys = getattr(model, name) or ()
        if any(key.startswith(table) for key in keys):
            setattr(model, name, {key for key in keys if not key.startswith(table)})
    tied = model._tied_weights_keys or {}
    if any(key.startswith(table) for key in tied):
        model._tied_weights_keys = {key: value for key, value in tied.items() if not key.startswith(table)}


def _declare(model: PreTrainedModel, table: FactoredEmbedding, *, path: str, head: str) -> None:
    kept = {key: value for key, value in (model._tied_weights_keys or {}).items() if key != f"{head}.weight"}
    parameters = {f"{head}.table.{name}": f"{path}.{name}" for name, _ in table.named_parameters()}
    model._tied_weights_keys = kept | parameters
    orders = [f"{head}.table.{name}" for name, _ in table.named_buffers()]  # transformers ties parameters only
    model._keys_to_ignore_on_save = {*(model._keys_to_ignore_on_save or ()), *orders}
    model._keys_to_ignore_on_load_missing = {*(model._keys_to_ignore_on_load_missing or ()), *orders}
