"""The manifest of a run: what the run began with, and how far it came."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.records import Footprint

REMEDY = "restore it, or start the run anew in a new folder"


class StepDone(BaseModel):
    """What a manifest says of a finished step."""

    model_config = ConfigDict(strict=True, frozen=True)
    name: str
    seconds: float


class Manifest(BaseModel):
    """What a run began with, and how far it came; the file holds the fields that have been set, in this order.

    Attributes:
        recipe_sha256: digest of the recipe, with every default spelled out.
        created: when the run began, in UTC.
        environment: versions, device, threads and system.
        precision: number format of the matrix products, `bf16` or `fp32`.
        memory: `whole` or `blocks`: how much of the model was in memory (see `Recipe`).
        sources: digests of what steps read beside the recipe's model and text.
        steps: those that are finished, in the order of the recipe.
        checkpoint: the folder of the latest student within that of the run; None while it is still the dense model.
        finished: whether nothing is left to do.
        dtype: number format of the weights of the recipe's model, in which the finished model is saved too.
        footprint_before: sizes of the dense model.
        notes: what was noticed when the model was opened and when steps read the text.
        data: digests of the training text and the held-out text.
        model: digests of weights, configuration and tokenizer.
        footprint_after: sizes of the finished model.
        plain: whether the finished model has no layer of kronpress, so that other programs open it as well.
        pipeline_tag: the hub's name for what the model does.
        peak_rss_bytes: the most memory that the run has taken.
    """

    model_config = ConfigDict(strict=True, frozen=True)
    recipe_sha256: str
    created: str
    environment: dict[str, str]
    precision: Literal["bf16", "fp32"] | None = None
    memory: Literal["whole", "blocks"] = "whole"
    sources: dict[str, str]
    steps: tuple[StepDone, ...]
    checkpoint: str | None
    finished: bool
    dtype: str = Field(pattern="^(float32|bfloat16|float16|float64)$")
    footprint_before: Footprint
    notes: tuple[str, ...] = ()
    data: dict[str, str]
    model: dict[str, str]
    footprint_after: Footprint | None = None
    plain: bool = False
    pipeline_tag: str = ""
    peak_rss_bytes: int = 0

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            KronpressError: it is damaged, or of another program.
        """
        content = files.read_json(path)
        if not isinstance(content, dict) or "recipe_sha256" not in content:
            raise KronpressError(f"{path} is not the manifest of a run; name another folder")
        try:
            return cls.model_validate_json(json.dumps(content))
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise damaged(path, f"'{place}' is missing or of another type") from error

    def write(self, path: Path) -> None:
        """Write the manifest, whole or not at all."""
        files.write_json(path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the fields that have been set, as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)

    def reading(self, sources: dict[str, str]) -> Manifest:
        """Return the manifest with the digests of what the steps read."""
        return self.model_copy(update={"sources": sources})

    def after(self, step: StepDone, *, checkpoint: str | None, notes: Sequence[str] = ()) -> Manifest:
        """Return the manifest with one more finished step, the latest student in `checkpoint`, and what was noticed."""
        every = tuple(dict.fromkeys((*self.notes, *notes)))
        return self.model_copy(update={"steps": (*self.steps, step), "checkpoint": checkpoint, "notes": every})

    def measured(self, footprint: Footprint, *, plain: bool, pipeline_tag: str, peak_rss_bytes: int) -> Manifest:
        """Return the manifest with what there is to say of the finished model."""
        facts = {"plain": plain, "pipeline_tag": pipeline_tag, "peak_rss_bytes": peak_rss_bytes}
        return self.model_copy(update={"footprint_after": footprint, **facts})

    def done(self, *, checkpoint: str) -> Manifest:
        """Return the manifest of the finished run, whose model is in `checkpoint`."""
        return self.model_copy(update={"checkpoint": checkpoint, "finished": True})


def damaged(path: Path, reason: str) -> KronpressError:
    """Return the error for a manifest that is not what this program wrote."""
    return KronpressError(f"{path} is damaged: {reason}; {REMEDY}")
