"""What models of a task are trained and scored on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kronpress.errors import KronpressError
from kronpress.finetune.sources import Sources, TaskOptions
from kronpress.tasks import metrics

PAIRS = "index\tsentence1\tsentence2\tlabel"
HANS = "gold_label\tsentence1\tsentence2\tpairID\theuristic\tsubcase"


def written(path: Path, header: str, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    for split in ("train", "dev"):
        written(tmp_path / "RTE" / f"{split}.tsv", PAIRS, f"0\t{split}\tb\tentailment")
        written(tmp_path / "MNLI" / f"{split.replace('dev', 'dev_matched')}.tsv", PAIRS, f"0\t{split}\tb\tneutral")
    written(tmp_path / "MNLI" / "dev_mismatched.tsv", PAIRS, "0\tmismatched\tb\tneutral")
    written(tmp_path / "HANS" / "heuristics_evaluation_set.txt", HANS, "entailment\ta\tb\te0\tsubsequence\tx")
    return tmp_path


def sources(data: Path | None, *names: str, also: dict[str, Any] | None = None, **options: Any) -> Sources:
    tasks = {name: TaskOptions(**options.get(name, {})) for name in names}
    return Sources(tasks, None if data is None else str(data), {name: str(path) for name, path in (also or {}).items()})


def test_a_file_cannot_be_training_and_dev_set(glue: Path) -> None:
    with pytest.raises(KronpressError, match=r"train\.tsv' would be training and dev set of 'rte' at once; name a"):
        sources(glue / "RTE" / "train.tsv", "rte").read("rte")


def test_two_tasks_do_not_read_the_same_rows(glue: Path) -> None:
    assert sources(glue / "RTE", "rte").read("rte").train[0].first == "train"
    with pytest.raises(KronpressError, match="has no folder for 'rte', and so rte, wnli would read the same; make one"):
        sources(glue / "RTE", "rte", "wnli").read("rte")
    own = sources(glue / "RTE", "rte", "mnli", mnli={"data": str(glue / "MNLI")})
    assert [own.read(name).train[0].label for name in ("rte", "mnli")] == [0.0, 1.0]


def test_other_data_stand_in_the_same_folder(glue: Path) -> None:
    found = sources(glue, "rte", "mnli", also={"hans": glue, "mnli-mm": glue})
    assert [each.first for each in found.read("mnli").also["mnli-mm"]] == ["mismatched"]
    assert set(found.read("rte").also) == {"hans"}


def test_what_is_scored_must_have_labels(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        written(tmp_path / "SST-2" / f"{split}.tsv", "sentence\tlabel", f"{split}\t1")
    reviews = tmp_path / "reviews.jsonl"
    reviews.write_text(json.dumps({"text": "good"}) + "\n")
    with pytest.raises(KronpressError, match="1 of 1 examples of 'imdb' have no label"):
        sources(tmp_path, "sst-2", also={"imdb": reviews}).read("sst-2").check()
    reviews.write_text(json.dumps({"text": "good", "label": 1}) + "\n")
    sources(tmp_path, "sst-2", also={"imdb": reviews}).read("sst-2").check()


def test_a_missing_package_is_missed_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "dev"):
        written(tmp_path / "MRPC" / f"{split}.tsv", "Quality\t#1 String\t#2 String", f"1\t{split}\tb")

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(metrics.importlib, "import_module", missing)
    with pytest.raises(KronpressError, match=r"pip install scikit-learn"):
        sources(tmp_path, "mrpc").read("mrpc").check()


def test_unlabeled_may_be_one_word_and_is_checked_at_once() -> None:
    assert TaskOptions(unlabeled="rte").unlabeled == ("rte",)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown task 'rtx'"):
        TaskOptions(unlabeled=("rtx",))
