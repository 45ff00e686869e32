"""The settings of a cleaning."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from pydantic import Field, SerializeAsAny, field_validator

from kronpress.data.cleaning.documents import Unit
from kronpress.data.cleaning.duplicates import DUPLICATES, Duplicates
from kronpress.data.cleaning.filters import FILTERS, Filter, Length, Repetition, Symbols
from kronpress.data.cleaning.html import HTML, Html, StrictHtml
from kronpress.data.cleaning.language import Language
from kronpress.data.cleaning.minhash import MinHash
from kronpress.errors import KronpressError, shown
from kronpress.validation import Checked, parse_named


class Cleaning(Checked):
    """How text is cleaned: what a document is, and which documents go, in this order: HTML, filters, duplicates.

    Attributes:
        unit: what a document is in plain text: a `paragraph` between blank lines, or a `line`. Of records, each is one.
        html: what makes a document HTML.
        filters: what makes it bad text.
        language: a filter more, see `Language`: the code of the only language that stays; None keeps all.
        duplicates: what makes it a duplicate of an earlier one.
        shard_megabytes: of text that is read for each file that is written.
    """

    unit: Unit = "paragraph"
    html: SerializeAsAny[Html] = StrictHtml()
    filters: tuple[SerializeAsAny[Filter], ...] = (Length(), Repetition(), Symbols())
    language: str | None = None
    duplicates: SerializeAsAny[Duplicates] = MinHash()
    shard_megabytes: float = Field(default=32, gt=0, le=1024)

    @field_validator("html", mode="before")
    @classmethod
    def _parse_html(cls, value: Any) -> Any:
        return parse_named(value, HTML, key="html")

    @field_validator("duplicates", mode="before")
    @classmethod
    def _parse_duplicates(cls, value: Any) -> Any:
        return parse_named(value, DUPLICATES, key="duplicates")

    @field_validator("filters", mode="before")
    @classmethod
    def _parse_filters(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise KronpressError(f"filters are {shown(value)}; give a list of them: {', '.join(FILTERS)}")
        return tuple(parse_named(name, FILTERS, key="filters") for name in value)

    @field_validator("language")
    @classmethod
    def _checked_language(cls, value: str | None) -> str | None:
        return None if value is None else Language(code=value).code

    def every_filter(self) -> dict[str, Filter]:
        """Return the filters with that of the language, the slowest, behind the others; the same one comes once.

        Each has the name that reports give: its kind, and where several are of one kind its settings as well.
        """
        rules = self.filters if self.language is None else (*self.filters, Language(code=self.language))
        different = [rule for index, rule in enumerate(rules) if rule not in rules[:index]]
        kinds = Counter(rule.kind for rule in different)
        return {rule.kind if kinds[rule.kind] == 1 else _with_settings(rule): rule for rule in different}

    def require(self) -> None:
        """Check that all packages are there.

        Raises:
            KronpressError: one is missing.
        """
        self.html.require()
        for rule in self.every_filter().values():
            rule.require()
        self.duplicates.require()

    def spelled_out(self) -> dict[str, Any]:
        """Return every setting as a JSON value, the methods with their names."""
        filters = [_named(method) for method in self.filters]
        methods = {"html": _named(self.html), "filters": filters, "duplicates": _named(self.duplicates)}
        return self.model_dump(mode="json") | methods


def _with_settings(rule: Filter) -> str:
    chosen = rule.model_dump(mode="json", exclude_defaults=True)
    fields = ", ".join(f"{name} {json.dumps(value)}" for name, value in chosen.items())
    return f"{rule.kind} ({fields})" if fields else rule.kind


def _named(method: Html | Filter | Duplicates) -> dict[str, Any]:
    return {"name": method.kind, **method.model_dump(mode="json")}
