"""Training on text with adapters in place of the student's own numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.pretrain import Pretrain
from kronpress.quantize import Quantize
from kronpress.step import Workbench
from kronpress.train.checkpoints import newest_whole
from kronpress.train.language import LanguageStep
from kronpress.train.trainer import DistillationTrainer
from kronpress.validation import parse
from tests.tiny import bench, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.usefixtures("in_float32")

STEPS, SAVED = 8, 4
LORA, LOKR = {"name": "lora", "rank": 2}, {"name": "lokr", "rank": 2}


class Killed(BaseException):
    """What stands for the end of the process."""


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft")


def step(kind: type[LanguageStep] = Distill, **fields: Any) -> Any:
    fixed = {"tokens": STEPS * 4 * 32, "window": 32, "batch": 4, "learning_rate": 2e-2, "save_every": SAVED}
    return parse(kind, fixed | fields, place="the step")


def factored(folder: Path, build: Callable[..., Any] = tiny_llama) -> Workbench:
    """A bench with a student whose feed-forward blocks have factors, and whose attention is dense."""
    work = bench(build(), folder)
    Factorize(method={"name": "van_loan", "right": (2, 1), "terms": 2}, sites="up").run(work)
    Factorize(method={"name": "svd", "ratio": 0.9}, sites="down").run(work)
    return work


@pytest.mark.usefixtures("peft")
@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize(("kind", "adapters"), [(Distill, LORA), (Pretrain, LOKR)])
def test_training_adapters_lowers_the_loss(
    kind: type[LanguageStep], adapters: dict[str, Any], build: Callable[..., Any], tmp_path: Path
) -> None:
    work = factored(tmp_path, build)
    form, before = str(work.student), {name: value.clone() for name, value in work.student.state_dict().items()}
    report = step(kind, tokens=24 * 4 * 32, adapters=adapters).run(work)
    losses = [point.loss for point in report.curve]
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])
    assert report.adapters.adapters == adapters["name"] and report.adapters.rank == 2
    assert str(work.student) == form
    changed = {name for name, value in work.student.state_dict().items() if not torch.equal(value, before[name])}
    assert len(changed) == report.adapters.tensors
    assert not any("norm" in name or "ln_" in name or "bias" in name or "wte" in name for name in changed)


@pytest.mark.usefixtures("peft")
def test_the_optimizer_holds_adapters_alone_and_their_count_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = step(adapters=LORA).run(factored(tmp_path))
    folder = newest_whole(tmp_path / "trainer")
    assert folder is not None
    moments = torch.load(folder / "optimizer.pt", weights_only=True)["state"].values()
    assert sum(state["exp_avg"].numel() for state in moments) == report.adapters.trained
    told = f"lora adapters of rank 2 on 24 tensors learn, {report.adapters.trained:,} numbers ("
    assert told in capsys.readouterr().out


@pytest.mark.usefixtures("peft")
@pytest.mark.parametrize("adapters", [LORA, LOKR], ids=["lora", "lokr"])
def test_a_head_with_a_matrix_of_its_own_can_be_adapted(adapters: dict[str, Any], tmp_path: Path) -> None:
    work = bench(tiny_llama(tied=False), tmp_path, teacher=tiny_llama(seed=1))
    before = {name: value.clone() for name, value in work.student.state_dict().items()}
    step(adapters={**adapters, "sites": "head"}).run(work)
    changed = {name for name, value in work.student.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"lm_head.weight"}


@pytest.mark.usefixtures("peft")
@pytest.mark.parametrize("adapters", [LORA, LOKR], ids=["lora", "lokr"])
@pytest.mark.parametrize("call", [2, 6])
def test_going_on_after_a_kill_ends_where_no_kill_would(
    adapters: dict[str, Any], call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = factored(tmp_path / "whole")
    expected = step(adapters=adapters).run(whole)
    calls, compute = iter(range(1, 1000)), DistillationTrainer.compute_loss

    def compute_or_die(self: DistillationTrainer, *arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return compute(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "compute_loss", compute_or_die)
        with pytest.raises(Killed):
            step(adapters=adapters).run(factored(tmp_path / "killed"))
    resumed = factored(tmp_path / "killed")
    torch.rand(7)  # another state of the random numbers
    report = step(adapters=adapters).run(resumed)
    for name, value in whole.student.state_dict().items():
        assert torch.equal(resumed.student.state_dict()[name], value), name
    assert (report.curve, report.adapters) == (expected.curve, expected.adapters)


@pytest.mark.usefixtures("peft")
def test_codes_take_no_adapters_and_stay_codes_beside_them(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    Quantize(weights={"bits": 4, "group": 8}, skip="down").run(work)
    with pytest.raises(KronpressError, match="holds codes of a few bits, into which no adapter can be merged"):
        step(adapters=LORA).run(work)
    codes = {name: value.clone() for name, value in work.student.state_dict().items() if "stored" in name}
    report = step(adapters={**LORA, "sites": "down"}).run(work)
    assert report.adapters.tensors == 3
    assert codes and all(torch.equal(work.student.state_dict()[name], value) for name, value in codes.items())


@pytest.mark.usefixtures("peft")
def test_sites_that_are_not_there_show_before_any_step_runs(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="'gate_proj' matches no module of the model"):
        step(adapters={**LORA, "sites": "gate_proj"}).check(bench(tiny_llama(), tmp_path))


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Distill, {"adapters": "lora", "frozen": ["up"]}, "adapters leave all layers as they are; name those that"),
        (Pretrain, {"adapters": "lokr", "start": "random"}, "adapters would leave random numbers as they are"),
        (Distill, {"adapters": {"rank": 4}}, "give a name or a mapping with one: lora, lokr"),
    ],
    ids=str,
)
def test_a_mistake_is_refused_with_the_remedy(kind: type[LanguageStep], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        step(kind, **fields)
