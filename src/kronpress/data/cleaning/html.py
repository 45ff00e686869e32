"""What makes a document HTML: a shelf of rules."""

from __future__ import annotations

import re
from abc import abstractmethod
from html.parser import HTMLParser
from typing import Any, ClassVar

from kronpress.data.cleaning.packages import needed
from kronpress.registry import Shelf
from kronpress.validation import Checked

HTML = Shelf[type["Html"]]("rule for HTML")

_PAGE = re.compile(r"<(?:!doctype\s+html|html|head|body)\b[^<>]*>", re.IGNORECASE)
_STRUCTURE = (
    "div, span, p[class], p[style], script, style, table, ul, ol, li, dl, a[href], img, form, input, button, select, "
    "textarea, iframe, nav, header, footer, section, article, main, aside, meta, link, svg, video, audio, object, "
    "embed, noscript, center, font"
)


class Html(Checked):
    """A rule for HTML; its fields are its hyperparameters."""

    kind: ClassVar[str]

    def require(self) -> None:
        """Check that the packages are there.

        Raises:
            KronpressError: one is missing.
        """

    @abstractmethod
    def drops(self, text: str) -> bool:
        """Say whether a document goes."""


@HTML.enroll
class AnyHtml(Html):
    """Every document stays."""

    kind: ClassVar[str] = "none"

    def drops(self, text: str) -> bool:
        """Drop none."""
        return False


@HTML.enroll
class StrictHtml(Html):
    """A document goes if it has elements that build a page, such as div, table, script or a link.

    A stray `<b>`, `<i>` or `<br>`, a name such as `<unk>`, and `a < b` stay.
    """

    kind: ClassVar[str] = "strict"

    def require(self) -> None:
        """Check that selectolax is there."""
        _lexbor()

    def drops(self, text: str) -> bool:
        """Drop what is built as a page; the parser itself adds html, head and body, which are looked for in the text.

        >>> StrictHtml().drops("<div>x</div>"), StrictHtml().drops("a <b>bold</b> word, a < b")
        (True, False)
        """
        if "<" not in text:
            return False
        if _PAGE.search(text):
            return True
        return _lexbor().LexborHTMLParser(text).css_first(_STRUCTURE) is not None


def _lexbor() -> Any:
    return needed("selectolax.lexbor", by="html: strict", package="selectolax")


@HTML.enroll
class StudyHtml(Html):
    """A document goes if it has any tag, as in the Short Study (Li et al., 2021).

    Tags are what the parser of Python's standard library takes for one, which is the one that BeautifulSoup works with
    unless another is named. Other parsers of BeautifulSoup differ in broken tags.
    """

    kind: ClassVar[str] = "short_study"

    def drops(self, text: str) -> bool:
        """Drop what has a start tag, or can not be parsed.

        >>> StudyHtml().drops("a <b>bold</b> word"), StudyHtml().drops("a < b")
        (True, False)
        """
        if "<" not in text:
            return False
        tags = _Tags()
        try:
            tags.feed(text)
            tags.close()
        except (AssertionError, ValueError):  # as the authors do with what can not be parsed
            return True
        return tags.any


class _Tags(HTMLParser):
    any = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note that there is one."""
        self.any = True
