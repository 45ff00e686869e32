"""Adapters learn alone, are merged exactly, and leave the model in the form it had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from kronpress.adapters import Adapters, Lokr, Lora, adapted
from kronpress.checkpoint import save
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.linalg import KroneckerShape, rearrange
from tests.tiny import bench, logits, some_ids, tiny_bert, tiny_gpt2, tiny_llama

pytest.importorskip("peft")

KINDS = pytest.mark.parametrize("kind", [Lora, Lokr])
Build = Callable[[], PreTrainedModel]


def compressed(build: Build, folder: Path) -> PreTrainedModel:
    """A model with layers of every form: low rank, tensor trains, Kronecker products, and dense ones."""
    work = bench(build(), folder)
    Factorize(method={"name": "svd", "ratio": 0.9}, sites="up").run(work)
    Factorize(method={"name": "tensor_train", "rank": 8}, sites="down").run(work)
    Factorize(method={"name": "van_loan", "right": (2, 1), "terms": 2}, sites="attention", blocks=(0,)).run(work)
    return work.student


def train(model: PreTrainedModel, *, steps: int = 2) -> None:
    """Take some steps with what learns."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        model.train()(input_ids=some_ids(), labels=some_ids()).loss.backward()
        optimizer.step()


def numbers(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@KINDS
@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert])
def test_adapters_alone_learn_and_are_merged_into_the_same_form(
    build: Build, kind: type[Adapters], tmp_path: Path
) -> None:
    model = compressed(build, tmp_path)
    form, before, start = str(model), numbers(model), logits(model)
    own = list(model.parameters())
    with adapted(model, kind(rank=2), seed=0) as record:
        torch.testing.assert_close(logits(model), start, rtol=0, atol=1e-5)
        train(model)
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert not {id(parameter) for parameter in own} & {id(parameter) for parameter in learning}
        assert all(parameter.grad is None for parameter in own)
        assert all(torch.equal(parameter, value) for parameter, value in zip(own, before.values(), strict=True))
        assert record.trained == sum(parameter.numel() for parameter in learning) < record.frozen
        trained = logits(model)
    assert (trained - start).abs().max() > 1e-2
    torch.testing.assert_close(logits(model), trained, rtol=0, atol=1e-4)
    assert str(model) == form
    assert list(numbers(model)) == list(before), "sums over parameters depend on their order"
    assert all(parameter.requires_grad for parameter in model.parameters())
    changed = {name for name, value in numbers(model).items() if not torch.equal(value, before[name])}
    assert len(changed) == record.tensors


@KINDS
def test_what_was_merged_opens_again(kind: type[Adapters], tmp_path: Path) -> None:
    model = compressed(tiny_llama, tmp_path)
    with adapted(model, kind(rank=2), seed=0):
        train(model)
    opened = AutoModelForCausalLM.from_pretrained(save(model, tmp_path / "saved"))
    torch.testing.assert_close(logits(opened), logits(model))


def test_a_merged_lora_is_an_update_of_low_rank_and_a_lokr_a_kronecker_product() -> None:
    for adapters in (Lora(rank=3), Lokr(rank=8)):
        model = tiny_llama()
        layer = model.model.layers[0].self_attn.q_proj  # 16 × 16, which splits into 4 · 4 on both sides
        before = layer.weight.detach().clone()
        with adapted(model, adapters, seed=0):
            train(model)
        update = (layer.weight - before).detach()
        if isinstance(adapters, Lokr):
            update = rearrange(update, shape=KroneckerShape(4, 4, 4, 4))
        rank = torch.linalg.matrix_rank(update, rtol=1e-4)
        assert rank == (1 if isinstance(adapters, Lokr) else 3)


def test_a_factor_that_is_no_larger_than_its_adapter_stays_and_is_told(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    Factorize(method={"name": "van_loan", "right": (2, 1)}, sites="up").run(work)
    before = numbers(work.student)
    with adapted(work.student, Lora(sites="up", rank=2), seed=0) as record:
        train(work.student)
    right = "model.layers.{}.mlp.up_proj.right"
    assert record.left == tuple(right.format(block) for block in range(3)) and record.tensors == 3
    assert "3 took none, being no larger than theirs, as model.layers.0.mlp.up_proj.right" in record.told()
    assert torch.equal(numbers(work.student)[right.format(0)], before[right.format(0)])
    with (
        pytest.raises(KronpressError, match=r"sites 'up' is larger than its adapter of rank 99; choose a smaller"),
        adapted(work.student, Lora(sites="up", rank=99), seed=0),
    ):
        raise AssertionError("nothing is adapted")
    assert all(parameter.requires_grad for parameter in work.student.parameters())


@KINDS
def test_the_seed_decides_and_other_random_numbers_go_on(kind: type[Adapters]) -> None:
    results = []
    for seed in (1, 1, 2):
        model = tiny_llama()
        torch.manual_seed(seed + len(results))
        state = torch.get_rng_state()
        with adapted(model, kind(rank=2), seed=seed):
            assert torch.equal(torch.get_rng_state(), state)
            train(model)
        results.append(logits(model))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_alpha_scales_the_update_and_is_the_rank_by_default() -> None:
    results = []
    for alpha in (None, 4, 8):
        model = tiny_llama()
        with adapted(model, Lora(rank=4, alpha=alpha), seed=0):
            train(model, steps=1)
        results.append(logits(model))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_after_a_failure_no_adapters_are_left() -> None:
    model = tiny_gpt2()
    form = str(model)
    with pytest.raises(KeyboardInterrupt), adapted(model, Lora(), seed=0):
        raise KeyboardInterrupt
    assert str(model) == form and all(parameter.requires_grad for parameter in model.parameters())
