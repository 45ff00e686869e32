"""The texts of the data sets are read as those who publish numbers on them read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kronpress.evaluate.text_formats import DOCUMENTS, KIND_NAMES, ROWS, count_words, detokenize, unfit
from tests.evaluate.test_perplexity import TEXT


def test_rows_of_the_data_sets() -> None:
    assert ROWS["joined"](" a\n \nb\n") == " a\n\n\n\n\nb\n"
    assert ROWS["concatenated"](" a\n \nb\n") == " a\nb\n"
    assert ROWS["sentences"](" no it was n't \n \n but N of \n") == "no it was n't but N of"


PTB = " he said the <unk> 's N shares rose to $ N a share from $ N N \n it was n't 1\\/2 \n"


def test_detokenizers() -> None:
    assert detokenize(PTB, "ptb") == " he said the ?'s 1 shares rose to $1 a share from $1 N\nit wasn't 1/2\n"
    raw = ' = = Size = = \n It \'s 1 @,@ 234 m ( 5 @.@ 6 ft ) long ; well @-@ known , " big " . \n'
    assert detokenize(raw, "wikitext") == ' == Size ==\nIt\'s 1,234 m (5.6 ft) long; well-known, "big".\n'
    assert detokenize(raw, "none") == raw


def test_kinds_are_told_apart() -> None:
    texts = {"wikitext-v1": " = Lobster = \n a <unk> of N , \n", "wikitext-raw": " = Lobster = \n", "ptb": PTB}
    assert {name for name in KIND_NAMES if unfit(name, TEXT) is None} == {"lambada", "wikitext-raw", "any"}
    for kind in texts:
        assert {name for name in KIND_NAMES if unfit(name, texts[kind]) is None} == {kind, "any"}


def test_words_of_the_real_text_are_those_of_the_papers(test_data: Path) -> None:
    v1 = (test_data / "wikitext-2" / "valid.txt").read_text(encoding="utf-8")
    raw = (test_data / "wikitext-2" / "valid.raw.txt").read_text(encoding="utf-8")
    assert count_words(v1, "word+eos") == 217_646
    assert [len(DOCUMENTS["pages"](text)) for text in (v1, raw)] == [60, 60]
    assert "".join(page + "\n" for page in DOCUMENTS["pages"](raw)) == raw.removeprefix(" \n") + "\n"


@pytest.mark.parametrize("kind", list(KIND_NAMES))
def test_what_does_not_fit_says_why(kind: str) -> None:
    texts = {"wikitext-v1": " = Lobster = \n a <unk> of N , \n", "wikitext-raw": " = Lobster = \n", "ptb": PTB}
    for other, text in texts.items():
        assert (unfit(kind, text) is None) == (kind in (other, "any"))
