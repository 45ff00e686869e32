"""Change the size of the vocabulary where the token table and the head are dense, and say what to do where not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.layers import StructuredLayer


def guarded_resize(base: type[PreTrainedModel]) -> Callable[..., Any]:
    """Return the `resize_token_embeddings` of a model class that looks for factors before it changes anything."""

    def resize_token_embeddings(
        self: PreTrainedModel, new_num_tokens: int | None = None, *options: Any, **named: Any
    ) -> Any:
        """Resize a dense table and its head.

        Raises:
            KronpressError: one of them has factors, and the size would change.
        """
        table, head = self.get_input_embeddings(), self.get_output_embeddings()
        factored = next((layer for layer in (table, head) if isinstance(layer, StructuredLayer)), None)
        if factored is None:
            return base.resize_token_embeddings(self, new_num_tokens, *options, **named)
        rows, multiple = factored.matrix[0], (options[0] if options else named.get("pad_to_multiple_of")) or 1
        wanted = -(-(rows if new_num_tokens is None else new_num_tokens) // multiple) * multiple
        if wanted != rows:
            raise KronpressError(
                f"the vocabulary cannot go from {rows} tokens to {wanted}: the {type(factored).__name__} over it has "
                "factors or codes whose shapes fix its rows; export the model with `kronpress export --format dense`, "
                "resize that and compress it again"
            )
        return table

    return resize_token_embeddings
