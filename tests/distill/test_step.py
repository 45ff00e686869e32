from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM
from transformers.trainer_pt_utils import safe_globals

from kronpress import processes
from kronpress.data import Corpus
from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.step import Workbench
from kronpress.train import read_log
from kronpress.train import settings as training
from kronpress.train.checkpoints import MARK, newest_whole
from kronpress.train.trainer import DistillationTrainer
from kronpress.validation import parse
from tests.tiny import VOCABULARY, bench, save_tiny, tiny_bert, tiny_gpt2, tiny_llama, with_more_rows

pytestmark = pytest.mark.usefixtures("in_float32")

STEPS, SAVED = 8, 4
Build = Callable[[], PreTrainedModel]
MODELS = pytest.mark.parametrize(
    "build", [tiny_llama, lambda: tiny_gpt2(resid_pdrop=0.1, embd_pdrop=0.1)], ids=["llama", "gpt2 with dropout"]
)


class Killed(BaseException):
    """What stands for the end of the process."""


def step(**fields: Any) -> Distill:
    fixed = {"tokens": STEPS * 4 * 32, "window": 32, "batch": 4, "learning_rate": 5e-3, "save_every": SAVED}
    fixed |= {"dropout": None}  # that of the configuration
    return Distill(**(fixed | fields))


def factored(build: Build, folder: Path) -> Workbench:
    work = bench(build(), folder)
    Factorize(method={"name": "van_loan", "right": (2, 2), "terms": 2}, sites="all,embedding").run(work)
    torch.manual_seed(0)
    return work


def kill_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process end in one forward pass, of training or validation."""
    calls, compute = iter(range(1, 1000)), DistillationTrainer.compute_loss

    def compute_or_die(self: DistillationTrainer, *arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return compute(self, *arguments, **options)

    monkeypatch.setattr(DistillationTrainer, "compute_loss", compute_or_die)


def assert_same_weights(first: PreTrainedModel, second: PreTrainedModel) -> None:
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def whole_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log without what depends on the clock and the machine."""
    clock = {"seconds", "tokens_per_second", "peak_rss_bytes"}
    return [
        {key: value for key, value in line.items() if key not in clock} for line in read_log(folder / "train.jsonl")
    ]


@MODELS
def test_training_lowers_the_loss_and_leaves_the_teacher(build: Build, tmp_path: Path) -> None:
    work = factored(build, tmp_path)
    before = {name: value.clone() for name, value in work.teacher.state_dict().items()}
    report = step(tokens=24 * 4 * 32).run(work)
    losses = [point.loss for point in report.curve]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert all(torch.equal(before[name], value) for name, value in work.teacher.state_dict().items())
    assert not work.student.training
    assert work.student.get_output_embeddings().table is work.student.get_input_embeddings()


def test_the_report_tells_tokens_steps_and_the_curve(tmp_path: Path) -> None:
    work = factored(tiny_llama, tmp_path)
    report = step(tokens=STEPS * 4 * 32 - 5).run(work)
    assert (report.tokens, report.steps) == (STEPS * 4 * 32, STEPS)
    assert [point.tokens for point in report.curve] == [128 * n for n in (2, 4, 6, 8)]
    lines = read_log(tmp_path / "train.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert all(line["grad_norm"] > 0 and line["tokens_per_second"] > 0 for line in lines)
    assert all(line["parts"] == {"logits": pytest.approx(line["loss"], rel=1e-5)} for line in lines)
    assert report.parts == lines[-1]["parts"]
    assert report.validation == ()


def test_the_report_tells_the_loss_on_validation_text(tmp_path: Path) -> None:
    report = step(validate_every=3, validation_windows=3, micro_batch=2).run(factored(tiny_llama, tmp_path))
    assert [point.tokens for point in report.validation] == [128 * n for n in (3, 6, 8)]
    assert all(point.loss > 0 for point in report.validation)
    assert len(report.curve) == STEPS // 2


LOSSES = {"logits": {"top_k": 8}, "cross_entropy": 0.3}
HOW = [
    {},
    {"micro_batch": 2, "validate_every": 3, "validation_windows": 2, "losses": LOSSES},
]


@MODELS
@pytest.mark.parametrize("fields", HOW, ids=["plain", "accumulated and validated"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_going_on_after_a_kill_ends_where_no_kill_would(
    build: Build, fields: dict[str, Any], share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = factored(build, tmp_path / "whole")
    expected = step(**fields).run(whole)
    passes = STEPS * 2 + 3 if fields else STEPS
    with monkeypatch.context() as patch:
        kill_at(round(share * passes), patch)
        with pytest.raises(Killed):
            step(**fields).run(factored(build, tmp_path / "killed"))
    resumed = factored(build, tmp_path / "killed")
    torch.rand(7)  # another state of the random numbers
    report = step(**fields).run(resumed)
    assert_same_weights(whole.student, resumed.student)
    assert whole_lines(tmp_path / "whole") == whole_lines(tmp_path / "killed")
    for key in ("curve", "validation", "parts", "steps", "tokens"):
        assert getattr(report, key) == getattr(expected, key), key


@pytest.mark.parametrize("left", [1, 0])
def test_checkpoints_that_are_damaged_are_never_gone_on_from(
    left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = factored(tiny_llama, tmp_path / "whole")
    step(save_every=2).run(whole)
    with monkeypatch.context() as patch:
        kill_at(STEPS, patch)
        with pytest.raises(Killed):
            step(save_every=2).run(factored(tiny_llama, tmp_path / "killed"))
    folder = tmp_path / "killed" / "trainer"
    before, latest = folder / "checkpoint-4", folder / "checkpoint-6"
    assert sorted(folder.iterdir()) == [before, latest]
    (latest / "optimizer.pt").write_bytes((latest / "optimizer.pt").read_bytes()[:-1000])
    if not left:
        (before / MARK).unlink()
    resumed = factored(tiny_llama, tmp_path / "killed")
    capsys.readouterr()
    step(save_every=2).run(resumed)
    assert_same_weights(whole.student, resumed.student)
    assert whole_lines(tmp_path / "whole") == whole_lines(tmp_path / "killed")
    printed = capsys.readouterr().out
    assert f"warning: {latest} is left out: optimizer.pt is not as it was written" in printed
    assert ("the training starts over" in printed) == (left == 0)


def test_a_full_disk_stops_and_freed_space_lets_it_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = factored(tiny_llama, tmp_path / "whole")
    step().run(whole)
    with monkeypatch.context() as patch:
        save, calls = torch.save, iter(range(100))

        def full(value: Any, path: Any) -> None:
            if next(calls) == 4:  # optimizer, scheduler and random state are written at each of them
                Path(path).write_bytes(b"half")
                raise RuntimeError("[enforce fail at inline_container.cc:743] . PytorchStreamWriter failed writing")
            save(value, path)

        patch.setattr(torch, "save", full)
        with pytest.raises(KronpressError, match=r"no space for the checkpoint .*checkpoint-8: .*--resume"):
            step().run(factored(tiny_llama, tmp_path / "full"))
    folder = tmp_path / "full" / "trainer"
    assert newest_whole(folder) == folder / f"checkpoint-{SAVED}"
    assert len(list(folder.iterdir())) == 1
    resumed = factored(tiny_llama, tmp_path / "full")
    step().run(resumed)
    assert_same_weights(whole.student, resumed.student)


def test_a_checkpoint_needs_no_trust_to_be_read(tmp_path: Path) -> None:
    """torch.load(weights_only=True) runs no code; the names beside the tensors are those of random states."""
    step().run(factored(tiny_llama, tmp_path))
    folder = newest_whole(tmp_path / "trainer")
    assert folder is not None
    pickled = {path.name for path in folder.iterdir() if path.suffix not in (".json", ".safetensors", ".bin")}
    assert pickled == {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    with safe_globals():
        for name in pickled:
            torch.load(folder / name, weights_only=True)


def test_a_log_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_log(tmp_path / "train.jsonl") == [{"step": 1}, {"step": 2}]
    assert read_log(tmp_path / "none.jsonl") == []


def test_a_dense_student_learns_too(tmp_path: Path) -> None:
    work = bench(tiny_llama(seed=1), tmp_path, teacher=tiny_llama(seed=2))
    report = step(tokens=20 * 4 * 32, losses={"logits": {"temperature": 2}, "cross_entropy": 0.1}).run(work)
    assert report.curve[-1].loss < report.curve[0].loss


def test_models_of_different_vocabularies_are_refused(tmp_path: Path) -> None:
    for student, teacher in ((264, 263), (263, 264)):
        work = bench(tiny_llama(vocab_size=student), tmp_path, teacher=tiny_llama(vocab_size=teacher))
        message = f"a vocabulary of {student} and the teacher of {teacher}, but the tokenizer has 264 tokens"
        with pytest.raises(KronpressError, match=message):
            step().check(work)
    save_tiny(tmp_path / "bare", tiny_llama(vocab_size=300))
    for path in (tmp_path / "bare").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(KronpressError, match="a vocabulary of 300 and the student of 264, and no readable tokenizer"):
        step(teacher=str(tmp_path / "bare")).check(bench(tiny_llama(), tmp_path))


@pytest.mark.parametrize("cached", [False, True], ids=["live", "cached"])
def test_rows_behind_the_tokens_of_the_tokenizer_change_nothing(cached: bool, tmp_path: Path) -> None:
    teacher = tiny_llama(tied=False, seed=5)
    save_tiny(tmp_path / "plain", teacher)
    save_tiny(tmp_path / "padded", with_more_rows(teacher, tiny_llama(tied=False, seed=7, vocab_size=2000)))
    losses, students = {"logits": {"top_k": 8} if cached else {}, "cross_entropy": 0.5}, []
    for name in ("plain", "padded"):
        work = bench(tiny_llama(), tmp_path / f"run-{name}")
        fields = {"teacher": str(tmp_path / name), "losses": losses, "cache_teacher": cached}
        step(**fields).check(work)
        step(**fields).run(work)
        students.append(work.student)
    assert_same_weights(*students)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either tokens, or epochs"),
        ({"tokens": 0}, "tokens is 0"),
        ({"tokens": 9, "lr": 1}, "unknown key 'lr'"),
        ({"tokens": 9, "losses": "logit"}, "unknown loss 'logit': did you mean 'logits'"),
        (
            {"tokens": 9, "losses": {"logits": {"temprature": 2}}},
            "unknown key 'temprature': did you mean 'temperature'",
        ),
        ({"tokens": 9, "losses": {"logits": {"temperature": 0}}}, "temperature is 0"),
        ({"tokens": 9, "losses": 3}, "losses is 3; give a mapping of "),
        ({"tokens": 9, "micro_batch": 0}, "micro_batch is 0"),
        ({"tokens": 9, "schedule": "cosin"}, "schedule is 'cosin'"),
    ],
    ids=str,
)
def test_a_mistake_is_refused_with_the_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        parse(Distill, fields, place="steps.0 (distill)")


def test_a_micro_batch_that_does_not_divide_is_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="micro_batch 3 does not divide the 4 windows"):
        step(micro_batch=3).check(bench(tiny_llama(), tmp_path))


def test_a_batch_must_divide_among_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 3)
    with pytest.raises(KronpressError, match="a batch of 4 does not divide among 3 processes"):
        step().check(bench(tiny_llama(), tmp_path))


@pytest.mark.parametrize(
    ("tracker", "message"), [("wandbb", "did you mean 'wandb'"), ("wandb", "pip install wandb, or leave it out")]
)
def test_a_tracker_that_is_not_there_is_named(
    tracker: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "get_available_reporting_integrations", list)
    with pytest.raises(KronpressError, match=message):
        step(report_to=(tracker,)).check(factored(tiny_llama, tmp_path))


COMPILED = """
import sys, tempfile
from pathlib import Path
from tests.distill.test_step import factored, step
from tests.tiny import with_more_rows, tiny_llama

for compiled in (False, True):
    work = factored(lambda: tiny_llama(num_hidden_layers=1), Path(tempfile.mkdtemp()))
    losses = {"logits": 1, "minilm": 1, "hidden": 1}
    report = step(tokens=2 * 4 * 32, compile=compiled, losses=losses).run(work)
    assert all(block._compiled_call_impl is None for block in work.student.model.layers)
    print(report.curve[-1].loss)
"""


def test_compiled_blocks_learn_alike_and_are_put_back() -> None:
    """In a process of its own, where shapes are not checked: torch.compile cannot translate the checks."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    plain, compiled = map(float, done.stdout.split()[-2:])
    assert compiled == pytest.approx(plain, rel=1e-2)


@pytest.mark.parametrize(("build", "most"), [(tiny_llama, 128), (tiny_bert, 126)], ids=["llama", "bert"])
def test_a_window_that_the_model_cannot_see_is_refused(build: Build, most: int, tmp_path: Path) -> None:
    work = bench(build(), tmp_path)
    step(window=most).check(work)
    with pytest.raises(KronpressError, match=f"set window to {most} or less"):
        step(window=most + 1).check(work)


def test_mistakes_show_before_any_step_runs(tmp_path: Path) -> None:
    encoder = bench(tiny_bert(), tmp_path)
    encoder.tokenizer.mask_token = None
    with pytest.raises(KronpressError, match="no \\[CLS\\], \\[SEP\\] or \\[MASK\\]"):
        step().check(encoder)
    short = bench(tiny_llama(), tmp_path)
    short.held_out = Corpus("a line", "a line")
    with pytest.raises(KronpressError, match="a line has only 6 tokens"):
        step(validate_every=2).check(short)
    blind = bench(tiny_llama(), tmp_path, teacher=tiny_llama(max_position_embeddings=16))
    with pytest.raises(KronpressError, match="set window to 16 or less"):
        step().check(blind)


def test_roberta_counts_its_positions_from_the_padding(tmp_path: Path) -> None:
    fields = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = RobertaConfig(**fields, intermediate_size=24, max_position_embeddings=34, pad_token_id=1)
    work = bench(RobertaForMaskedLM(config), tmp_path)
    with pytest.raises(KronpressError, match="set window to 30 or less"):
        step(window=31).check(work)
    assert step(window=30, tokens=240, losses={"cross_entropy": 1}).run(work).steps == 2


def test_labels_are_anything(tmp_path: Path) -> None:
    losses = {"values": {"name": "hidden", "project": True}, "a.b": {"name": "pkd", "project": True}}
    assert set(step(losses=losses, tokens=256).run(factored(tiny_llama, tmp_path)).parts) == {"values", "a.b"}


def test_the_teacher_of_the_run_is_left_as_it_was(tmp_path: Path) -> None:
    work = factored(tiny_llama, tmp_path)
    work.teacher.train()
    before = {name: (value.clone(), value.requires_grad) for name, value in work.teacher.named_parameters()}
    step(tokens=128).run(work)
    assert work.teacher.training
    for name, value in work.teacher.named_parameters():
        assert torch.equal(value, before[name][0])
        assert (value.dtype, value.requires_grad) == (torch.float32, before[name][1])


def test_measuring_changes_nothing(tmp_path: Path) -> None:
    """Losses that draw at random do so from where training stands."""
    works = [factored(tiny_llama, tmp_path / str(every)) for every in (None, 1)]
    for work, every in zip(works, (None, 1), strict=True):
        step(losses={"rail": 1, "logits": 1}, validate_every=every, **({"validation_windows": 2} if every else {})).run(
            work
        )
    assert_same_weights(works[0].student, works[1].student)


def test_another_model_can_be_the_teacher_if_it_has_the_same_words(tmp_path: Path) -> None:
    save_tiny(tmp_path / "other", tiny_llama(num_hidden_layers=2, seed=5))
    work = bench(tiny_llama(), tmp_path / "run")
    losses = {"logits": 1, "hidden": {"layers": [0, 0, 1]}}
    report = step(teacher=str(tmp_path / "other"), losses=losses, tokens=16 * 128).run(work)
    assert report.curve[-1].loss < report.curve[0].loss
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "other")
    tokenizer.add_tokens("<another>")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(KronpressError, match="choose a teacher with the same tokenizer"):
        step(teacher=str(tmp_path / "other")).check(work)


def test_a_student_that_is_its_own_teacher_is_refused(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    with pytest.raises(KronpressError, match="the student is the same model as its teacher, the model of the recipe"):
        step().run(work)
    assert step(losses={"logits": 0.5, "cross_entropy": 0.5}, tokens=128).run(work).tokens == 128
