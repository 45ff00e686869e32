"""Several texts as one: each has its share of the tokens from the start on, in whole documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronpress.data import Corpus, WeightedText, count_tokens, mix, tokenize
from kronpress.data.mixture import pieces
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def documents(letter: str, *, count: int, size: int) -> Corpus:
    """A text of equal documents that are made of one letter, in paragraphs of a hundred characters."""
    paragraph = (letter * 9 + " ") * 10
    return Corpus(f"folder/{letter}.txt", "\n\n".join(["\n".join([paragraph] * (size // 100))] * count))


def mixed(*texts: tuple[Corpus, float]) -> Corpus:
    return mix([WeightedText(corpus, weight) for corpus, weight in texts], TOKENIZER)


def share(text: str, letter: str, others: str) -> float:
    ours = text.count(letter)
    return ours / (ours + sum(text.count(other) for other in others))


@pytest.mark.parametrize("tokens", [8_000, 20_000, 60_000])
def test_however_much_is_read_each_text_has_its_share(tokens: int) -> None:
    corpus = mixed(
        (documents("a", count=400, size=300), 1),
        (documents("b", count=8, size=20_000), 2),
        (documents("c", count=100, size=2_500), 0.5),
    )
    assert corpus.shares is not None and corpus.shares.tokens > tokens
    read = TOKENIZER.decode(tokenize(corpus, TOKENIZER, limit=tokens))
    assert share(read, "a", "bc") == pytest.approx(1 / 3.5, abs=700 / tokens)
    assert share(read, "b", "ac") == pytest.approx(2 / 3.5, abs=700 / tokens)


def test_a_share_is_one_of_tokens_and_not_of_characters() -> None:
    narrow, wide = documents("a", count=300, size=1_000), documents("é", count=300, size=1_000)  # of two bytes
    read = mixed((narrow, 1), (wide, 1)).text[:60_000]
    tokens = [sum(count_tokens([piece], TOKENIZER)) for piece in ("a" * read.count("a"), "é" * read.count("é"))]
    assert tokens[0] / sum(tokens) == pytest.approx(0.5, abs=0.03)


def test_the_others_go_on_where_a_text_ends_and_nothing_comes_twice() -> None:
    short, long = documents("a", count=10, size=1_000), documents("b", count=60, size=1_000)
    corpus = mixed((short, 1), (long, 1))
    assert corpus.text.count("a") == short.text.count("a") and corpus.text.count("b") == long.text.count("b")
    assert corpus.shares is not None and corpus.shares.ends == "a.txt"
    assert corpus.shares.tokens == pytest.approx(2 * len(short.text), rel=0.05)
    assert "a" not in corpus.text[round(1.1 * corpus.shares.tokens) :]


def test_the_rest_of_a_long_text_is_reckoned_from_its_beginning() -> None:
    texts = [WeightedText(documents(letter, count=count, size=1_000), 1) for letter, count in (("a", 350), ("é", 300))]
    counted, reckoned = (mix(texts, TOKENIZER, counted=counted) for counted in (10**9, 1))
    assert counted.shares is not None and reckoned.shares is not None
    assert reckoned.shares.tokens == pytest.approx(counted.shares.tokens, rel=0.01)
    assert share(reckoned.text[:500_000], "a", "é") == pytest.approx(share(counted.text[:500_000], "a", "é"), abs=0.01)


def test_a_text_with_a_small_share_does_not_come_first() -> None:
    read = mixed((documents("a", count=50, size=1_000), 0.01), (documents("b", count=50, size=1_000), 1)).text
    assert "a" not in read[:20_000] and "a" in read


def test_the_name_says_what_was_mixed_and_the_same_is_mixed_each_time() -> None:
    texts = (documents("a", count=5, size=500), 1), (documents("b", count=5, size=500), 2.5)
    first, again = mixed(*texts), mixed(*texts)
    assert first.name == "a.txt × 1 + b.txt × 2.5"
    assert first == again and first.fingerprint == again.fingerprint
    changed = Corpus(texts[1][0].name, texts[1][0].text + "\n\nmore")
    assert mixed(texts[0], (changed, 2.5)).fingerprint != first.fingerprint
    assert mixed(texts[0], (texts[1][0], 1)).fingerprint != first.fingerprint


def test_a_single_text_stays_as_it_is() -> None:
    corpus = Corpus("a.txt", "\n\na\n \n\n\nb")
    assert mixed((corpus, 3)) is corpus


def test_large_texts_give_the_same_mixture_once(large_texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = (documents("a", count=10, size=1_000), 1), (documents("é", count=30, size=700), 2.5)
    stored, again = mixed(*texts), mixed(*texts)
    lighter = mixed(texts[0], (texts[1][0], 2))
    monkeypatch.undo()
    whole = mixed(*texts)
    assert stored.is_large and (stored.text, stored.shares, stored.name) == (whole.text, whole.shares, whole.name)
    assert stored.fingerprint == whole.fingerprint and stored == again != lighter
    assert len(list((large_texts / "texts").iterdir())) == 2


@given(parts=st.lists(st.text(alphabet="ab \n", max_size=50), max_size=5), size=st.integers(1, 20))
def test_pieces_are_the_text_again_and_cut_no_line(parts: list[str], size: int) -> None:
    cut, text = list(pieces(parts, size=size)), "".join(parts)
    assert cut == list(pieces([text], size=size)), "however the text comes"
    assert "".join(cut) == text and all(cut)
    assert all(piece.endswith("\n") and len(piece) >= size for piece in cut[:-1])
