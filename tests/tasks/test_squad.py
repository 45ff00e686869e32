from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from kronpress.errors import KronpressError
from kronpress.tasks import TASKS, Feature
from kronpress.tasks.squad import SQUAD, SQUAD_2, Answer, Question, SquadTask
from tests.tiny import tiny_tokenizer

CONTEXT = "The Yuan dynasty (Chinese: 元朝) ruled China from 1271 to 1368."
WORDS = " ".join(f"w{number}" for number in range(100))


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    """Return an encoder's tokenizer with a token for each word and mark, and [CLS] and [SEP] around the two texts."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    known = [*special, *WORDS.split(), "who", "what", "when", "why", "?", "(", "the", "yuan", "dynasty"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pair = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names)


def document() -> dict[str, Any]:
    """Two articles, three questions."""
    answers = [{"text": "1271", "answer_start": CONTEXT.index("1271")}, {"text": "元朝", "answer_start": 27}]
    first = {"context": CONTEXT, "qas": [{"id": "q1", "question": "When?", "answers": answers}]}
    others = [
        {"id": "q2", "question": "Who?", "answers": [{"text": "w3", "answer_start": WORDS.index("w3")}]},
        {"id": "q3", "question": "Why?", "answers": [{"text": "w4 w5", "answer_start": WORDS.index("w4")}]},
    ]
    articles = [{"title": "Yuan", "paragraphs": [first]}, {"paragraphs": [{"context": WORDS, "qas": others}]}]
    return {"version": "1.1", "data": articles}


def written(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def about(answer: str, context: str = WORDS, question: str = "who?") -> Question:
    return Question("q", context, question, ((answer, context.index(answer)),))


def peaks(feature: Feature, start: int, end: int, *, height: float = 5.0) -> np.ndarray:
    """Logits that are 0 but at one start and one end."""
    logits = np.zeros((2, len(feature.ids)), dtype=np.float32)
    logits[0, start] = logits[1, end] = height
    return logits


def test_reads_the_official_format(tmp_path: Path) -> None:
    first, second, _ = SQUAD.read(written(tmp_path / "any.json", document()), "train")
    assert first == Question("q1", CONTEXT, "When?", (("1271", CONTEXT.index("1271")), ("元朝", 27)))
    assert (second.id, second.context) == ("q2", WORDS)


@pytest.mark.parametrize(
    ("names", "task", "wanted"),
    [
        (["train.json", "train-v1.1.json"], SQUAD, "train.json"),
        (["train-v1.1.json", "train-v2.0.json"], SQUAD, "train-v1.1.json"),
        (["train-v1.1.json", "train-v2.0.json"], SQUAD_2, "train-v2.0.json"),
        (["train36.json", "dev6.json"], SQUAD, "train36.json"),
    ],
)
def test_finds_the_file_of_a_split(tmp_path: Path, names: list[str], task: SquadTask, wanted: str) -> None:
    for name in names:
        content = document()
        content["data"][0]["paragraphs"][0]["qas"][0]["id"] = name
        written(tmp_path / name, content)
    assert task.read(str(tmp_path), "train")[0].id == wanted


def test_a_split_that_is_not_there_or_several_times_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=r"holds no \.json file"):
        SQUAD.read(str(tmp_path), "dev")
    written(tmp_path / "train6.json", document())
    with pytest.raises(KronpressError, match=r"no 'dev\.json' and no 'dev-v1\.1\.json'.*train6\.json"):
        SQUAD.read(str(tmp_path), "dev")
    written(tmp_path / "train36.json", document())
    with pytest.raises(KronpressError, match=r"several files for 'train', train36\.json, train6\.json; name one"):
        SQUAD.read(str(tmp_path), "train")
    with pytest.raises(KronpressError, match=r"there is no SQuAD data at '.*nowhere'"):
        SQUAD.read(str(tmp_path / "nowhere"), "train")


def edited(*path: str | int, to: Any) -> dict[str, Any]:
    """Return the document with one value replaced, or removed where `to` is None."""
    content = document()
    item: Any = content
    for key in path[:-1]:
        item = item[key]
    if to is None:
        del item[path[-1]]
    else:
        item[path[-1]] = to
    return content


PARAGRAPH = ("data", 1, "paragraphs", 0)
THIRD = (*PARAGRAPH, "qas", 1)
PLACE = r"bad\.json, article 2, paragraph 1, question 'q3'"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"bad\.json: 'data' is not there"),
        (edited("data", to=None), r"bad\.json: 'data' is not there"),
        (edited("data", to=[]), r"bad\.json' holds no question"),
        (edited("data", 1, "paragraphs", to=None), r"bad\.json, article 2: 'paragraphs' is not there"),
        (edited(*PARAGRAPH, "context", to=7), r"article 2, paragraph 1: 'context' is of type int; .* a text"),
        (edited(*PARAGRAPH, "qas", to=None), r"article 2, paragraph 1: 'qas' is not there"),
        (edited(*THIRD, "id", to=None), r"article 2, paragraph 1, question 2: 'id' is not there"),
        (edited(*THIRD, "question", to=None), rf"{PLACE}: 'question' is not there"),
        (edited(*THIRD, "question", to="\ud800"), rf"{PLACE}, 'question': half of a surrogate pair"),
        (edited(*THIRD, "answers", to=[]), rf"{PLACE}: no answer; give one"),
        (edited(*THIRD, "answers", to=None), rf"{PLACE}: no answer; give one"),
        (edited(*THIRD, "answers", 0, "text", to=None), rf"{PLACE}, answer 1: 'text' is not there"),
        (edited(*THIRD, "answers", 0, "text", to=" "), rf"{PLACE}, answer 1: its text is blank"),
        (edited(*THIRD, "answers", 0, "text", to="w5 w4"), r"'w5 w4' does not .* 12, but 'w4 w5' does; .* not hold it"),
        (edited(*THIRD, "answers", 0, "answer_start", to=0), r"'w4 w5' does not .* 0, but 'w0 w1' does; .* at 12"),
        (edited(*THIRD, "answers", 0, "answer_start", to=-3), rf"{PLACE}, answer 1: .* answer_start -3"),
        (edited(*THIRD, "answers", 0, "answer_start", to=10**9), rf"{PLACE}, answer 1: .* answer_start 1000000000"),
        (edited(*THIRD, "answers", 0, "answer_start", to=True), rf"{PLACE}, answer 1: 'answer_start' is of type bool"),
        (edited(*THIRD, "is_impossible", to=True), rf"{PLACE}: impossible and yet with an answer"),
        (edited(*THIRD, to={"id": "q3", "question": "?", "is_impossible": True}), rf"{PLACE}: .* use 'squad-2'"),
    ],
)
def test_bad_content_is_refused_with_its_place(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        SQUAD.read(written(tmp_path / "bad.json", content), "train")


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"data": [], "data": [1]}')
    with pytest.raises(KronpressError, match=r"bad\.json: not JSON \(the key 'data' is given twice\)"):
        SQUAD.read(str(path), "train")
    path.write_text('{"data":\n  [}', encoding="utf-8")
    with pytest.raises(KronpressError, match=r"bad\.json: not JSON \(.* at line 2, column 4\)"):
        SQUAD.read(str(path), "dev")
    path.write_bytes(b'{"data": "\xff"}')
    with pytest.raises(KronpressError, match="not UTF-8 at byte 10"):
        SQUAD.read(str(path), "dev")


def test_impossible_questions_and_unlabeled_splits_are_read(tmp_path: Path) -> None:
    impossible = {"id": "q3", "question": "?", "is_impossible": True, "answers": [], "plausible_answers": []}
    questions = SQUAD_2.read(written(tmp_path / "v2.json", edited(*THIRD, to=impossible)), "train")
    assert [question.impossible for question in questions] == [False, False, True]
    unlabeled = SQUAD.read(written(tmp_path / "test.json", edited(*THIRD, "answers", to=None)), "test")
    assert unlabeled[2].answers == ()
    with pytest.raises(KronpressError, match="question 'q3' has no answer to compare with"):
        SQUAD.scores(unlabeled, [Answer("w3", -math.inf)] * 3)


def on_hub(**changed: Any) -> dict[str, Any]:
    """Return a question as the data sets on the hub hold it."""
    answers = {"text": ["1271", "元朝"], "answer_start": [CONTEXT.index("1271"), 27]}
    return {"id": "q1", "title": "Yuan", "context": CONTEXT, "question": "When?", "answers": answers} | changed


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[dict[str, Any]]], list[tuple[str, ...]]]:
    """Let `datasets` give some rows for both splits; return the list of what is asked of it."""

    def holding(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
        asked: list[tuple[str, ...]] = []

        def load_dataset(*arguments: str) -> dict[str, Any]:
            asked.append(arguments)
            return {"train": rows, "validation": rows}

        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
        return asked

    return holding


NO_ANSWERS: dict[str, list[Any]] = {"text": [], "answer_start": []}


def test_reads_the_hub_as_the_official_file(hub: Any, tmp_path: Path) -> None:
    asked = hub([on_hub()])
    wanted = SQUAD.read(written(tmp_path / "any.json", document()), "train")[:1]
    for split in ("train", "dev"):
        for source in ("hub:", "hub:rajpurkar/squad", "hub:someone/else"):
            assert SQUAD.read(SQUAD.find(source), split) == wanted
    assert asked == [("rajpurkar/squad",), ("rajpurkar/squad",), ("someone/else",)] * 2
    asked = hub([on_hub(), on_hub(id="q2", answers=NO_ANSWERS)])
    assert SQUAD_2.read("hub:", "dev") == [*wanted, Question("q2", CONTEXT, "When?", (), impossible=True)]
    assert asked == [("rajpurkar/squad_v2",)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (on_hub(answers=NO_ANSWERS), r"row 0, question 'q1': the context does not answer it.* use 'squad-2'"),
        (on_hub(answers={"text": ["1271"], "answer_start": []}), r"question 'q1': 1 texts of answers and 0 starts"),
        (on_hub(answers={"text": ["1271"], "answer_start": [0]}), r"answer 1: '1271' does not stand at answer_start 0"),
        (on_hub(answers=None), r"'answers' is of type NoneType; SQuAD's format has an object"),
        (on_hub(question=None), r"'question' is of type NoneType; SQuAD's format has a text"),
        ({"id": "q1", "context": "a", "answers": NO_ANSWERS}, r"question 'q1': 'question' is not there"),
        ({"text": "a", "label": 1}, r"hub:, split train, row 0: 'id' is not there"),
    ],
)
def test_bad_rows_on_the_hub_are_refused_with_their_place(hub: Any, row: dict[str, Any], message: str) -> None:
    hub([row])
    with pytest.raises(KronpressError, match=message):
        SQUAD.read("hub:", "train")


def test_splits_that_the_hub_lacks_or_leaves_empty(hub: Any) -> None:
    hub([])
    with pytest.raises(KronpressError, match="'hub:' has no split 'test': choose one of: train, validation"):
        SQUAD.read("hub:", "test")
    with pytest.raises(KronpressError, match="'hub:' holds no question"):
        SQUAD.read("hub:", "train")


def test_a_feature_is_the_question_and_its_context(words: PreTrainedTokenizerFast) -> None:
    question = Question("q", CONTEXT, "  When?", (("Yuan dynasty", 4),))
    (feature,) = SQUAD.features([question], words, max_length=64)
    tokens = words.convert_ids_to_tokens(list(feature.ids))
    assert tokens[:8] == ["[CLS]", "when", "?", "[SEP]", "the", "yuan", "dynasty", "("]
    assert feature.types == (0,) * 4 + (1,) * (len(tokens) - 4)
    assert feature.labels == (5.0, 6.0)
    assert feature.offsets[:7] == ((0, 0),) * 4 + ((0, 3), (4, 8), (9, 16))
    assert feature.offsets[-1] == (0, 0)


@pytest.mark.parametrize("max_length", [12, 16, 40, 384])
def test_windows_cover_the_context_and_label_whole_answers_only(
    words: PreTrainedTokenizerFast, max_length: int
) -> None:
    question = about("w40 w41")
    features = SQUAD.features([about("w3"), question], words, max_length=max_length)
    assert [feature.example for feature in features] == sorted(feature.example for feature in features)
    mine = [feature for feature in features if feature.example == 1]
    seen = [{WORDS[start:end] for start, end in feature.offsets if end} for feature in mine]
    assert set().union(*seen) == set(WORDS.split())
    assert all(len(feature.ids) <= max_length for feature in features)
    for feature, held in zip(mine, seen, strict=True):
        start, end = (int(label) for label in feature.labels)
        if {"w40", "w41"} <= held:
            assert WORDS[feature.offsets[start][0] : feature.offsets[end][1]] == "w40 w41"
        else:
            assert (start, end) == (0, 0)
    assert sum(feature.labels != (0.0, 0.0) for feature in mine) >= 1
    assert (len(mine) == 1) == (max_length == 384)


def test_windows_share_a_stride(words: PreTrainedTokenizerFast) -> None:
    task = dataclasses.replace(SQUAD, stride=7)
    first, second, *_ = task.features([about("w3")], words, max_length=40)
    assert second.offsets[4:11] == first.offsets[-8:-1]  # after "who ? [SEP]", before the last [SEP]
    assert second.offsets[11] > first.offsets[-2]


def test_labels_of_odd_answers(words: PreTrainedTokenizerFast) -> None:
    context = "in 1990s, a  naïve (man) came"
    for text, tokens in {
        "1990": ["1990s"],  # part of a token
        " naïve ": ["naïve"],  # white space around it
        "(man)": ["(", "man", ")"],
        "in": ["in"],
        "came": ["came"],
    }.items():
        (feature,) = SQUAD.features([about(text, context)], words, max_length=64)
        start, end = (int(label) for label in feature.labels)
        assert [context[a:b] for a, b in feature.offsets[start : end + 1]] == tokens
    impossible = Question("q", context, "who?", (), impossible=True)
    unlabeled = Question("q", context, "who?", ())
    labels = [feature.labels for feature in SQUAD_2.features([impossible, unlabeled], words, max_length=64)]
    assert labels == [(0.0, 0.0), ()]


def test_long_questions_are_cut(words: PreTrainedTokenizerFast) -> None:
    long, short = about("w3", question=WORDS), about("w3", question=" ".join(WORDS.split()[:64]))
    assert [each.ids for each in SQUAD.features([long], words, max_length=384)] == [
        each.ids for each in SQUAD.features([short], words, max_length=384)
    ]
    for feature in SQUAD.features([long], words, max_length=20):
        assert feature.ids.index(3) == 11, "half of a window, and [CLS]"


def test_more_questions_than_fit_in_a_batch(words: PreTrainedTokenizerFast) -> None:
    questions = [about(f"w{number}") for number in (3, 14, 15, 92)]
    wanted = SQUAD.features(questions, words, max_length=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kronpress.tasks.squad._BATCH", 3)
        assert SQUAD.features(questions, words, max_length=40) == wanted


def test_what_is_no_encoders_tokenizer_is_refused(words: PreTrainedTokenizerFast) -> None:
    no_cls = tiny_tokenizer()
    with pytest.raises(KronpressError, match=r"squad points at \[CLS\].*span tasks need an encoder"):
        SQUAD.features([about("w3")], no_cls, max_length=64)
    no_cls.cls_token = None
    with pytest.raises(KronpressError, match="span tasks need an encoder"):
        SQUAD.features([about("w3")], no_cls, max_length=64)
    with pytest.raises(KronpressError, match="max_length=6 leaves no room"):
        SQUAD.features([about("w3")], words, max_length=6)


def test_perfect_logits_give_back_the_answers(words: PreTrainedTokenizerFast) -> None:
    questions = [about("w3"), about("w40 w41"), about("w98 w99"), Question("q", CONTEXT, "when?", (("元朝", 27),))]
    features = SQUAD.features(questions, words, max_length=16)
    outputs = [peaks(feature, *(int(label) for label in feature.labels)) for feature in features]
    answers = SQUAD.answers(questions, features, outputs)
    assert [answer.text for answer in answers] == ["w3", "w40 w41", "w98 w99", "元朝"]
    assert SQUAD.scores(questions, answers) == {"em": 100, "f1": 100}
    assert SQUAD.score({"em": 50.0, "f1": 70.0}) == 60


def by_hand(task: SquadTask, feature: Feature, logits: np.ndarray, *, n_best: int) -> str:
    """The best allowed span, by trying all."""
    inside = [token for token, (start, end) in enumerate(feature.offsets) if end > start]
    best = [set(sorted(inside, key=lambda token: -row[token])[:n_best]) for row in logits]
    pairs = [(s, e) for s in inside for e in inside if s in best[0] and e in best[1] and s <= e < s + task.max_answer]
    start, end = max(pairs, key=lambda pair: logits[0, pair[0]] + logits[1, pair[1]])
    return WORDS[feature.offsets[start][0] : feature.offsets[end][1]]


@pytest.mark.parametrize("seed", range(5))
def test_answers_equal_trying_all_spans(words: PreTrainedTokenizerFast, seed: int) -> None:
    question = about("w3")
    (feature,) = SQUAD.features([question], words, max_length=384)
    logits = np.random.default_rng(seed).normal(size=(2, len(feature.ids)))
    (answer,) = SQUAD.answers([question], [feature], [logits])
    assert answer == Answer(by_hand(SQUAD, feature, logits, n_best=20), -math.inf)


def test_spans_run_forward_are_short_and_inside_the_context(words: PreTrainedTokenizerFast) -> None:
    question = about("w3")
    (feature,) = SQUAD.features([question], words, max_length=384)

    def text(start: int, end: int, **more: float) -> str:
        logits = peaks(feature, start, end)
        for place, value in more.items():
            logits["se".index(place[0]), int(place[1:])] = value
        return SQUAD.answers([question], [feature], [logits])[0].text

    assert text(4, 4) == "w0"
    assert text(4, 33).split()[-1] == "w29", "30 tokens"
    assert text(4, 34, s34=1.0) == "w30", "31 tokens are too long, so the next best"
    assert text(20, 10, e22=1.0) == "w16 w17 w18", "backwards"
    assert text(0, 1, s50=1.0, e50=1.0) == "w46", "[CLS] and the question"
    assert text(1, len(feature.ids) - 1, s50=1.0, e50=1.0) == "w46", "the question and [SEP]"


def test_the_best_window_answers_and_the_least_null_score_counts(words: PreTrainedTokenizerFast) -> None:
    question = about("w3")
    first, second, *rest = SQUAD_2.features([question], words, max_length=40)
    outputs = [peaks(first, 5, 5, height=3.0), peaks(second, 6, 6, height=4.0)]
    outputs[0][:, 0], outputs[1][:, 0] = (1.0, 1.5), (0.5, 1.25)
    outputs += [np.full((2, len(feature.ids)), 2.0) for feature in rest]
    (answer,) = SQUAD_2.answers([question], [first, second, *rest], outputs)
    start, end = second.offsets[6]
    assert answer == Answer(WORDS[start:end], 1.75 - 8.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_do_no_harm(words: PreTrainedTokenizerFast, broken: float) -> None:
    question = about("w3")
    features = SQUAD_2.features([question], words, max_length=384)
    outputs = [np.full((2, len(features[0].ids)), broken, dtype=np.float16)]
    scores = SQUAD_2.scores([question], SQUAD_2.answers([question], features, outputs))
    assert all(map(math.isfinite, scores.values()))


def test_each_version_scores_by_its_own_script() -> None:
    question = Question("q", "The end.", "what?", (("The", 0), ("end", 4)))
    given = [Answer(".", -math.inf)]
    assert SQUAD.scores([question], given) == {"em": 100, "f1": 0}
    assert SQUAD_2.scores([question], given)["em"] == 0
    impossible = Question("q", "The end.", "what?", (), impossible=True)
    with pytest.raises(KronpressError, match="squad: question 'q' has no answer to compare with"):
        SQUAD.scores([impossible], given)


def test_an_empty_context_is_no_answer(words: PreTrainedTokenizerFast) -> None:
    question = Question("q", " ", "who?", (), impossible=True)
    features = SQUAD_2.features([question], words, max_length=64)
    answers = SQUAD_2.answers([question], features, [np.zeros((2, len(features[0].ids)))])
    assert answers == [Answer("", math.inf)]
    assert SQUAD_2.scores([question], answers)["em"] == 100


def test_scores_of_the_second_version() -> None:
    impossible = Question("q", WORDS, "why?", (), impossible=True)
    examples = [about("w3"), about("w4 w5"), impossible, impossible]
    answers = [Answer("w3", -2.0), Answer("w4", 1.0), Answer("w6", 3.0), Answer("w7", -1.0)]
    scores = SQUAD_2.scores(examples, answers)
    assert list(scores)[:2] == ["em", "f1"]
    assert (scores["em"], scores["f1"]) == (50, 50)  # right, silent, right to be silent, wrong
    assert (scores["has_answer_em"], scores["no_answer_em"]) == (50, 50)
    assert (scores["oracle_em"], scores["oracle_em_threshold"]) == (75, -2)
    assert (scores["oracle_f1"], scores["oracle_f1_threshold"]) == (pytest.approx(75), -2)
    assert SQUAD_2.score(scores) == 50, "the oracle is no metric"


@pytest.mark.parametrize("ask", [SQUAD.scores, SQUAD_2.scores])
def test_several_gold_answers(ask: Callable[..., dict[str, float]]) -> None:
    question = Question("q", WORDS, "who?", (("w3", 9), ("w3 w4", 9)))
    scores = ask([question], [Answer("the w3 w4.", -1.0)])
    assert (scores["em"], scores["f1"]) == (100, 100)


@pytest.mark.parametrize("name", ["squad", "squad-2"])
def test_the_tasks_are_on_the_shelf(name: str) -> None:
    task = TASKS[name]
    assert (task.name, task.head, task.outputs, task.metrics, task.max_length) == (name, "spans", 2, ("em", "f1"), 384)
    assert eval(repr(task)) == task
