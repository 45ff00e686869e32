"""Reading: the layouts that are in use, and what is said of files that can not be read."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kronpress.errors import KronpressError
from kronpress.tasks import COLA, HANS, IMDB, MNLI, MNLI_MISMATCHED, MRPC, PAWS, QQP, RTE, SST2, STSB, TASKS, Example
from kronpress.tasks.rows import Columns, Request, read_rows

RTE_HEADER = "index\tsentence1\tsentence2\tlabel\n"


def write(path: Path, text: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_quotes_are_text_and_only_newlines_end_rows(tmp_path: Path) -> None:
    sentence = 'a "quote, \u2028 \x85 and "" more'
    source = write(tmp_path / "dev.tsv", f'sentence\tlabel\n{sentence}\t1\n"\t0\n')
    assert [example.first for example in SST2.read(source, "dev")] == [sentence, '"']


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_line_ends(folder: bool, end: str, mark: bytes, tmp_path: Path) -> None:
    text = end.join(["index\tsentence1\tsentence2\tlabel", "7\tone\ttwo\tnot_entailment"]) + end
    path = write(tmp_path / "dev.tsv", mark + text.encode())
    assert RTE.read(str(tmp_path) if folder else path, "dev") == [Example("one", "two", 1.0, "7")]


def test_cola_has_a_header_in_its_test_set_only(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "gj04\t1\t\tOurs walks.\nbc01\t0\t*\tThey walk.\n")
    write(tmp_path / "test.tsv", "index\tsentence\n4\tWe walk.\n")
    assert [(example.first, example.label, example.name) for example in COLA.read(str(tmp_path), "train")] == [
        ("Ours walks.", 1.0, "0"),
        ("They walk.", 0.0, "1"),
    ]
    assert COLA.read(str(tmp_path), "test") == [Example("We walk.", None, None, "4")]


@pytest.mark.parametrize("header", ["", "id\tsentence1\tsentence2\tlabel\n"])
def test_paws_with_and_without_a_header(header: str, tmp_path: Path) -> None:
    source = write(tmp_path / "dev4000.tsv", header + "1\ta b\tb a\t0\r\n2\tc\td\t1\r\n")
    assert PAWS.read(source, "dev") == [Example("a b", "b a", 0.0, "1"), Example("c", "d", 1.0, "2")]


@pytest.mark.parametrize(
    ("task", "header", "row"),
    [
        (MRPC, "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t11\t12\tone\ttwo"),
        (QQP, "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "0\t11\t12\tone\ttwo\t1"),
    ],
)
def test_local_and_hub_columns_say_the_same(task: Any, header: str, row: str, tmp_path: Path) -> None:
    first, second = ("question1", "question2") if task is QQP else ("sentence1", "sentence2")
    write(tmp_path / "local" / "dev.tsv", f"{header}\n{row}\n")
    record = json.dumps({first: "one", second: "two", "label": 1, "idx": 0})
    write(tmp_path / "hub" / "validation.jsonl", f"{record}\n\n")
    wanted = [Example("one", "two", 1.0, "0")]
    assert task.read(str(tmp_path / "local"), "dev") == task.read(str(tmp_path / "hub"), "dev") == wanted


def test_qqp_alone_leaves_short_rows_out_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    rows = ["0\t1\t2\tone\ttwo\t1", "5\t6\tbroken", "\tthree\t0", "7\t8\t9\tfour\tfive\t0"]
    source = write(tmp_path / "train.tsv", header + "\n".join(rows) + "\n")
    assert [example.name for example in QQP.read(source, "train")] == ["0", "7"]
    said = capsys.readouterr().out
    assert said == f"warning: {source}: rows with too few fields are left out: 2, the first in line 3\n"
    QQP.read(write(tmp_path / "dev.tsv", header + rows[0]), "dev")
    assert capsys.readouterr().out == ""
    with pytest.raises(KronpressError, match="line 2: 7 fields instead of 6"):
        QQP.read(write(tmp_path / "long.tsv", header + rows[0] + "\t1\n"), "train")
    with pytest.raises(KronpressError, match="has no rows"):
        QQP.read(write(tmp_path / "short.tsv", header + rows[1] + "\n"), "train")
    test = write(tmp_path / "test.tsv", "id\tquestion1\tquestion2\n0\ta\tb\n1\tc\n")  # GLUE's server wants all rows
    with pytest.raises(KronpressError, match=r"line 3: 2 fields instead of 3 \(id, question1, question2\)"):
        QQP.read(test, "test")


def test_mnli_reads_the_gold_label_and_keeps_its_dev_sets_apart(tmp_path: Path) -> None:
    header = (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n"
    )
    middle = "5\t5e\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)"
    write(tmp_path / "dev_matched.tsv", f"{header}0\t{middle}\tone\ttwo\tentailment\tneutral\n")
    write(tmp_path / "dev_mismatched.tsv", f"{header}0\t{middle}\tthree\tfour\tneutral\tcontradiction\n")
    assert MNLI.read(str(tmp_path), "dev") == [Example("one", "two", 1.0, "0")]
    assert MNLI_MISMATCHED.read(str(tmp_path), "dev") == [Example("three", "four", 2.0, "0")]


def test_hans_spells_one_class_its_own_way_and_has_groups(tmp_path: Path) -> None:
    header = "gold_label\tsentence1\tsentence2\tpairID\theuristic\tsubcase\n"
    write(tmp_path / "heuristics_evaluation_set.txt", header + "non-entailment\ta b\tb a\tex0\tconstituent\tx\n")
    assert HANS.read(str(tmp_path), "dev") == [Example("a b", "b a", 1.0, "ex0", "constituent")]


def test_imdb_in_its_original_folders(tmp_path: Path) -> None:
    write(tmp_path / "test" / "pos" / "0_9.txt", "good")
    write(tmp_path / "test" / "neg" / "3_1.txt", "bad")
    wanted = [Example("bad", None, 0.0, "neg/3_1"), Example("good", None, 1.0, "pos/0_9")]
    assert IMDB.read(str(tmp_path), IMDB.scored_split) == wanted
    with pytest.raises(KronpressError, match=r"has no 'dev\.tsv': choose one of: test"):  # and selects on no test set
        IMDB.read(str(tmp_path), "dev")
    (tmp_path / "test" / "pos" / "0_9.txt").unlink()
    with pytest.raises(KronpressError, match=r"test/pos' holds no \.txt file"):
        IMDB.read(str(tmp_path), "test")


def test_imdb_in_one_file(tmp_path: Path) -> None:
    source = write(tmp_path / "reviews.jsonl", '{"text": "good", "label": "pos"}\n{"text": "bad", "label": 0}')
    assert [example.label for example in IMDB.read(source, "test")] == [1.0, 0.0]


@pytest.mark.parametrize("label", ["-1", "", " "])
def test_a_test_set_may_leave_labels_out(label: str, tmp_path: Path) -> None:
    write(tmp_path / "test.tsv", f"{RTE_HEADER}0\ta\tb\t{label}\n1\tc\td\tentailment\n")
    assert [example.label for example in RTE.read(str(tmp_path), "test")] == [None, 0.0]
    write(tmp_path / "dev.tsv", f"{RTE_HEADER}0\ta\tb\t{label}\n")
    with pytest.raises(KronpressError, match=r"dev\.tsv, line 2: no label .* give one, remove the row, or read"):
        RTE.read(str(tmp_path), "dev")


@given(st.lists(st.text(st.characters(exclude_characters="\t\n\r\ufeff", codec="utf-8")), min_size=1, max_size=5))
def test_any_text_without_tabs_and_newlines_comes_back(tmp_path_factory: Any, texts: list[str]) -> None:
    body = "".join(f"{number}\t{text}\tx\tentailment\n" for number, text in enumerate(texts))
    source = write(tmp_path_factory.mktemp("any") / "dev.tsv", RTE_HEADER + body)
    assert [example.first for example in RTE.read(source, "dev")] == texts


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dev.tsv", "", r"'.*dev\.tsv' has no rows for 'dev'"),
        ("dev.tsv", "\n", r"has no rows"),
        ("dev.tsv", RTE_HEADER, r"has no rows"),
        ("dev.jsonl", "", r"has no rows"),
        ("dev.tsv", RTE_HEADER + "0\ta\tb\n", r"dev\.tsv, line 2: 3 fields instead of 4 \(index, sentence1, .* tabs"),
        ("dev.tsv", RTE_HEADER + "0\ta\tb\tc\tentailment\n", r"line 2: 5 fields instead of 4"),
        ("dev.tsv", RTE_HEADER + "0\ta\tb\tentailment\n\n1\ta\tb\tentailment\n", r"line 3: 1 fields instead of 4"),
        ("dev.tsv", "index\tsentence1\tsentence2\n0\ta\tb\n", r"dev\.tsv, line 1: no column 'label', but index, sent"),
        (
            "dev.tsv",
            "sentence1\tpremise\tlabel\na\tb\tc\n",
            r"line 1: no column 'sentence2', but .* name it 'sentence2'",
        ),
        ("dev.tsv", RTE_HEADER + "0\ta\tb\tentails\n", r"line 2: unknown label 'entails' of 'rte': did you mean 'ent"),
        ("dev.tsv", RTE_HEADER.encode() + b"0\t\xff\tb\tc\n", r"dev\.tsv, line 2: not UTF-8 at byte 34; convert it"),
        ("dev.jsonl", "{}", r"dev\.jsonl, line 1: no column 'sentence1', but none at all"),
        ("dev.jsonl", "\n{", r"line 2: not JSON \(.*\); give one object a line"),
        ("dev.tsv", "sentence1\tsentence2\tlabel\tsentence1\n", r"line 1: more than one column 'sentence1'; rename"),
        ("dev.jsonl", "[" * 100_000, r"line 1: not JSON \(maximum recursion"),
        ("dev.jsonl", f'{{"label": {"1" * 5000}}}', r"line 1: not JSON \(Exceeds the limit"),
        ("dev.jsonl", "[1]", r"line 1: a JSON list, not an object"),
        ("dev.jsonl", '{"sentence1": "a", "sentence2": "b", "label": 2}', r"unknown label '2' .* a number below 2"),
        (
            "dev.jsonl",
            '{"sentence1": "a", "sentence2": "b", "label": true}',
            r"'label' is a bool; give a text or a num",
        ),
        (
            "dev.jsonl",
            '{"sentence1": "a", "label": 1, "label": 0}',
            r"line 1: not JSON .the key 'label' is given twice",
        ),
        ("dev.jsonl", '{"sentence1": "a", "sentence2": "b", "label": 0.5}', r"unknown label '0\.5'"),
        ("dev.jsonl", '{"sentence1": "a", "sentence2": "b", "label": NaN}', r"unknown label 'nan'"),
        ("dev.jsonl", '{"sentence1": "a", "sentence2": "b", "label": null}', r"line 1: no label \(None\)"),
        ("dev.jsonl", '{"sentence1": "a", "sentence2": "b", "label": [1]}', r"'label' is a list; give a text or a num"),
        ("dev.jsonl", '{"sentence1": "a", "sentence2": 3, "label": 1}', r"'sentence2' is 3 and no text"),
        ("dev.jsonl", '{"sentence1": "\\ud800", "sentence2": "b", "label": 1}', r"line 1: half of a surrogate pair"),
        ("dev.csv", "a,b", r"has no 'dev\.tsv'"),
        ("train.tsv", RTE_HEADER, r"has no 'dev\.tsv': .*choose one of: train\.tsv"),
    ],
)
def test_errors_name_place_and_remedy(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    write(tmp_path / name, text)
    source = tmp_path / name if re.search("has no rows", message) else tmp_path
    with pytest.raises(KronpressError, match=message) as caught:
        RTE.read(str(source), "dev")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["5.1", "-0.5", "nan", "inf", "four"])
def test_numbers_must_be_in_the_range(value: str, tmp_path: Path) -> None:
    source = write(tmp_path / "dev.tsv", f"sentence1\tsentence2\tscore\na\tb\t{value}\n")
    with pytest.raises(KronpressError, match=f"line 2: the label '{value}' of 'sts-b' is no number from 0 to 5"):
        STSB.read(source, "dev")


def test_missing_files_folders_and_kinds(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="does not exist either"):
        RTE.read(str(tmp_path / "no" / "where"), "dev")
    (tmp_path / "RTE").mkdir()
    with pytest.raises(KronpressError, match="did you mean 'RTE'"):
        RTE.read(str(tmp_path / "RTF"), "dev")
    with pytest.raises(KronpressError, match="RTE' holds nothing of the kind; name a folder"):
        RTE.read(str(tmp_path / "RTE"), "dev")
    with pytest.raises(KronpressError, match=r"can not be read as rows; give it as one of \.tsv"):
        RTE.read(write(tmp_path / "dev.csv", "a,b"), "dev")


def test_splits_that_a_task_lacks() -> None:
    with pytest.raises(KronpressError, match="'hans' has no training data; train on 'rte' or 'mnli'"):
        HANS.read("anywhere", "train")
    with pytest.raises(KronpressError, match="'mnli-mm' has no training data; train on 'mnli'"):
        MNLI_MISMATCHED.read("anywhere", "train")
    with pytest.raises(KronpressError, match="'rte' has no split 'tset': did you mean 'test'"):
        RTE.read("anywhere", "tset")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Stand in for `datasets`; return the list of what is asked of it."""
    asked: list[tuple[str, ...]] = []
    rows = [{"sentence1": "a", "sentence2": "b", "label": 1, "idx": 9}]
    unlabeled = [{"sentence1": "a", "sentence2": "b", "label": -1, "idx": 3}]

    def load_dataset(*arguments: str) -> dict[str, Any]:
        asked.append(arguments)
        if "offline" in arguments:
            raise ConnectionError("no route\nto the hub")
        return {"validation": rows, "test": unlabeled, "empty": []}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        ("hub:", ("nyu-mll/glue", "rte")),
        ("hub:nyu-mll/glue", ("nyu-mll/glue", "rte")),
        ("hub:someone/else/mine", ("someone/else", "mine")),
        ("hub:someone/else", ("someone/else",)),
        ("hub:imdb", ("imdb",)),
    ],
)
def test_hub_sources(source: str, arguments: tuple[str, ...], hub: list[tuple[str, ...]]) -> None:
    assert RTE.read(source, "dev") == [Example("a", "b", 1.0, "9")]
    assert RTE.read(source, "test") == [Example("a", "b", None, "3")]
    assert hub == [arguments, arguments]


def test_hub_errors(hub: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KronpressError, match=r"'hub:offline' can not be loaded \(no route\); check the name"):
        RTE.read("hub:offline", "dev")
    with pytest.raises(KronpressError, match="has no split 'train': choose one of: empty, test, validation"):
        RTE.read("hub:", "train")
    with pytest.raises(KronpressError, match="no data set of its own on the hub"):
        HANS.read("hub:", "dev")
    with pytest.raises(KronpressError, match="has 4 parts"):
        RTE.read("hub:a/b/c/d", "dev")
    with pytest.raises(KronpressError, match="split validation, row 0: no column 'sentence'"):
        SST2.read("hub:", "dev")
    with pytest.raises(KronpressError, match="'hub:' has no rows for 'empty'"):
        list(read_rows("hub:", Request(columns=Columns(first=("text",)), names=("empty",), hub=("x",))))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(KronpressError, match=r"pip install datasets"):
        RTE.read("hub:", "dev")


@pytest.mark.parametrize(
    ("name", "source", "split", "rows"),
    [
        ("cola", "glue/CoLA", "train", 8551),
        ("cola", "glue/CoLA", "dev", 1043),
        ("sst-2", "glue/SST-2", "train", 67_349),
        ("sst-2", "glue/SST-2", "dev", 872),
        ("mrpc", "glue/MRPC", "train", 3668),
        ("mrpc", "glue/MRPC", "dev", 408),
        ("sts-b", "glue/STS-B", "train", 5749),
        ("sts-b", "glue/STS-B", "dev", 1500),
        ("rte", "glue/RTE", "train", 2490),
        ("rte", "glue/RTE", "dev", 277),
        ("wnli", "glue/WNLI", "train", 635),
        ("wnli", "glue/WNLI", "dev", 71),
        ("qnli", "glue/QNLI", "dev", 5463),
        ("hans", "ood/HANS", "dev", 30_000),
        ("paws", "ood/PAWS-Wiki/dev4000.tsv", "dev", 4000),
    ],
)
def test_real_files_have_the_rows_they_should(name: str, source: str, split: str, rows: int, test_data: Path) -> None:
    if not (test_data / source).exists():
        pytest.skip(f"no {source} in {test_data}")
    examples = TASKS[name].read(str(test_data / source), split)
    assert len(examples) == rows == len({example.name for example in examples})
    assert all(example.first.strip() and example.label is not None for example in examples)
    assert all(
        score == pytest.approx(100) for score in TASKS[name].scores(examples, [e.label for e in examples]).values()
    )
