"""How the texts of WikiText and the Penn Treebank are read: kinds, rows, pages, detokenizers and counts of words.

The validation and test articles of WikiText-2 and WikiText-103 are the same, and so are their raw files. Those of v1
are not: the vocabularies have 33,278 and 267,735 words, and whatever is outside of them is `<unk>`. Both share
protocols, and the name of the text tells which was meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

TextKind = Literal["any", "wikitext-v1", "wikitext-raw", "ptb", "lambada"]
Rows = Literal["as_is", "joined", "concatenated", "sentences", "passages"]
Documents = Literal["whole", "pages"]
Detokenizer = Literal["none", "wikitext", "ptb"]
Normalizer = Literal["token", "byte", "word", "word+eos"]

KIND_NAMES: dict[TextKind, str] = {
    "any": "any text",
    "wikitext-v1": "WikiText v1",
    "wikitext-raw": "raw WikiText",
    "lambada": "the passages of LAMBADA",
    "ptb": "the Penn Treebank as Mikolov prepared it",
}

_UPPER_CASE = re.compile("[A-MO-Z]")  # the Penn Treebank writes N for numbers, and all else small
_LONE_N = re.compile(r"(?<!\S)N(?!\S)")
_SPACE = re.compile(r"\s+")


def unfit(kind: TextKind, text: str) -> str | None:
    """Say why `text` is not of this kind, as far as can be seen; None where it may be."""
    if kind == "any":
        return None
    if kind in ("wikitext-raw", "lambada"):
        headed = kind == "lambada" and any(map(_is_title, text.split("\n")))
        return "has '<unk>' in it" if "<unk>" in text else "has headings of WikiText in it" if headed else None
    if "<unk>" not in text:
        return "has no '<unk>' in it"
    upper_case = _UPPER_CASE.search(text)
    if kind == "ptb":
        return f"has upper case in it ('{upper_case.group()}')" if upper_case else None
    return "is all lower case with N for numbers" if not upper_case and _LONE_N.search(text) else None


def _data_set_rows(text: str) -> list[str]:
    """Return the rows of Hugging Face's data set: a line with its end, and '' for a blank line."""
    return [line + "\n" if line.strip() else "" for line in text.removesuffix("\n").split("\n")]


def _sentences(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _passages(text: str) -> str:
    """Join passages by blank lines, as they are where they came as JSON lines; a file may have one a line."""
    text = text.strip("\n")
    return text if "\n\n" in text else "\n\n".join(text.split("\n"))


ROWS: dict[Rows, Callable[[str], str]] = {
    "as_is": lambda text: text,
    "joined": lambda text: "\n\n".join(_data_set_rows(text)),
    "concatenated": lambda text: "".join(_data_set_rows(text)),
    "sentences": _sentences,
    "passages": _passages,
}
"""What becomes of the lines of a file before a model reads them."""


def _pages(text: str) -> list[str]:
    """Cut WikiText into its articles, each from its title on; blank ones, as before the first title, are left out."""
    pages: list[list[str]] = [[]]
    for line in text.split("\n"):
        if _is_title(line):
            pages.append([])
        pages[-1].append(line)
    return [page for page in map("\n".join, pages) if page.strip()]


def _is_title(line: str) -> bool:
    """Tell ` = Title = ` from the headings below it, ` = = Section = = `."""
    merged = line.replace("= = =", "===").replace("= =", "==").strip()
    return merged.startswith("= ") and merged.endswith(" =")


DOCUMENTS: dict[Documents, Callable[[str], list[str]]] = {"whole": lambda text: [text], "pages": _pages}
"""What is read by itself, with nothing before it."""


def count_words(text: str, normalizer: Normalizer) -> int:
    r"""Count by how much the nats are divided.

    'byte' counts the bytes of UTF-8, so that models with different tokenizers compare.
    'word' counts as lm-eval's `wikitext` does: what lies between white space, also before the first and after the last
    of it. 'word+eos' counts words and, as papers on these sets do, one end of sentence for each line.

    >>> count_words(" a b \n c \n", "word"), count_words(" a b \n c \n", "word+eos")
    (5, 5)
    >>> count_words("a b\nc", "word"), count_words("a b\nc", "word+eos")
    (3, 5)
    """
    assert normalizer != "token", "tokens are counted after tokenizing"
    if normalizer == "byte":
        return len(text.encode())
    if normalizer == "word":
        return len(_SPACE.split(text))
    return len(text.split()) + len(text.removesuffix("\n").split("\n"))


def _literal(text: str, replacement: str) -> tuple[re.Pattern[str], str]:
    return re.compile(re.escape(text)), replacement.replace("\\", "\\\\")


def _trimmed(left: str, right: str) -> tuple[re.Pattern[str], str]:
    """Take the white space away inside of a pair of brackets or quotes."""
    return re.compile(rf"{re.escape(left)}\s*([^{re.escape(right)}]*?)\s*{re.escape(right)}"), rf"{left}\1{right}"


# In the order of lm-eval's task, slips included (the second rule was meant for decades and never fires).
_WIKITEXT_RULES = (
    _literal("s '", "s'"),
    (re.compile("/' [0-9]/"), "/'[0-9]/"),
    *(_literal(f" @{mark}@ ", mark) for mark in "-,."),
    *(_literal(f" {mark} ", f"{mark} ") for mark in ":;.!?,"),
    *(_trimmed(left, right) for left, right in ("()", "[]", "{}", '""', "''")),
    *(_literal(" ".join(signs), signs) for signs in ("====", "===", "==")),
    _literal(" ° ", "°"),
    _literal(" \n", "\n"),
    _literal("\n ", "\n"),
    _literal(" N ", " 1 "),
    _literal(" 's", "'s"),
)

# The rules that evaluations of GPT-2 on the Penn Treebank share; the loss of '<unk>' and N is theirs.
_PTB_RULES = (
    _literal(" 's", "'s"),
    _literal("s ' ", "s' "),
    _literal(" n't", "n't"),
    (re.compile(" *\n *"), "\n"),
    _literal("\\/", "/"),
    (re.compile("(?<= )N(?= )"), "1"),
    _literal("$ 1", "$1"),
    _literal("# 1", "#1"),
    _literal("<unk>", "?"),
)

_RULES: dict[Detokenizer, tuple[tuple[re.Pattern[str], str], ...]] = {
    "none": (),
    "wikitext": _WIKITEXT_RULES,
    "ptb": _PTB_RULES,
}


def detokenize(text: str, detokenizer: Detokenizer) -> str:
    """Undo what the set's tokenizer did, so that the text looks like what a model was trained on.

    >>> detokenize("It 's 3 @.@ 5 m ( 11 ft ) , he said .", "wikitext")
    "It's 3.5 m (11 ft), he said ."
    """
    for pattern, replacement in _RULES[detokenizer]:
        text = pattern.sub(replacement, text)
    return text
