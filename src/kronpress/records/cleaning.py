"""What a cleaning of text did."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from kronpress.records.codec import Record


@dataclass(frozen=True)
class CleaningExample(Record):
    """A document that went.

    Attributes:
        reason: for which it went.
        place: the file or data set and the line or row in it.
        text: its beginning.
        stays: the place of the document that it is a duplicate of; None for other reasons.
    """

    reason: str
    place: str
    text: str
    stays: str | None = None


@dataclass(frozen=True)
class CleaningRow(Record):
    """How much went for one reason, or stayed; `bytes` are of text, as UTF-8."""

    reason: str
    documents: int
    bytes: int


@dataclass(frozen=True)
class CleaningReport(Record):
    """The content of a cleaning's report.json.

    Attributes:
        source: what was cleaned, as the user named it.
        settings: every setting, the methods with their names.
        files: size in bytes and time of the last change in nanoseconds of each file of the source.
        shards: the files that were written, or would be.
        read: all documents.
        went: reason by reason, in the order in which they are looked at.
        stayed: the others.
        examples: of what went, a few for each reason.
        seconds: that it took, interruptions left out.
        peak_rss_bytes: the most memory that the process has held.
    """

    source: str
    settings: dict[str, JsonValue]
    files: dict[str, tuple[int, int]]
    shards: tuple[str, ...]
    read: CleaningRow
    went: tuple[CleaningRow, ...]
    stayed: CleaningRow
    examples: tuple[CleaningExample, ...]
    seconds: float
    peak_rss_bytes: int

    @property
    def megabytes_per_second(self) -> float:
        """Of text that was read."""
        return self.read.bytes / 1e6 / max(self.seconds, 1e-9)
