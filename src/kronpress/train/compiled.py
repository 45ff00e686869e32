"""Blocks translated by torch.compile for the time of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from kronpress.families import layout


@contextmanager
def compiled_blocks(*models: PreTrainedModel) -> Iterator[None]:
    """Compile each Transformer block by itself, inside of the block: blocks that are alike are translated once."""
    blocks = [model.get_submodule(path) for model in models for path in layout(model).block_paths]
    try:
        for block in blocks:
            block.compile(dynamic=False)
        yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None
