"""The evaluate step measures what its fields ask for, beside the dense model, which is measured once a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from kronpress.errors import KronpressError
from kronpress.evaluate import Evaluate
from kronpress.evaluate.perplexity import PerplexityProtocol
from kronpress.records import decode, encode
from kronpress.step import Workbench
from tests.tiny import bench, factorized, tiny_bert, tiny_llama


@pytest.fixture
def work(tmp_path: Path) -> Workbench:
    """A student with factors, beside its teacher."""
    (tmp_path / "lambada.jsonl").write_text('{"text": "the cat and the cat"}\n{"text": "a dog, and one dog"}\n')
    model = tiny_llama(max_position_embeddings=64)
    made = bench(model, tmp_path / "step")
    return dataclasses.replace(made, student=factorized(model, tmp_path), measurements=tmp_path / "teacher.json")


def test_student_and_dense_model_stand_side_by_side(work: Workbench, tmp_path: Path) -> None:
    fields = {"protocols": ("tokens-16", "tokens-32"), "max_windows": 2, "lambada": str(tmp_path / "lambada.jsonl")}
    step = Evaluate(stage="factorized", speed=True, prompts=("one and",), precision="fp32", **fields)
    step.check(work)
    record = step.run(work)
    assert (record.stage, record.precision) == ("factorized", "fp32")
    assert [pair.dense.protocol for pair in record.perplexity] == ["tokens-16", "tokens-32"]
    for pair in record.perplexity:
        assert pair.ratio == pair.student.perplexity / pair.dense.perplexity != 1
        assert (pair.student.windows, pair.student.text) == (2, "lines")
    assert record.lambada is not None
    assert (record.lambada.dense.text, record.lambada.dense.passages) == ("lambada.jsonl", 2)
    assert record.speed is not None and [row.phase for row in record.speed.rows] == ["prefill", "decode"]
    assert [sample.prompt for sample in record.samples] == ["one and"]
    assert (record.fidelity, record.lm_eval) == (None, ())
    written = json.loads(json.dumps(encode(record)))
    assert decode(type(record), written, place="report.json", remedy="restore it") == record


def test_the_protocol_is_by_default_the_longest_that_the_model_sees(work: Workbench) -> None:
    record = Evaluate(max_windows=1).run(work)
    assert [pair.student.protocol for pair in record.perplexity] == ["tokens-64"]


def test_the_dense_model_is_measured_once_for_each_protocol(work: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, original = [], PerplexityProtocol.measure

    def measure(self: PerplexityProtocol, model: Any, *arguments: Any, **options: Any) -> Any:
        measured.append((self.name, model is work.teacher))
        return original(self, model, *arguments, **options)

    monkeypatch.setattr(PerplexityProtocol, "measure", measure)
    first = Evaluate(protocols=("tokens-16",), max_windows=1).run(work)
    again = Evaluate(protocols=("tokens-16", "tokens-32"), max_windows=1).run(work)
    assert measured == [
        ("tokens-16", True),
        ("tokens-16", False),
        ("tokens-32", True),
        ("tokens-16", False),
        ("tokens-32", False),
    ]
    assert again.perplexity[0].dense == first.perplexity[0].dense


def test_the_outputs_of_encoders_are_compared(tmp_path: Path) -> None:
    model = tiny_bert()
    work = dataclasses.replace(bench(model, tmp_path / "step"), student=factorized(model, tmp_path))
    step = Evaluate(prompts=("not read",))
    step.check(work)
    record = step.run(work)
    assert record.fidelity is not None
    assert 0 < record.fidelity.cosine < 1 and record.fidelity.windows > 1
    assert (record.perplexity, record.samples) == ((), ())
    with pytest.raises(KronpressError, match="lm-eval needs a causal language model"):
        Evaluate(lm_eval=("piqa",)).check(work)


@pytest.fixture
def tasks(tmp_path: Path, no_shipped_tasks: None) -> Path:
    """A folder with a task of lm-eval, the only one that there is."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "data.jsonl").write_text("".join(f'{{"ask": "{ask}", "answer": 1}}\n' for ask in ("one", "two", "three")))
    (folder / "task.yaml").write_text(
        f"""task: kronpress_choose
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/data.jsonl}}, cache_dir: {tmp_path}/cache}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{ask}}}}"
doc_to_choice: ["x", "y"]
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
    )
    return folder


def test_tasks_of_lm_eval_are_reached_from_a_recipe(work: Workbench, tasks: Path) -> None:
    step = Evaluate(protocols=(), lm_eval=("kronpress_choose",), lm_eval_include=str(tasks), max_examples=2)
    step.check(work)
    before = step.sources()
    record = step.run(work)
    (pair,) = record.lm_eval
    for score in (pair.dense, pair.student):
        assert (score.task, score.metric, score.examples) == ("kronpress_choose", "acc", 2)
    assert step.run(work).lm_eval == record.lm_eval
    (tasks / "task.yaml").write_text((tasks / "task.yaml").read_text().replace("acc", "acc_norm"))
    assert step.sources() != before, "a change of the task files is noticed"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_passages": 3}, "max_passages: 3 would not be read; name LAMBADA's file"),
        ({"max_examples": 3}, "max_examples: 3 would not be read; name tasks under lm_eval"),
        ({"lm_eval_include": "tasks"}, "lm_eval_include: 'tasks' would not be read; name tasks under lm_eval"),
        ({"protocols": ("tokens",)}, "unknown perplexity protocol 'tokens'"),
    ],
)
def test_what_would_not_be_read_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluate(**fields)


def test_tasks_that_are_not_there_are_told_before_the_run(work: Workbench, tasks: Path) -> None:
    with pytest.raises(KronpressError, match="lm-eval knows no task 'kronpress_chose'"):
        Evaluate(lm_eval=("kronpress_chose",), lm_eval_include=str(tasks)).check(work)
