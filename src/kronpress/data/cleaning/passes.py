"""Clean text: drop HTML, bad text and duplicates, in bounded memory, and go on after an interruption."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kronpress import disk
from kronpress.data.cleaning.comparing import decide
from kronpress.data.cleaning.documents import file_states
from kronpress.data.cleaning.reading import read
from kronpress.data.cleaning.settings import Cleaning
from kronpress.data.cleaning.work import NAME, Work
from kronpress.data.cleaning.writing import Outcome, shard_name
from kronpress.data.sources import in_reach, is_pattern, source_paths
from kronpress.errors import KronpressError, shown
from kronpress.lock import NOTE, locked
from kronpress.memory import peak_rss_bytes
from kronpress.records import CleaningReport, decode, encode

REPORT = "report.json"
"""What was done; it is written last, so a folder that has it is finished."""

_ROOM = 3  # times the text: as it is kept while the work goes on, what it is compared by, and what is written
_ROOM_OF_PREVIEW = 2  # times the text: nothing is written
_SHARDS = 10_000  # whose names are looked at: of more than 300 GB
_OTHER_DISK = "set TMPDIR to a folder on another disk; that for temporary files may be in memory"
_REMEDY = "clean the text into a new folder"


def clean(source: str, settings: Cleaning, folder: Path, *, resume: bool = False) -> CleaningReport:
    """Clean the text of a source, named as for `read_text`, into numbered files that `read_text(folder)` reads.

    Plain text becomes .txt files, records become .jsonl files with all their fields. While the work goes on it needs
    about three times the room of the text on the disk; its files lie in the folder and go at the end. The same text
    and settings give the same files, however often the work was interrupted.

    Args:
        source: the text.
        settings: what a document is and which go.
        folder: for the files and report.json; absent or empty, but for what an interrupted cleaning left there.
        resume: go on with that; one that is finished is only reported.

    Raises:
        KronpressError: the source can not be read, is empty or has changed since the cleaning began, as may the
            settings have; the folder holds something else; or a package is missing.
    """
    settings.require()
    beginning = _Beginning.of(source, settings)
    _require_outside(source, folder)
    disk.require_possible(folder)
    _require_free(folder, resume=resume)
    with locked(folder):
        work = Work(folder / NAME)
        if (folder / REPORT).exists():
            beginning.require_same(report_of(folder), folder)
        else:
            _begin(beginning, work, folder)
            report = _report(beginning, settings, work, out=folder)
            disk.write_json(folder / REPORT, encode(report))
        disk.remove(work.folder)
        return report_of(folder)


def preview(source: str, settings: Cleaning) -> CleaningReport:
    """Report what `clean` would do, and leave nothing behind.

    While the work goes on it needs about twice the room of the text in the folder for temporary files.

    Raises:
        KronpressError: as `clean`; or that folder has not so much room.
    """
    settings.require()
    beginning = _Beginning.of(source, settings)
    with tempfile.TemporaryDirectory(prefix="kronpress-clean-") as folder:
        disk.require_space(Path(folder), needed=_ROOM_OF_PREVIEW * beginning.bytes, remedy=_OTHER_DISK)
        return _report(beginning, settings, Work(Path(folder)), out=None)


def is_cleaned(folder: Path) -> bool:
    """Say whether a folder holds a finished cleaning."""
    return (folder / REPORT).exists()


def report_of(folder: Path) -> CleaningReport:
    """Return the report of a finished cleaning.

    Raises:
        KronpressError: the folder holds none, or the report is damaged.
    """
    path = folder / REPORT
    if not path.exists():
        raise KronpressError(f"{folder} holds no finished cleaning; finish it with --resume, or name another folder")
    return decode(CleaningReport, disk.read_json(path), place=path, remedy=_REMEDY)


@dataclass(frozen=True)
class _Beginning:
    """What a cleaning begins with."""

    source: str
    settings: dict[str, Any]
    files: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, source: str, settings: Cleaning) -> _Beginning:
        return cls(source, settings.spelled_out(), file_states(source))

    @property
    def bytes(self) -> int:
        """Of all files, as they lie on the disk."""
        return sum(size for size, _ in self.files.values())

    @classmethod
    def read(cls, path: Path) -> _Beginning:
        content = disk.read_object(path)
        if content.keys() != {"source", "settings", "files"}:
            raise KronpressError(f"{path} is damaged; {_REMEDY}")
        files = {name: (int(size), int(changed)) for name, (size, changed) in content["files"].items()}
        return cls(content["source"], content["settings"], files)

    def require_same(self, other: _Beginning | CleaningReport, folder: Path) -> None:
        """Check that the folder holds a cleaning of this source with these settings."""
        if self.source != other.source:
            raise KronpressError(f"{folder} holds a cleaning of {shown(other.source)}; repeat that, or {_REMEDY}")
        now, before = _flat(self.settings), _flat(other.settings)
        name = next((name for name in {**before, **now} if now.get(name) != before.get(name)), None)
        if name is not None:
            raise KronpressError(
                f"{folder} holds a cleaning with {name}: {shown(before.get(name))}, not {shown(now.get(name))}; "
                f"repeat that, or {_REMEDY}"
            )
        changed = [path for path, state in self.files.items() if other.files.get(path) != state]
        gone = [path for path in other.files if path not in self.files]
        if changed or gone:
            raise KronpressError(f"{(changed + gone)[0]} has changed since {folder} was begun; {_REMEDY}")


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return the values in mappings and lists, each under the names that lead to it."""
    if not isinstance(value, dict | list):
        return {name: value}
    inner = value.items() if isinstance(value, dict) else enumerate(value, start=1)
    return {path: leaf for key, below in inner for path, leaf in _flat(below, f"{name} {key}".strip()).items()}


def _begin(beginning: _Beginning, work: Work, folder: Path) -> None:
    """Note what the cleaning begins with, or check that it is what it began with."""
    disk.remove_partial(folder)
    if work.begun.exists():
        beginning.require_same(_Beginning.read(work.begun), folder)
        return
    disk.require_space(folder, needed=_ROOM * beginning.bytes)
    disk.write_json(work.begun, asdict(beginning))


def _report(beginning: _Beginning, settings: Cleaning, work: Work, *, out: Path | None) -> CleaningReport:
    """Do all passes and return what they did; without `out` nothing is written but work files."""
    try:
        read(beginning.source, settings, work)
    except KronpressError:
        if not work.parts():  # nothing was achieved, so that a corrected command can use the folder
            disk.remove(work.folder)
        raise
    started = time.perf_counter()
    decide(settings.duplicates, work)
    outcome = Outcome(settings, work)
    if out is not None:
        outcome.write(out)
    everything, went, stayed = outcome.rows()
    return CleaningReport(
        source=beginning.source,
        settings=beginning.settings,
        files=beginning.files,
        shards=tuple(name for _, name in outcome.shards()),
        read=everything,
        went=went,
        stayed=stayed,
        examples=outcome.examples(),
        seconds=outcome.seconds + time.perf_counter() - started,
        peak_rss_bytes=peak_rss_bytes(),
    )


def _require_outside(source: str, folder: Path) -> None:
    """Check that the result is not to be a part of what is cleaned."""
    for path in source_paths(source):
        if path.is_dir() and path.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise KronpressError(f"{folder} lies in {path}, which is to be cleaned; name a folder outside of it")
        if is_pattern(path) and any(map(in_reach(path, folder), _possible_names())):
            what = f"files in {folder} would match {shown(str(path))}, which is to be cleaned"
            raise KronpressError(f"{what}; name a folder elsewhere, or another pattern")


def _possible_names() -> Iterator[str]:
    return (shard_name(number, records=records) for number in range(_SHARDS) for records in (False, True))


def _require_free(folder: Path, *, resume: bool) -> None:
    """Check that a folder is free, or holds a cleaning to go on with."""
    ours = (folder / REPORT).exists() or Work(folder / NAME).begun.exists()
    if ours and not resume:
        raise KronpressError(f"{folder} already holds a cleaning; add --resume, or name a new folder")
    if not ours:
        disk.require_empty(folder, besides={NOTE, NAME})
