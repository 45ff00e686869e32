"""What a teacher predicts for windows of text, stored: the likeliest ids of each token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations.trace import Trace
from kronpress.checkpoint.digests import tensors_digest
from kronpress.errors import KronpressError
from kronpress.families import vocabulary_size
from kronpress.losses import IGNORED, LogitDistillation, Loss, Predictions, Top
from kronpress.precision import mixed_precision
from kronpress.teacher.live import text_live
from kronpress.teacher.store import Column, Contents, Rows, Store, require_small, stored_key
from kronpress.teacher.teacher import STORED, Offer, StoredTeacher, model_inputs

_IDS, _LOG_PROBABILITIES = f"{STORED}ids", f"{STORED}log_probabilities"
_BATCH_TOKENS = 4096
_CHUNK_ELEMENTS = 2**23  # logits that exist together: 32 MB in fp32, three times


@runtime_checkable
class Windows(Protocol):
    """Examples to train on: mappings with `input_ids` and `labels`, all of the same length, the same at every look."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True)
class Likeliest:
    """What is kept of a teacher's predictions.

    Attributes:
        k: how many of the likeliest ids of each token are told apart.
        temperature: what the logits are divided by.
        labeled: keep those of tokens with a label alone.
        vocabulary: size of the student's vocabulary, beyond which the teacher's is not looked at.
    """

    k: int
    temperature: float = 1.0
    labeled: bool = False
    vocabulary: int | None = None

    @classmethod
    def of(cls, losses: Mapping[str, Loss], *, vocabulary: int | None = None) -> Likeliest:
        """Return what the losses look at.

        Raises:
            KronpressError: they look at more than the likeliest ids at one temperature.
        """
        compared = {name: loss for name, loss in losses.items() if loss.compares}
        coarse = [loss for loss in compared.values() if isinstance(loss, LogitDistillation) and loss.top_k]
        if not compared:
            raise KronpressError(
                "no loss compares with a teacher, so there is nothing to store; leave cache_teacher out"
            )
        for name, loss in compared.items():
            if loss not in coarse:
                raise KronpressError(
                    f"the loss {name} needs more of the teacher than its likeliest tokens; with cache_teacher every "
                    "loss that compares must be 'logits' with a top_k, such as 64"
                )
        temperatures = sorted({loss.temperature for loss in coarse})
        if len(temperatures) > 1:
            raise KronpressError(
                f"the losses have the temperatures {temperatures}; teacher outputs are stored at one: make them equal"
            )
        largest = max(loss.top_k or 0 for loss in coarse)
        return cls(largest, temperatures[0], all(loss.labeled for loss in coarse), vocabulary)

    def places(self, window: Mapping[str, Tensor]) -> Bool[Tensor, " tokens"]:
        """Say of which tokens the predictions are kept."""
        labels = window["labels"]
        return labels != IGNORED if self.labeled else torch.ones_like(labels, dtype=torch.bool)

    def shared(self, teacher: PreTrainedModel) -> int:
        """Return the size of the vocabulary that teacher and student have in common.

        Raises:
            KronpressError: it is smaller than `k`.
        """
        size = vocabulary_size(teacher)
        size = size if self.vocabulary is None else min(size, self.vocabulary)
        if self.k > size:
            raise KronpressError(
                f"top_k is {self.k} and the teacher's vocabulary has {size} tokens; choose at most those"
            )
        return size


class StoredText(StoredTeacher[Top]):
    """A teacher whose likeliest ids for each token of a text are stored.

    Attributes:
        store: a row for each window.
        kept: what is stored of a window.
    """

    def __init__(self, store: Store, *, kept: Likeliest, vocabulary: int) -> None:
        self.store, self.kept = store, kept
        self.offer = Offer(vocabulary, frozenset(), None, top_k=kept.k)

    def said(self, row: int) -> dict[str, Tensor]:
        """Return the likeliest ids of each kept token of a window; their log-probabilities and that of all others.

        The latter, k + 1 a token in fp32, are scaled to sum to one, which fp16 had lost.
        """
        stored = self.store[row]
        log_probabilities = stored["log_probabilities"].float().log_softmax(dim=-1)
        return {_IDS: _unpacked(stored["ids"]), _LOG_PROBABILITIES: log_probabilities}

    def said_of(self, window: Mapping[str, Tensor], *, row: int) -> dict[str, Tensor]:
        """Return what was said of a window, as `said`, for each of its tokens: zeros for those that are not kept."""
        places = self.kept.places(window)
        said = self.said(row)
        return said if bool(places.all()) else {name: _spread(value, places) for name, value in said.items()}

    def look(self, batch: Mapping[str, Tensor | None]) -> tuple[Top, Trace]:
        """Return what a batch carries."""
        ids, log_probabilities = batch[_IDS], batch[_LOG_PROBABILITIES]
        assert ids is not None and log_probabilities is not None
        return Top(ids.flatten(0, 1), log_probabilities.flatten(0, 1), self.kept.temperature), Trace()


def open_text(folder: Path, windows: Windows, *, kept: Likeliest) -> StoredText:
    """Open what was stored of a text, without its teacher.

    Raises:
        KronpressError: it is unfinished or damaged, or other predictions or those for another text are stored there.
    """
    key = stored_key(folder)
    shared = key.get("kept", {}).get("shared") if isinstance(key.get("kept"), dict) else None
    vocabulary = shared if isinstance(shared, int) and kept.k <= shared <= (kept.vocabulary or shared) else kept.k
    contents = _contents(windows, kept, teacher=str(key.get("teacher")), vocabulary=vocabulary)
    return StoredText(Store.open(folder, contents), kept=kept, vocabulary=vocabulary)


def build_text(
    folder: Path, teacher: PreTrainedModel, windows: Windows, *, kept: Likeliest, max_bytes: int
) -> StoredText:
    """Run a teacher once over a text and store what it predicts, or what is missing of that in the folder.

    Raises:
        KronpressError: it would take more than `max_bytes`, or than is free on the disk.
    """
    check_size(windows, teacher, kept=kept, max_bytes=max_bytes)
    vocabulary = kept.shared(teacher)
    state = [*teacher.named_parameters(), *teacher.named_buffers()]
    contents = _contents(windows, kept, teacher=tensors_digest(state), vocabulary=vocabulary)

    def compute(rows: Rows, advance: Callable[[int], None]) -> dict[str, Tensor]:
        return _ask(teacher, [windows[row] for row in rows], kept=kept, advance=advance)

    teacher.eval()
    return StoredText(Store.build(folder, contents, compute, unit="window"), kept=kept, vocabulary=vocabulary)


def check_size(windows: Windows, teacher: PreTrainedModel, *, kept: Likeliest, max_bytes: int) -> None:
    """Check that what is to be stored would not be larger than allowed, and that the teacher has so many tokens.

    Raises:
        KronpressError: the size, the limit and what to change.
    """
    columns, tokens = _columns(windows, kept, vocabulary=kept.shared(teacher)), _tokens(windows, kept)
    require_small(
        Contents("", "", {}, columns),
        max_bytes=max_bytes,
        what=f"{len(windows):,} windows, {tokens} tokens of each, {kept.k} ids of each",
        remedy="raise it, lower top_k or train on fewer tokens",
    )


def _ask(
    model: PreTrainedModel,
    windows: Sequence[Mapping[str, Tensor]],
    *,
    kept: Likeliest,
    advance: Callable[[int], None],
) -> dict[str, Tensor]:
    """Return a teacher's predictions for some windows, in the formats of the file."""
    teacher, vocabulary = text_live(model), kept.shared(model)
    chunk = max(1, _CHUNK_ELEMENTS // vocabulary)
    size = max(1, _BATCH_TOKENS // len(windows[0]["input_ids"]))
    columns: dict[str, list[Tensor]] = {"ids": [], "log_probabilities": []}
    for start in range(0, len(windows), size):
        some = windows[start : start + size]
        inputs = {name: torch.stack([window[name] for window in some]) for name in model_inputs(some[0])}
        places = torch.stack([kept.places(window) for window in some]).flatten().nonzero()[:, 0]
        with torch.no_grad(), mixed_precision(model.device):
            predictions, _ = teacher.look({name: value.to(model.device) for name, value in inputs.items()})
            for part in places.to(model.device).split(chunk):
                logits = predictions.at(part).within(vocabulary).logits
                with torch.autocast(model.device.type, enabled=False):
                    top = Predictions(logits.float()).top(kept.k, temperature=kept.temperature)
                columns["ids"].append(_packed(top.ids, vocabulary).cpu())
                columns["log_probabilities"].append(top.log_probabilities.half().cpu())
        advance(len(some))
    return {label: torch.cat(parts) for label, parts in columns.items()}


def _contents(windows: Windows, kept: Likeliest, *, teacher: str, vocabulary: int) -> Contents:
    examples = tensors_digest(
        (name, value) for row in range(len(windows)) for name, value in sorted(windows[row].items())
    )
    columns = _columns(windows, kept, vocabulary=vocabulary)
    return Contents(teacher, examples, {**asdict(kept), "shared": vocabulary}, columns)


def _columns(windows: Windows, kept: Likeliest, *, vocabulary: int) -> dict[str, Column]:
    lengths = np.full(len(windows), _tokens(windows, kept))
    return {
        "ids": Column(_id_format(vocabulary), (kept.k,), lengths),
        "log_probabilities": Column(torch.float16, (kept.k + 1,), lengths),
    }


def _tokens(windows: Windows, kept: Likeliest) -> int:
    """Return of how many tokens of each window the predictions are kept."""
    return int(kept.places(windows[0]).sum())


def _id_format(vocabulary: int) -> torch.dtype:
    """Return the format with the fewest bytes; int16 holds ids modulo 2¹⁶."""
    return torch.int16 if vocabulary <= 2**16 else torch.int32


def _packed(ids: Int[Tensor, "tokens k"], vocabulary: int) -> Int[Tensor, "tokens k"]:
    return ids.to(_id_format(vocabulary))


def _unpacked(ids: Int[Tensor, "tokens k"]) -> Int[Tensor, "tokens k"]:
    return ids.long() % 2**16 if ids.dtype == torch.int16 else ids.long()


def _spread(values: Tensor, places: Bool[Tensor, " tokens"]) -> Tensor:
    """Put the values at their places, and zeros elsewhere."""
    spread = values.new_zeros(len(places), values.shape[1])
    spread[places] = values
    return spread
