"""Let a model with a task's head answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.bars import Bar
from kronpress.precision import mixed_precision
from kronpress.tasks.batches import by_length, collate
from kronpress.tasks.task import Feature, Outputs

TOKENS_PER_BATCH = 4096


def predict(
    model: PreTrainedModel,
    features: Sequence[Feature],
    *,
    progress: str | None = None,
    after_batch: Callable[[list[int]], None] | None = None,
) -> list[Outputs]:
    """Return what the head gives for each feature, in their order, computed in the number format that was chosen.

    Args:
        model: with the task's head; evaluated in evaluation mode and left in the mode it was in.
        features: in any order, batched by length.
        progress: what the progress bar is called; none by default.
        after_batch: called with the indices of the features of each batch when the model has read them.
    """
    found: dict[int, Outputs] = {}
    lengths = [len(feature.ids) for feature in features]
    mode = model.training
    model.eval()
    with torch.inference_mode(), mixed_precision(model.device):
        bar = Bar(total=len(features), desc=progress, unit="text", hidden=not progress, leave=False)
        for rows in by_length(lengths, tokens=TOKENS_PER_BATCH):
            inputs = collate([features[row] for row in rows], pad=int(model.config.pad_token_id or 0))
            given = outputs_of(model, {name: value.to(model.device) for name, value in inputs.items()})
            if after_batch is not None:
                after_batch(rows)
            for row, output in zip(rows, given.float().cpu(), strict=True):
                found[row] = output[..., : lengths[row]].numpy() if output.dim() > 1 else output.numpy()
            bar.update(len(rows))
        bar.close()
    model.train(mode)
    return [found[row] for row in range(len(features))]


def outputs_of(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Float[Tensor, "batch *outputs"]:
    """Return the logits of a batch, (batch, classes), or (batch, 2, tokens) for spans."""
    options = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
    result = model(**inputs, **options)
    if "start_logits" in result:
        return torch.stack([result.start_logits, result.end_logits], dim=1)
    logits: Tensor = result.logits
    return logits
