"""The training text of a run without what cleaning takes out of it."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kronpress import processes
from kronpress.checkpoint import files
from kronpress.data import HUB, Corpus, read_text
from kronpress.data.cached import cached, key_of, making
from kronpress.data.cleaning import Cleaning, clean, is_cleaned, report_of
from kronpress.data.cleaning.documents import file_states
from kronpress.data.formats import ending_of
from kronpress.data.sources import source_files
from kronpress.errors import KronpressError, shown
from kronpress.records import CleaningReport

_PACKAGES = ("rensa", "selectolax", "lingua-language-detector")  # on whose versions it depends what goes


def read_cleaned(source: str, raw: Corpus, settings: Cleaning) -> tuple[Corpus, str]:
    """Read a text as it is cleaned, and return it with a sentence on what went.

    The cleaned text is kept in the cache, for the content of the text and the settings; the main process makes it.

    Args:
        source: the text, as the recipe names it.
        raw: what it is before cleaning.
        settings: of the cleaning.

    Raises:
        KronpressError: the text cannot be cleaned, or nothing of it stays.
    """
    versions = [_version(package) for package in _PACKAGES]
    endings = [ending_of(path) for path in source_files(source)]
    folder = cached("clean", key_of(raw.fingerprint, endings, settings.spelled_out(), versions)) / "text"
    report = processes.from_main(lambda: _made(source, settings, folder))
    if not report.stayed.documents:
        raise KronpressError(f"{_told(report)}: nothing is left to train on; choose milder settings of data.clean")
    return replace(read_text(str(folder)), name=source), _told(report)


def require_files(source: str) -> None:
    """Refuse a data set on the hub, which may be endless.

    Raises:
        KronpressError: the text is one.
    """
    if HUB in source:
        raise KronpressError(
            f"data.clean cleans files, and {shown(source)} is on the hub; write it to files with "
            f"`kronpress clean {source} --out FOLDER`, and name the folder without data.clean"
        )


def _made(source: str, settings: Cleaning, folder: Path) -> CleaningReport:
    """Return the report of what lies in a folder of the cache, which is made where it is missing."""
    with making(folder.parent, needed=0):
        if not is_cleaned(folder):
            work = folder.with_name(key_of(source, file_states(source)))  # where an interrupted one goes on
            clean(source, settings, work, resume=True)
            files.remove(folder)
            os.replace(work, folder)
        return report_of(folder)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _told(report: CleaningReport) -> str:
    went = [f"{row.documents:,} for {row.reason}" for row in report.went if row.documents]
    what = f"cleaning {report.source}: {report.stayed.documents:,} of {report.read.documents:,} documents stay"
    return f"{what}; {', '.join(went)} went" if went else what
