"""Checkpoints of a training that can be trusted: whole, unchanged, the newest first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

COMPLETE = "kronpress_complete"


class MarkComplete(TrainerCallback):
    """Marks a checkpoint as whole once it is written, so that one cut short is never resumed from."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the mark."""
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def last_complete(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a training folder."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
