from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from kronpress.activations.trace import Sizes, Trace
from kronpress.checkpoint import files
from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.finetune.examples import Collate
from kronpress.finetune.objective import TaskDistillation
from kronpress.losses import TokenBankContrast, parse_losses, readings_of
from kronpress.losses.contrastive_bank import TokenBank
from kronpress.tasks import TASKS, Feature, with_head
from kronpress.teacher import task_live, text_live
from kronpress.teacher.task_outputs import build_task
from kronpress.train import Distillation
from kronpress.train.trainer import DistillationTrainer
from tests.losses.traces import SIZES, TOKENS, VOCABULARY, all_seen, some_trace
from tests.tiny import DIM, bench, tiny_bert, tiny_llama, tiny_tokenizer
from tests.tiny import VOCABULARY as IDS

pytestmark = pytest.mark.usefixtures("in_float32")

PLANE = Sizes(depth=1, dim=2, heads=1, head=2, vocabulary=9)


def bank_of(loss: TokenBankContrast, sizes: Sizes = SIZES) -> TokenBank:
    bank = loss.projection(sizes, sizes)
    assert isinstance(bank, TokenBank)
    return bank


def read(states: list[list[float]], ids: list[int]) -> Trace:
    """What one block gave for one text."""
    return Trace(blocks=[torch.tensor([states])], tokens=torch.tensor([ids]))


def test_by_hand() -> None:
    loss = TokenBankContrast(temperature=0.5, momentum=0.75)
    bank, seen = bank_of(loss, PLANE), torch.tensor([[True, True, True, False]])
    theirs = read([[0.0, 2.0], [1.0, 0.0], [3.0, 4.0], [1.0, 1.0]], [7, 8, 7, 3])
    ours = read([[0.0, 5.0], [2.0, 0.0], [3.0, 0.0], [1.0, 0.0]], [7, 8, 7, 3])
    value = loss(ours, theirs, seen=seen, projection=bank)
    # both vectors of token 7 have the direction (1, 1)/√2 together; token 8 has but one, and none is another's self
    own, other = [1.0, 1.0, 0.6], [0.0, math.sqrt(0.5), 1.0]
    times = [1, 2, 1]  # token 8 sees the two places of token 7
    terms = [math.log(1 + n * math.exp((b - a) / 0.5)) for a, b, n in zip(own, other, times, strict=True)]
    assert value.item() == pytest.approx(sum(terms) / 3)
    assert bank.known.nonzero()[:, 0].tolist() == [7, 8]
    torch.testing.assert_close(bank.vectors[[7, 8]], torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    second = read([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], [8, 2, 2, 2])
    loss(second, theirs, seen=seen, projection=bank)
    torch.testing.assert_close(bank.vectors[[7, 8, 2]], torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.0, 1.0]]))


@pytest.mark.parametrize("keeps", ["student", "teacher"])
def test_the_bank_is_the_running_mean(keeps: Any) -> None:
    loss, steps, momentum = TokenBankContrast(keeps=keeps, momentum=0.6), 5, 0.6
    bank, means = bank_of(loss), []
    for step in range(steps):
        ours, theirs = some_trace(seed=2 * step), some_trace(seed=2 * step + 1)
        loss(ours, theirs, seen=all_seen(), projection=bank)
        vectors = F.normalize((ours if keeps == "student" else theirs).blocks[-1].detach(), dim=-1)
        means.append(torch.stack([vectors[ours.tokens == token].mean(dim=0) for token in range(TOKENS - 1)]))
    weights = [momentum ** (steps - 1)] + [(1 - momentum) * momentum ** (steps - 1 - n) for n in range(1, steps)]
    expected = sum(weight * mean for weight, mean in zip(weights, means, strict=True))
    torch.testing.assert_close(bank.vectors[: TOKENS - 1], expected)
    assert not bank.vectors[TOKENS - 1 :].any()
    assert bank.known.sum() == TOKENS - 1


def test_no_token_is_told_apart_from_itself() -> None:
    """One whose places are all of a text has nothing to be told apart from, however the vectors differ."""
    loss = TokenBankContrast()
    ours, theirs = some_trace(), some_trace(seed=1)
    ours.tokens = torch.full_like(all_seen(), 3, dtype=torch.long)
    value = loss(ours, theirs, seen=all_seen(), projection=bank_of(loss))
    assert value.item() == 0
    ours.tokens = ours.tokens.clone()
    ours.tokens[0, 0] = 4
    assert loss(ours, theirs, seen=all_seen(), projection=bank_of(loss)).item() > 0.1


@pytest.mark.parametrize("keeps", ["student", "teacher"])
def test_gradients_reach_the_student_alone_and_by_its_own_vectors(keeps: Any) -> None:
    loss = TokenBankContrast(keeps=keeps)
    ours, theirs, bank = some_trace(), some_trace(seed=1), bank_of(loss)
    theirs.blocks = [states.detach() for states in theirs.blocks]
    value = loss(ours, theirs, seen=all_seen(), projection=bank)
    (slope,) = torch.autograd.grad(value, ours.blocks[-1], retain_graph=True)
    assert slope.any()
    assert not bank.vectors.requires_grad
    student, teacher = (F.normalize(trace.blocks[-1], dim=-1) for trace in (ours, theirs))
    fixed = F.normalize(bank.vectors, dim=-1)[ours.tokens]
    scores = torch.cat([(student * teacher).sum(-1, keepdim=True), student @ fixed.transpose(1, 2)], dim=-1) / 0.1
    same = F.pad(ours.tokens[:, :, None] == ours.tokens[:, None, :], (1, 0))
    plain = -scores.masked_fill(same, -torch.inf).log_softmax(-1)[..., 0].mean()
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(slope, torch.autograd.grad(plain, ours.blocks[-1])[0])


def test_a_validation_leaves_the_bank_as_it_is() -> None:
    loss = TokenBankContrast()
    bank = bank_of(loss)
    loss(some_trace(), some_trace(seed=1), seen=all_seen(), projection=bank)
    before = {name: value.clone() for name, value in bank.state_dict().items()}
    values = []
    for training in (False, True):
        bank.train(training)
        values.append(loss(some_trace(seed=2), some_trace(seed=3), seen=all_seen(), projection=bank))
        assert torch.equal(bank.vectors, before["vectors"]) != training
    assert torch.equal(*values)


def test_a_bank_has_a_limit() -> None:
    needed = VOCABULARY * (4 * SIZES.dim + 1)
    bank = bank_of(TokenBankContrast(max_bytes=needed))
    assert sum(buffer.nbytes for buffer in bank.buffers()) == needed
    message = (
        rf"the bank of the loss 'contrastive_bank' takes {needed} bytes, for 20 tokens .* max_bytes is {needed - 1};"
    )
    with pytest.raises(KronpressError, match=message):
        bank_of(TokenBankContrast(max_bytes=needed - 1))


def test_without_tokens_or_a_bank_nothing_is_guessed() -> None:
    loss = TokenBankContrast()
    with pytest.raises(ValueError, match="saw no tokens or has no bank"):
        loss(some_trace(), some_trace(), seen=all_seen(), projection=None)
    nameless = some_trace()
    nameless.tokens = None
    with pytest.raises(ValueError, match="saw no tokens or has no bank"):
        loss(nameless, some_trace(), seen=all_seen(), projection=bank_of(loss))


LOSSES: dict[str, Any] = {"contrastive_bank": {"project": True}, "logits": 1}


def test_a_state_dict_holds_all_of_it(tmp_path: Path) -> None:
    teacher, losses = tiny_llama(), parse_losses(LOSSES)

    def fresh() -> Distillation:
        return Distillation(tiny_llama(seed=1), text_live(teacher, readings=readings_of(losses)), losses)

    batches = torch.randint(IDS, (3, 2, 12), generator=torch.Generator().manual_seed(0))
    first, second = fresh(), fresh()
    for ids in batches[:2]:
        first(input_ids=ids, labels=ids)
    files.write_tensors(tmp_path / "model.safetensors", first.state_dict())
    safetensors.torch.load_model(second, tmp_path / "model.safetensors")
    ours, theirs = (each(input_ids=batches[2], labels=batches[2])["loss"] for each in (first, second))
    assert torch.equal(ours, theirs)
    assert torch.equal(first.projections.of_contrastive_bank.vectors, second.projections.of_contrastive_bank.vectors)
    assert not torch.equal(ours, fresh()(input_ids=batches[2], labels=batches[2])["loss"])
    names = {name for name in first.state_dict() if "bank" in name}
    assert names == {f"projections.of_contrastive_bank.{name}" for name in ("vectors", "known", "maps.0.weight")}
    assert {tuple(weight.shape) for weight in first.projections.parameters()} == {(DIM, DIM)}


class Killed(BaseException):
    """What stands for the end of the process."""


def test_a_training_that_was_killed_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"tokens": 6 * 4 * 16, "window": 16, "batch": 4, "micro_batch": 2, "save_every": 2, "learning_rate": 5e-3}
    step = Distill(**fields, losses=LOSSES, validate_every=2, validation_windows=2)

    def trained(folder: Path) -> dict[str, torch.Tensor]:
        work = bench(tiny_llama(), folder)
        with torch.no_grad():
            for weight in work.student.parameters():
                weight.mul_(0.9)
        torch.manual_seed(0)
        step.run(work)
        return dict(work.student.state_dict())

    whole = trained(tmp_path / "whole")
    with monkeypatch.context() as patch:
        calls, compute = iter(range(1000)), DistillationTrainer.compute_loss

        def compute_or_die(self: DistillationTrainer, *arguments: Any, **options: Any) -> Any:
            if next(calls) == 11:
                raise Killed
            return compute(self, *arguments, **options)

        patch.setattr(DistillationTrainer, "compute_loss", compute_or_die)
        with pytest.raises(Killed):
            trained(tmp_path / "killed")
    assert list((tmp_path / "killed" / "trainer").glob("checkpoint-*"))
    resumed = trained(tmp_path / "killed")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_what_is_stored_of_a_teacher_of_text_is_too_little(tmp_path: Path) -> None:
    step = Distill(tokens=128, window=16, batch=4, losses={"contrastive_bank": 1}, cache_teacher=True)
    with pytest.raises(
        KronpressError, match=r"loss contrastive_bank needs more of the teacher than its likeliest tokens"
    ):
        step.check(bench(tiny_llama(), tmp_path))


def test_on_a_task_a_stored_teacher_stands_for_a_live_one(tmp_path: Path) -> None:
    features = [
        Feature(tuple(range(3, 3 + length)), None, (float(length % 2),), row) for row, length in enumerate((9, 4, 6))
    ]
    student, teacher = (with_head(tiny_bert(seed=seed), TASKS["mrpc"], tiny_tokenizer(), seed=seed) for seed in (0, 1))
    losses = parse_losses({"contrastive_bank": {"keeps": "teacher"}, "logits": 1})
    stored = build_task(tmp_path, teacher, features, readings=readings_of(losses))
    results = []
    for asked in (task_live(teacher, readings=readings_of(losses)), stored):
        said = [stored.said(row) if asked is stored else {} for row in range(3)]
        batch = Collate(pad=0, teacher=stored if asked is stored else None)(list(zip(features, said, strict=True)))
        objective = TaskDistillation(student, asked, losses)
        objective(**batch)["loss"].backward()
        results.append(objective.take_parts() | {"known": int(objective.projections.of_contrastive_bank.known.sum())})
    assert results[0] == pytest.approx(results[1], rel=2e-2)  # activations are stored in bfloat16
    assert results[0]["contrastive_bank"] > 0.1
    assert results[0]["known"] == 9
