"""Sentences about a model that a user should read, kept with the model until a command or a report shows them."""

from __future__ import annotations

from transformers import PreTrainedModel


def note(model: PreTrainedModel, text: str) -> None:
    """Keep a sentence with a model; copies of the model carry it, checkpoints do not."""
    setattr(model, "kronpress_notes", [*notes_of(model), text])  # noqa: B010  (typed as a module by torch)


def notes_of(model: PreTrainedModel) -> list[str]:
    """Return the sentences kept with a model."""
    return list(getattr(model, "kronpress_notes", ()))
