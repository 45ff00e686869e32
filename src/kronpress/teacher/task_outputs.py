"""What a fine-tuned teacher says of the examples of a task, stored: the outputs of its head, and its activations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from kronpress.activations.trace import Reading, Sizes, Trace, tracing
from kronpress.checkpoint.digests import weights_digest
from kronpress.families import vocabulary_size
from kronpress.tasks import Feature, predict
from kronpress.tasks.batches import by_length
from kronpress.tasks.predict import TOKENS_PER_BATCH
from kronpress.teacher.store import Column, Contents, Rows, Store
from kronpress.teacher.teacher import STORED, Offer, StoredTeacher

_OUTPUTS, _ACTIVATIONS = f"{STORED}outputs", f"{STORED}activations"


class StoredTask(StoredTeacher[Tensor]):
    """A teacher whose outputs and activations for the examples of a task are stored.

    Attributes:
        store: a row for each feature.
        spans: whether the outputs are two for each token, the start and the end of an answer.
    """

    def __init__(self, store: Store, offer: Offer, *, spans: bool) -> None:
        self.store, self.offer, self.spans = store, offer, spans

    def said(self, row: int) -> dict[str, Tensor]:
        """Return the outputs of the head for a feature, and its tokens' activations, (tokens, activations, dim)."""
        stored = self.store[row]
        outputs = stored["outputs"]
        said = {_OUTPUTS: outputs.reshape(2, -1) if self.spans else outputs}
        return said | ({_ACTIVATIONS: stored["activations"]} if "activations" in stored else {})

    def together(self, said: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Stack what was said of features, padded to the longest."""
        outputs = [feature[_OUTPUTS] for feature in said]
        longest = max(values.shape[-1] for values in outputs)
        batch = {_OUTPUTS: torch.stack([F.pad(values, (0, longest - values.shape[-1])) for values in outputs])}
        if _ACTIVATIONS in said[0]:
            batch[_ACTIVATIONS] = pad_sequence([feature[_ACTIVATIONS] for feature in said], batch_first=True)
        return batch

    def look(self, batch: Mapping[str, Tensor | None]) -> tuple[Tensor, Trace]:
        """Return what a batch carries."""
        outputs, activations = batch[_OUTPUTS], batch.get(_ACTIVATIONS)
        assert outputs is not None
        return outputs, Trace() if activations is None else Trace.of(activations, self.offer.readings)


def build_task(
    folder: Path, teacher: PreTrainedModel, features: Sequence[Feature], *, readings: Collection[Reading] = ()
) -> StoredTask:
    """Run a teacher once over the features and store what it says, or what is missing of that in the folder.

    Args:
        folder: for this alone; several trainings with the same teacher share it.
        teacher: fine-tuned for the task.
        features: as it reads them.
        readings: the activations to store beside the outputs of the head; not those of attention.

    Raises:
        KronpressError: the disk has not enough space.
    """
    contents = _contents(teacher, features, readings)

    def compute(rows: Rows, advance: Callable[[int], None]) -> dict[str, Tensor]:
        return _ask(teacher, [features[row] for row in rows], readings, advance=advance)

    offer = Offer(vocabulary_size(teacher), frozenset(readings), Sizes.of(teacher))
    return StoredTask(Store.build(folder, contents, compute, unit="text"), offer, spans=_gives_spans(teacher))


def activation_bytes(teacher: PreTrainedModel, features: Sequence[Feature], readings: Collection[Reading]) -> int:
    """Return what the activations of all features take on disk."""
    if not readings:
        return 0
    column = _activations(teacher, _lengths(features), readings)
    return int(column.lengths.sum()) * column.entry_bytes


def _ask(
    teacher: PreTrainedModel,
    features: Sequence[Feature],
    readings: Collection[Reading],
    *,
    advance: Callable[[int], None],
) -> dict[str, Tensor]:
    """Return what a teacher says of features, in the formats of the file."""
    activations: dict[int, Tensor] = {}
    with tracing(teacher, readings) as trace:

        def after_batch(rows: list[int]) -> None:
            if readings:
                states = trace.taken().to(torch.bfloat16).cpu()
                activations.update({row: states[place, : len(features[row].ids)] for place, row in enumerate(rows)})
            advance(len(rows))

        outputs = predict(teacher, features, after_batch=after_batch)
    columns = {"outputs": torch.cat([torch.from_numpy(values.ravel()) for values in outputs])}
    if readings:
        columns["activations"] = torch.cat([activations[row] for row in range(len(features))])
    return columns


def _contents(teacher: PreTrainedModel, features: Sequence[Feature], readings: Collection[Reading]) -> Contents:
    spans, lengths = _gives_spans(teacher), _lengths(features)
    numbers = 2 * lengths if spans else np.full(len(features), int(teacher.config.num_labels or 0))
    columns = {"outputs": Column(torch.float32, (), numbers)}
    if readings:
        columns["activations"] = _activations(teacher, lengths, readings)
    examples = hashlib.sha256(json.dumps([(feature.ids, feature.types) for feature in features]).encode()).hexdigest()
    kept = {"spans": spans, "readings": sorted(readings)}
    batches = list(by_length(lengths.tolist(), tokens=TOKENS_PER_BATCH))
    return Contents(weights_digest(teacher), examples, kept, columns, batches)


def _activations(
    teacher: PreTrainedModel, lengths: Int[np.ndarray, " features"], readings: Collection[Reading]
) -> Column:
    sizes = Sizes.of(teacher)
    return Column(torch.bfloat16, (sizes.activations(readings), sizes.dim), lengths)


def _lengths(features: Sequence[Feature]) -> Int[np.ndarray, " features"]:
    return np.asarray([len(feature.ids) for feature in features])


def _gives_spans(teacher: PreTrainedModel) -> bool:
    return type(teacher).__name__.endswith("ForQuestionAnswering")
