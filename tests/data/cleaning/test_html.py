"""What the rules take for HTML."""

from __future__ import annotations

import pytest

from kronpress.data.cleaning import HTML

STRAY = ["a <b>bold</b> word", "one<br>two", "an <i>italic", "of <unk> age", "see <a name=x> here"]
PAGES = [
    "<html>",
    "text <BODY class='x'> text",
    "<!DOCTYPE html>",
    "<div>one</div>",
    "one <span>two",
    "<ul><li>one",
    'see <a href="x.html">this</a>',
    "<table><tr><td>1",
    "<img src=x>",
    "<script>x < 1</script>",
    "one <div",
]
PLAIN = ["a < b and c > d", "I <3 you", "x <- y", "no sign at all", "1<2", "a <= b"]


@pytest.mark.parametrize(
    ("rule", "going"), [("none", []), ("strict", PAGES[:-1]), ("short_study", [*STRAY, *PAGES[:2], *PAGES[3:-1]])]
)
def test_what_goes(rule: str, going: list[str]) -> None:
    drops = HTML[rule]().drops
    assert [text for text in [*STRAY, *PAGES, *PLAIN] if drops(text)] == going
