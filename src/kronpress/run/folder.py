"""The folder of a run: what stands where in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.lock import NOTE
from kronpress.records import StepReport, decode, encode
from kronpress.report import RunSummary
from kronpress.run.manifest import REMEDY, Manifest, damaged
from kronpress.run.recipe import Recipe
from kronpress.run.summary import summarize

MANIFEST = "manifest.json"
MEASUREMENTS = "teacher.json"
_OURS = (MANIFEST, "recipe.yaml", MEASUREMENTS, "steps", "checkpoint", "report.html")


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

    @property
    def report_page(self) -> Path:
        """The finished report, one page that a browser shows."""
        return self.folder / "report.html"

    def step_folder(self, index: int) -> Path:
        """Where a step keeps its report, its logs and what it needs to resume."""
        return self.folder / "steps" / f"{index:02d}-{self.recipe.steps[index].kind}"

    def step_checkpoint(self, index: int) -> str:
        """Return where a step leaves the student, as the manifest names it."""
        return (self.step_folder(index) / "checkpoint").relative_to(self.folder).as_posix()

    def progress_of(self, checkpoint: str) -> Path:
        """Return where the latent numbers of a student lie whose checkpoint holds codes, if it learns them."""
        return (self.folder / checkpoint).with_name("learning.safetensors")

    @property
    def measurements(self) -> Path:
        """What was measured of the dense model, so that every step need not measure it again."""
        return self.folder / MEASUREMENTS

    def has_begun(self) -> bool:
        """Say whether there is a manifest."""
        return self.manifest_path.exists()

    def manifest(self) -> Manifest:
        """Read the manifest.

        Raises:
            KronpressError: it is damaged, or of another program.
        """
        return Manifest.read(self.manifest_path)

    def keep_manifest(self, manifest: Manifest) -> None:
        """Write how far the run came."""
        manifest.write(self.manifest_path)

    def keep_recipe(self) -> None:
        """Write the recipe with every default spelled out."""
        files.write_text(self.folder / "recipe.yaml", self.recipe.to_yaml())

    def require_same_recipe(self) -> Manifest:
        """Return the manifest, which is of a run of this recipe, with steps that it has.

        Raises:
            KronpressError: it is not.
        """
        manifest = self.manifest()
        if manifest.recipe_sha256 != self.recipe.digest():
            raise KronpressError(
                f"{self.folder} holds a run of another recipe or other overrides (see its recipe.yaml); "
                "repeat those, or choose another folder"
            )
        done, planned = [step.name for step in manifest.steps], [step.kind for step in self.recipe.steps]
        if done != planned[: len(done)]:
            raise damaged(self.manifest_path, "'steps' are not those of the recipe")
        if manifest.checkpoint not in {None, "checkpoint", *map(self.step_checkpoint, range(len(done)))}:
            raise damaged(self.manifest_path, "'checkpoint' is none of this run")
        return manifest

    def summary(self) -> RunSummary:
        """Return what the run has to say about itself so far.

        Raises:
            KronpressError: the report of a step is missing or damaged.
        """
        manifest = self.manifest()
        reports = [self.report(index) for index in range(len(manifest.steps))]
        return summarize(self.recipe, manifest, reports)

    def report(self, index: int) -> StepReport:
        """Read the report of a finished step.

        Raises:
            KronpressError: it is missing or damaged.
        """
        path = self.step_folder(index) / "report.json"
        if not path.exists():
            raise KronpressError(f"{path}, the report of a finished step, is missing; {REMEDY}")
        return decode(StepReport, files.read_json(path), place=path, remedy=REMEDY)

    def keep_report(self, index: int, report: StepReport) -> None:
        """Write the report of a step."""
        files.write_json(self.step_folder(index) / "report.json", encode(report))

    def taken_bytes(self) -> int:
        """Return how much of the disk the run takes already."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def sweep(self) -> None:
        """Remove what finished steps needed to go on after an interruption, but not the latest student."""
        manifest = self.manifest()
        for index in range(len(manifest.steps)):
            files.remove(self.step_folder(index) / "trainer")
            if self.step_checkpoint(index) != manifest.checkpoint:
                files.remove(self.folder / self.step_checkpoint(index))
                self.progress_of(self.step_checkpoint(index)).unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove all of a run in which nothing was achieved, so that a corrected command can use the folder."""
        started = self.has_begun() and self.manifest().steps
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


def holds_run(folder: Path) -> bool:
    """Say whether a run has begun in a folder."""
    return (folder / MANIFEST).exists()
