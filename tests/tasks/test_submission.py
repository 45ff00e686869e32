"""Files for GLUE's server."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from kronpress.errors import KronpressError
from kronpress.tasks import COLA, HANS, MNLI, MNLI_MISMATCHED, MRPC, QNLI, QQP, RTE, SQUAD, SST2, STSB, WNLI, Example
from kronpress.tasks.sentences import SentenceTask
from kronpress.tasks.submission import write_submission

EXAMPLES = [Example("a", "b", None, "0"), Example("c", "d", None, "1")]


@pytest.mark.parametrize(
    ("task", "file", "spelled"),
    [
        (COLA, "CoLA", ["0", "1"]),
        (SST2, "SST-2", ["0", "1"]),
        (MRPC, "MRPC", ["0", "1"]),
        (QQP, "QQP", ["0", "1"]),
        (STSB, "STS-B", ["0.000", "1.000"]),
        (MNLI, "MNLI-m", ["entailment", "neutral"]),
        (MNLI_MISMATCHED, "MNLI-mm", ["entailment", "neutral"]),
        (QNLI, "QNLI", ["entailment", "not_entailment"]),
        (RTE, "RTE", ["entailment", "not_entailment"]),
        (WNLI, "WNLI", ["0", "1"]),
    ],
)
def test_each_task_of_glue(task: SentenceTask, file: str, spelled: list[str], tmp_path: Path) -> None:
    path = write_submission(task, EXAMPLES, [0.0, 1.0], folder=tmp_path / "new")
    assert path == tmp_path / "new" / f"{file}.tsv"
    assert path.read_text() == f"index\tprediction\n0\t{spelled[0]}\n1\t{spelled[1]}\n"
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("answer", "written"), [(5.7, "5.000"), (-0.2, "0.000"), (3.14159, "3.142"), (-0.0, "0.000")])
def test_numbers_are_clipped_and_rounded(answer: float, written: str, tmp_path: Path) -> None:
    path = write_submission(STSB, EXAMPLES[:1], [answer], folder=tmp_path)
    assert path.read_text().splitlines()[1] == f"0\t{written}"


def test_rows_keep_their_own_names(tmp_path: Path) -> None:
    path = write_submission(RTE, [Example("a", "b", None, "42")], [1.0], folder=tmp_path)
    assert path.read_text().splitlines()[1] == "42\tnot_entailment"


def test_what_can_not_be_submitted(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="'hans' is not part of GLUE"):
        write_submission(HANS, EXAMPLES, [0.0, 1.0], folder=tmp_path)
    with pytest.raises(KronpressError, match="'squad' is not part of GLUE"):
        write_submission(SQUAD, [], [], folder=tmp_path)
    with pytest.raises(KronpressError, match="example '1': 'sts-b' has no answer nan"):
        write_submission(STSB, EXAMPLES, [0.0, math.nan], folder=tmp_path)
    for answer in (math.nan, 2.0, -1.0, 0.5):
        with pytest.raises(KronpressError, match="example '1': 'rte' has no class"):
            write_submission(RTE, EXAMPLES, [0.0, answer], folder=tmp_path)
    with pytest.raises(KronpressError, match="1 answers to 2 examples of 'rte'"):
        write_submission(RTE, EXAMPLES, [0.0], folder=tmp_path)
    assert not list(tmp_path.iterdir())
