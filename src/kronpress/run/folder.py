"""The folder of a run: what stands where in it, and whether it can be gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.lock import NOTE
from kronpress.report import RunSummary
from kronpress.run.recipe import Recipe
from kronpress.run.summary import summarize

MANIFEST = "manifest.json"
_OURS = (MANIFEST, "recipe.yaml", "teacher.json", "steps", "checkpoint", "report.html")

_REMEDY = "restore it, or start the run anew in a new folder"
_CHANGED = {
    "data": "the {name} text of the run in {folder} has changed since it began; restore it, or start in a new folder",
    "model": (
        "the {name} of the model '{model}' changed since the run in {folder} began; restore what was there, "
        "or start in a new folder"
    ),
    "sources": "{name} has changed since the run in {folder} began; restore it, or start in a new folder",
    "environment": (
        "the run in {folder} began with {name} {then}, and this is {name} {now}, whose results may differ; "
        "install {name}=={then}, or start in a new folder"
    ),
}


class _StepDone(BaseModel):
    """What a manifest says of a finished step."""

    model_config = ConfigDict(strict=True)
    name: str
    seconds: float


class _Manifest(BaseModel):
    """The types of what a manifest holds."""

    model_config = ConfigDict(strict=True)
    recipe_sha256: str
    created: str
    data: dict[str, str]
    model: dict[str, str]
    sources: dict[str, str]
    environment: dict[str, str]
    dtype: Literal["float32", "bfloat16", "float16", "float64"]
    footprint_before: dict[str, float | None]
    footprint_after: dict[str, float | None] = Field(default={})
    steps: list[_StepDone]
    checkpoint: str | None
    finished: bool
    plain: bool = False
    pipeline_tag: str = ""
    peak_rss_bytes: int = 0


@dataclass(frozen=True)
class Run:
    """The folder of a run and what stands where in it.

    recipe.yaml, manifest.json, teacher.json, steps/NN-name/ (report.json, logs), checkpoint/, report.html.
    """

    folder: Path
    recipe: Recipe

    @property
    def manifest_path(self) -> Path:
        """What has been done so far; written last and atomically."""
        return self.folder / MANIFEST

    @property
    def checkpoint(self) -> Path:
        """The finished model."""
        return self.folder / "checkpoint"

    def step_folder(self, index: int) -> Path:
        """Where a step keeps its report, its logs and what it needs to resume."""
        return self.folder / "steps" / f"{index:02d}-{self.recipe.steps[index].kind}"

    def step_checkpoint(self, index: int) -> str:
        """Return where a step leaves the student, as the manifest names it."""
        return (self.step_folder(index) / "checkpoint").relative_to(self.folder).as_posix()

    def manifest(self) -> dict[str, Any]:
        """Read the manifest.

        Raises:
            KronpressError: it is damaged, or of another program.
        """
        value = files.read_json(self.manifest_path)
        if not isinstance(value, dict) or "recipe_sha256" not in value:
            raise KronpressError(f"{self.manifest_path} is not the manifest of a run; name another folder")
        try:
            _Manifest.model_validate(value)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise self._damaged(f"'{place}' is missing or of another type") from error
        return value

    def require_same_recipe(self) -> None:
        """Check that the manifest is of a run of this recipe, with steps that it has.

        Raises:
            KronpressError: it is not.
        """
        manifest = self.manifest()
        if manifest["recipe_sha256"] != recipe_digest(self.recipe):
            raise KronpressError(
                f"{self.folder} holds a run of another recipe or other overrides (see its recipe.yaml); "
                "repeat those, or choose another folder"
            )
        done, planned = [step["name"] for step in manifest["steps"]], [step.kind for step in self.recipe.steps]
        if done != planned[: len(done)]:
            raise self._damaged("'steps' are not those of the recipe")
        if manifest["checkpoint"] not in {None, "checkpoint", *map(self.step_checkpoint, range(len(done)))}:
            raise self._damaged("'checkpoint' is none of this run")

    def require_unchanged(self, manifest: Mapping[str, Any], now: Mapping[str, Mapping[str, str]]) -> None:
        """Check that what the results depend on is what it was when the run began.

        Args:
            now: by the keys of the manifest: digests of texts, of the model and of what steps read, and versions.

        Raises:
            KronpressError: what has changed, and the remedy.
        """
        for key, values in now.items():
            for name, value in values.items():
                then = manifest[key].get(name)
                if then != value:
                    facts = {"name": name, "then": then, "now": value, "model": self.recipe.model}
                    raise KronpressError(_CHANGED[key].format(**facts, folder=self.folder))

    def _damaged(self, reason: str) -> KronpressError:
        return KronpressError(f"{self.manifest_path} is damaged: {reason}; {_REMEDY}")

    def summary(self) -> RunSummary:
        """Return what the run has to say about itself so far.

        Raises:
            KronpressError: the report of a step is missing or damaged.
        """
        manifest = self.manifest()
        reports = [self._report(index) for index in range(len(manifest["steps"]))]
        try:
            return summarize(self.recipe, manifest, reports)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise KronpressError(
                f"a report in {self.folder / 'steps'} is damaged ({error!r:.80}); {_REMEDY}"
            ) from error

    def _report(self, index: int) -> dict[str, Any]:
        path = self.step_folder(index) / "report.json"
        if not path.exists():
            raise KronpressError(f"{path}, the report of a finished step, is missing; {_REMEDY}")
        report = files.read_json(path)
        if not isinstance(report, dict) or not isinstance(report.get("peak_rss_bytes"), int):
            raise KronpressError(f"{path} is not the report of a step; {_REMEDY}")
        return report

    def sweep(self) -> None:
        """Remove what finished steps needed to go on after an interruption, but not the latest student."""
        manifest = self.manifest()
        for index in range(len(manifest["steps"])):
            for path in (self.step_folder(index) / "trainer", self.step_folder(index) / "checkpoint"):
                if path != self.folder / (manifest["checkpoint"] or ""):
                    files.remove(path)

    def forget(self) -> None:
        """Remove all of a run in which nothing was achieved, so that a corrected command can use the folder."""
        started = self.manifest_path.exists() and self.manifest()["steps"]
        if started or any(self.folder.rglob("*.safetensors")):
            return
        for path in (self.folder / name for name in _OURS):
            if path.is_dir():
                files.remove(path)
            else:
                path.unlink(missing_ok=True)

    def require_new(self) -> None:
        """Check that the folder is free for a new run, but for what a kill left of the first moment of one.

        Raises:
            KronpressError: it holds something.
        """
        beginning = {NOTE, files.partial_of(self.manifest_path).name}
        files.require_empty(self.folder, besides=beginning)


def recipe_digest(recipe: Recipe) -> str:
    """Return what tells a recipe from others."""
    return hashlib.sha256(recipe.to_yaml().encode()).hexdigest()
