"""What the filters drop, and that ordinary text stays."""

from __future__ import annotations

import sys

import pytest

from kronpress.data.cleaning import FILTERS, Batch, Cleaning, Document, Language
from kronpress.errors import KronpressError
from kronpress.validation import parse

PROSE = (
    "It was a bright cold day in the village, and the clocks were late. The farmer's wife, who had seen many such "
    "days, went to the well and drew water for the horses. Nobody spoke; even the geese were quiet. At noon came post."
)
GOOD = [
    PROSE,
    "CHAPTER I",
    "“No,” he said … “never!”",
    " = = History = = ",
    "हिन्दी भाषा में लिखा हुआ एक वाक्य।",
    "これは普通の文章です。問題ありません。",
    "£3.50 (about $5) – 12 % off & more, see https://example.com/?q=1",
    PROSE + "\n" + PROSE.upper(),
]


def dropped(name: str, texts: list[str], **fields: object) -> list[bool]:
    return list(FILTERS[name](**fields).drops(Batch([Document(text, "") for text in texts])))


@pytest.mark.parametrize("name", [rule.kind for rule in Cleaning().filters])
def test_ordinary_text_stays(name: str) -> None:
    assert dropped(name, GOOD) == [False] * len(GOOD)


def test_words_are_counted() -> None:
    assert dropped("words", ["* * *", "one", "one two three"], max=2) == [True, False, True]
    assert dropped("words", ["one " * 100_000], max=99_000) == [True], "though not all of it is looked at"


@pytest.mark.parametrize(
    ("text", "goes"),
    [
        ("\n".join(PROSE.split(" ")), False),
        ("\n".join(["buy now and save today"] * 9 + [PROSE]), True),
        (PROSE + " buy cheap watches" * 20, True),
        ("buy cheap watches " * 3, False),
    ],
    ids=["different lines", "lines", "words", "too short to say"],
)
def test_repetition(text: str, goes: bool) -> None:
    assert dropped("repetition", [text], from_words=40) == [goes]


@pytest.mark.parametrize(
    "text", ["░▒▓█ 12 █▓▒░", "{[|]} ^^ ~~ {a}", "\x00\x01\x02ab\x03", "#a " * 60, "one... two... " * 30], ids=ascii
)
def test_symbols(text: str) -> None:
    assert dropped("symbols", [text]) == [True]


def test_the_language_is_told() -> None:
    pytest.importorskip("lingua")
    german = "Der Wagen hielt vor dem alten Haus, und der Kutscher stieg langsam von seinem Sitz herab."
    assert dropped("language", [PROSE, german, "Ja, ja."], code="EN") == [False, True, False]
    assert Cleaning(language="DE").every_filter()["language"] == Language(code="de")
    with pytest.raises(KronpressError, match="lingua does not know 'xx'; choose one of af, ar"):
        Cleaning(language="xx").require()
    with pytest.raises(KronpressError, match="language: 'english' is no code of two letters"):
        parse(Cleaning, {"language": "english"}, place="clean")


@pytest.mark.parametrize(
    ("module", "settings", "words"),
    [
        ("rensa", Cleaning(), "duplicates: minhash needs the package rensa; pip install rensa"),
        (
            "selectolax.lexbor",
            Cleaning(),
            "html: strict needs the package selectolax; pip install selectolax",
        ),
        ("lingua", Cleaning(language="en"), "language needs the package lingua-language-detector; pip install lingua"),
    ],
)
def test_a_missing_package_is_named(
    module: str, settings: Cleaning, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(KronpressError, match=words):
        settings.require()
