"""Ties between the token embedding and the output head when the table is factored."""

from __future__ import annotations

from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.families import base_prefix, family_of, has_module
from kronpress.layers import FactoredEmbedding, FactoredHead, StructuredLayer


def share_tied_factors(model: PreTrainedModel) -> None:
    """Make a factored head share the table of the factored embedding, where the model ties the two.

    Tells transformers which tensors are tied, so that they are saved once and tied again on load.
    """
    family = family_of(model)
    embedding_path = base_prefix(model) + family.embedding
    if not has_module(model, family.head):
        return
    embedding, head = model.get_submodule(embedding_path), model.get_submodule(family.head)
    if not model.config.tie_word_embeddings:
        pass
    elif isinstance(embedding, FactoredEmbedding) and isinstance(head, FactoredHead):
        if head.table.spec() != embedding.spec():
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


def _declare(model: PreTrainedModel, table: FactoredEmbedding, *, path: str, head: str) -> None:
    own = (f"{head}.weight", f"{head}.table.")
    kept = {key: value for key, value in (model._tied_weights_keys or {}).items() if not key.startswith(own)}
    parameters = {f"{head}.table.{name}": f"{path}.{name}" for name, _ in table.named_parameters()}
    model._tied_weights_keys = kept | parameters
    orders = [f"{head}.table.{name}" for name, _ in table.named_buffers()]  # transformers ties parameters only
    model._keys_to_ignore_on_save = {*(model._keys_to_ignore_on_save or ()), *orders}
    model._keys_to_ignore_on_load_missing = {*(model._keys_to_ignore_on_load_missing or ()), *orders}
