from __future__ import annotations

from collections import Counter

import pytest
import torch

from kronpress.errors import KronpressError
from kronpress.train.text import EncoderText, Frame, NextToken, epochs_of
from tests.tiny import tiny_bert, tiny_tokenizer

IGNORED = -100
TOKENIZER = tiny_tokenizer()
CLS, SEP, MASK = (getattr(TOKENIZER, f"{name}_token_id") for name in ("cls", "sep", "mask"))


def bytes_of_text(*, count: int = 3, tokens: int = 40) -> torch.Tensor:
    """Windows without special tokens, (count, tokens)."""
    return torch.randint(256, (count, tokens), generator=torch.Generator().manual_seed(1))


def masked(
    windows: torch.Tensor, *, count: int = 3, seed: int = 0, segments: int = 1, guessed: bool = True
) -> EncoderText:
    frame = Frame(CLS, SEP, MASK, ordinary=tuple(range(256)), segments=segments)
    return EncoderText(windows, epochs_of(len(windows), count=count, seed=0), frame, seed=seed, guessed=guessed)


def test_each_token_is_labeled_with_the_next() -> None:
    text = NextToken(torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([1, 0, 1]))
    assert len(text) == 3
    assert text[0]["input_ids"].tolist() == [4, 5, 6]
    assert [text[index]["labels"].tolist() for index in range(3)] == [[5, 6, -100], [2, 3, -100], [5, 6, -100]]


def test_the_same_window_is_the_same_example_of_next_tokens() -> None:
    text = NextToken(bytes_of_text(count=5), torch.tensor([3, 1, 3, 4, 1]))
    once, rows = text.distinct()
    assert (len(once), rows.tolist()) == (3, [1, 0, 1, 2, 0])
    for index, row in enumerate(rows.tolist()):
        for name, value in text[index].items():
            assert torch.equal(value, once[row][name])


def test_every_place_is_another_example_of_masked_tokens() -> None:
    text = masked(bytes_of_text(count=1), count=4)
    once, rows = text.distinct()
    assert (once, rows.tolist()) == (text, [0, 1, 2, 3])
    assert len({tuple(text[index]["labels"].tolist()) for index in range(4)}) == 4


@pytest.mark.parametrize(("tokens", "labels"), [(2, 1), (6, 1), (40, 6), (126, 19)])
def test_15_percent_are_labeled_in_every_window(tokens: int, labels: int) -> None:
    windows = bytes_of_text(tokens=tokens)
    text = masked(windows, count=9)
    for index in range(9):
        example, window = text[index], windows[text.order[index]]
        found = example["labels"] != IGNORED
        assert int(found.sum()) == labels
        assert torch.equal(example["labels"][found], window[found[1:-1]])
        assert torch.equal(example["input_ids"][1:-1][~found[1:-1]], window[~found[1:-1]])


def test_the_ends_are_added_and_never_masked() -> None:
    text = masked(bytes_of_text(tokens=4), count=200)
    for index in range(200):
        ids, labels = text[index]["input_ids"], text[index]["labels"]
        assert (len(ids), int(ids[0]), int(ids[-1])) == (6, CLS, SEP)
        assert (int(labels[0]), int(labels[-1])) == (IGNORED, IGNORED)


def test_of_the_labeled_80_percent_are_masked_10_other_words_and_10_left() -> None:
    text, fates = masked(bytes_of_text(count=8, tokens=126), count=400), Counter[str]()
    for index in range(400):
        example = text[index]
        for word, label in zip(example["input_ids"].tolist(), example["labels"].tolist(), strict=True):
            if label != IGNORED:
                fates["mask" if word == MASK else "left" if word == label else "other"] += 1
    shares = {fate: count / fates.total() for fate, count in fates.items()}
    assert fates.total() == 400 * 19
    assert shares["mask"] == pytest.approx(0.8, abs=0.015)
    assert shares["left"] == pytest.approx(0.1, abs=0.012)
    assert shares["other"] == pytest.approx(0.1, abs=0.012)


def test_only_ordinary_tokens_are_guessed_and_stand_in_for_others() -> None:
    model, ordinary = tiny_bert(vocab_size=300), {*range(256), TOKENIZER.convert_tokens_to_ids("<unused>")}
    windows = bytes_of_text(count=8, tokens=126)
    windows[:, ::3] = TOKENIZER.unk_token_id
    windows[:, 1::9] = TOKENIZER.bos_token_id
    text = EncoderText(windows, epochs_of(8, count=1500, seed=0), Frame.of(model, TOKENIZER), seed=0)
    drawn = set[int]()
    for index in range(1500):
        window, example = windows[text.order[index]], text[index]
        guessed = example["labels"][1:-1] != IGNORED
        ids = example["input_ids"][1:-1]
        assert set(window[guessed].tolist()) <= ordinary
        assert int(guessed.sum()) == 19
        cut = ids[~guessed] != window[~guessed]
        assert int(cut.sum()) <= 1, "the [SEP] between two segments"
        drawn |= set(ids[guessed & (ids != window)].tolist())
    assert drawn - {MASK} == ordinary


def test_special_tokens_fill_up_where_a_window_has_too_few_words_and_stay_as_they_are() -> None:
    windows = torch.full((1, 40), TOKENIZER.unk_token_id)
    windows[0, 7] = 65
    for example in masked(windows, count=20):
        labels, ids = example["labels"][1:-1], example["input_ids"][1:-1]
        assert labels[7] == 65
        assert int((labels != IGNORED).sum()) == 6
        assert torch.equal(ids[windows[0] != 65], windows[0][windows[0] != 65])


def test_masks_depend_on_the_seed_and_the_place_alone() -> None:
    windows = bytes_of_text(count=1)
    text = masked(windows)
    expected = [text[index]["input_ids"].tolist() for index in range(3)]
    torch.rand(5)
    again = masked(windows)
    assert [again[index]["input_ids"].tolist() for index in (2, 1, 0)] == expected[::-1]
    assert masked(windows, seed=1)[0]["input_ids"].tolist() != expected[0]


def test_half_of_the_windows_are_two_segments_where_the_model_tells_them_apart() -> None:
    windows = bytes_of_text(count=9, tokens=12)
    plain, text = (masked(windows, count=600, segments=2, guessed=guessed) for guessed in (False, True))
    places = Counter[int]()
    for index in range(600):
        ids, segment = plain[index]["input_ids"], plain[index]["token_type_ids"]
        before, after = [CLS, *windows[plain.order[index]].tolist(), SEP], ids.tolist()
        cut = after.index(SEP)
        places[cut] += 1
        assert after == [*before[:cut], SEP, *before[cut + 1 :]]
        assert segment.tolist() == [0] * (cut + 1) + [1] * (13 - cut)
        guessing = text[index]
        assert torch.equal(guessing["token_type_ids"], segment)
        assert (int(guessing["input_ids"][cut]), int(guessing["labels"][cut])) == (SEP, IGNORED)
        assert int((guessing["labels"] != IGNORED).sum()) == 2
    assert 250 < places.pop(13) < 350
    assert set(places) == set(range(2, 12))


def test_without_guesses_the_words_are_all_there() -> None:
    windows = bytes_of_text()
    text = masked(windows, guessed=False)
    for index in range(3):
        assert text[index]["input_ids"].tolist() == [CLS, *windows[text.order[index]].tolist(), SEP]
        assert set(text[index]["labels"].tolist()) == {IGNORED}
        assert "token_type_ids" not in text[index]


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_short_windows_have_a_token_on_either_side_of_a_cut(tokens: int) -> None:
    text = masked(bytes_of_text(tokens=tokens), count=20, segments=2, guessed=False)
    found = {tuple((text[index]["input_ids"][1:-1] == SEP).tolist()) for index in range(20)}
    assert found == {(False,) * tokens} | ({(False, True, False)} if tokens == 3 else set())


def test_the_windows_stay_as_they_are() -> None:
    windows = bytes_of_text()
    before, text = windows.clone(), masked(windows)
    for index in range(3):
        text[index]["input_ids"][:] = 0
        text[index]["labels"][:] = 0
    assert torch.equal(windows, before)


@pytest.mark.parametrize("name", ["cls_token", "sep_token", "mask_token"])
def test_a_tokenizer_without_special_tokens_is_refused(name: str) -> None:
    tokenizer = tiny_tokenizer()
    setattr(tokenizer, name, None)
    with pytest.raises(KronpressError, match=r"no \[CLS\], \[SEP\] or \[MASK\]"):
        Frame.of(tiny_bert(), tokenizer)


@pytest.mark.parametrize(("windows", "count"), [(5, 3), (5, 5), (5, 17), (1, 4)])
def test_every_epoch_reads_every_window_once(windows: int, count: int) -> None:
    order = epochs_of(windows, count=count, seed=3)
    assert len(order) == count
    for start in range(0, count, windows):
        epoch = order[start : start + windows].tolist()
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(windows))
    assert torch.equal(order, epochs_of(windows, count=count, seed=3))


def test_the_order_is_that_of_whole_permutations() -> None:
    for windows, count in ((7, 3), (7, 7), (7, 23), (1, 4)):
        generator = torch.Generator().manual_seed(5)
        expected = torch.cat([torch.randperm(windows, generator=generator) for _ in range(count)])[:count]
        assert epochs_of(windows, count=count, seed=5).tolist() == expected.tolist()


def test_ids_that_are_not_ordinary_are_left_however_large() -> None:
    text = EncoderText(torch.tensor([[300, 1, 500, 2]]), torch.zeros(9).long(), Frame(CLS, SEP, MASK, (1, 2)), seed=0)
    for index in range(9):
        ids = text[index]["input_ids"][1:-1]
        assert ids[[0, 2]].tolist() == [300, 500]
