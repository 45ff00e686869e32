"""The training text of a run without what cleaning takes out of it."""

from __future__ import annotations

from dataclasses import replace

from kronpress import processes
from kronpress.data import HUB, Corpus, read_text
from kronpress.data.cached import cached, key_of
from kronpress.data.cleaning import Cleaning, clean
from kronpress.data.cleaning.documents import file_states
from kronpress.errors import KronpressError, shown
from kronpress.records import CleaningReport


def read_cleaned(source: str, settings: Cleaning) -> tuple[Corpus, str]:
    """Read a text as it is cleaned, and return it with a sentence on what went.

    The cleaned text is kept in the cache, for files as they are and settings as they are; the main process makes it.

    Raises:
        KronpressError: the text cannot be read or cleaned, or is a data set on the hub, which may be endless.
    """
    if HUB in source:
        raise KronpressError(
            f"data.clean cleans files, and {shown(source)} is on the hub; write it to files with "
            f"`kronpress clean {source} --out FOLDER`, and name the folder without data.clean"
        )
    folder = cached("clean", key_of("clean", source, file_states(source), settings.spelled_out()))
    report = processes.from_main(lambda: clean(source, settings, folder, resume=True))
    return replace(read_text(str(folder)), name=source), _told(report)


def _told(report: CleaningReport) -> str:
    went = [f"{row.documents:,} for {row.reason}" for row in report.went if row.documents]
    what = f"cleaning {report.source}: {report.stayed.documents:,} of {report.read.documents:,} documents stay"
    return f"{what}; {', '.join(went)} went" if went else what
