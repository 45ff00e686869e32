"""How much of its model a run has in memory: all of it, or one block at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedModel

from kronpress import processes
from kronpress.checkpoint import bytes_of
from kronpress.errors import KronpressError
from kronpress.layers import quantized_tensors
from kronpress.memory import available_bytes
from kronpress.run.inputs import computing_device
from kronpress.run.recipe import Recipe

SHARD = "1GB"  # of the files of a model whose blocks stay in files


@dataclass(frozen=True)
class Room:
    """What of a model is in memory, and why, in a sentence; empty where there is nothing to say."""

    memory: Literal["whole", "blocks"]
    reason: str = ""

    @classmethod
    def of(cls, recipe: Recipe, model: PreTrainedModel) -> Room:
        """Return what a recipe asks for, or what suits the memory that is available; the model is as it was opened.

        Raises:
            KronpressError: the recipe asks for blocks, and that is not possible.
        """
        if recipe.memory == "whole":
            return cls("whole")
        obstacle = next(_obstacles(recipe, model), None)
        if recipe.memory == "blocks":
            if obstacle is not None:
                raise KronpressError(f"memory: blocks keeps one block of the model in memory, and {obstacle}")
            return cls("blocks", "as asked for, the blocks of the model stay in files, one at a time being in memory")
        needed, available = _needed(recipe, model), available_bytes()
        if available is None or needed <= available / 2:
            return cls("whole")
        sizes = f"the model would take {needed / 1e9:,.1f} GB of the {available / 1e9:,.1f} GB of memory available"
        if obstacle is not None:
            return cls("whole", f"note: {sizes}, and it has to be in memory as a whole: {obstacle}")
        return cls("blocks", f"{sizes}: its blocks stay in files, one at a time being in memory")


def _needed(recipe: Recipe, model: PreTrainedModel) -> int:
    """Return what the model takes in float32, twice where a step compares with it."""
    models = 2 if any(step.needs().teacher for step in recipe.steps) else 1
    return models * bytes_of(model, dtype=torch.float32)


def _obstacles(recipe: Recipe, model: PreTrainedModel) -> Iterator[str]:
    """Say what stands against keeping one block in memory, each with its remedy."""
    remedy = "leave it out, or set memory: whole"
    if sys.platform == "win32":
        yield "Windows removes no file that is being read; set memory: whole"
    if processes.count() > 1:
        yield f"{processes.count()} processes have the model as a whole; start one, or set memory: whole"
    if computing_device().type != "cpu":
        yield "a GPU takes the model as a whole; hide it (CUDA_VISIBLE_DEVICES=), or set memory: whole"
    if any(quantized_tensors(model)):
        yield "the model has codes of a grid; name the model that they were made of, or set memory: whole"
    for index, step in enumerate(recipe.steps):
        if not step.works_by_block(model):
            yield f"steps.{index} ({step.kind}), as the recipe has it, needs all of them; {remedy}"
