from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from kronpress.layers import InputGrid, QuantizedLinear, QuantizedTensor, RoundedInputs, matrices_of
from kronpress.quantizers import (
    LearnedStep,
    LossAware,
    Quantizer,
    TakeImportance,
    learned_names,
    learning,
    take_importance,
)


class Net(nn.Module):
    """Two layers on grids, the second with rounded inputs."""

    def __init__(self, rule: Quantizer) -> None:
        super().__init__()
        self.first, self.second = (QuantizedLinear.of(torch.randn(8, 8), bias=torch.zeros(8)) for _ in range(2))
        for matrix in [*matrices_of(self.first), *matrices_of(self.second)]:
            weight, grid = matrix.tensor.detach(), rule.grid(2)
            matrix.store(QuantizedTensor.of(rule.coded(weight, grid), grid, weight.shape, dtype=torch.float32))
            assert matrix.quantized is not None
            matrix.quantized.learn(rule, latent=weight)
        rounding = RoundedInputs(InputGrid(levels="int8"))
        self.second.round_inputs(rounding)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": (self.second(torch.tanh(self.first(x))) - x).square().mean()}


def importance(net: Net) -> list[Tensor]:
    return [tensor.learned["importance"] for _, tensor in learning(net)]


def test_what_learns_is_named() -> None:
    net = Net(LearnedStep())
    assert [path for path, _ in learning(net)] == ["first.stored.weight", "second.stored.weight"]
    assert learned_names(net) == ["first.stored.weight.learned.scale", "second.stored.weight.learned.scale"]
    rounding = net.second.inputs
    assert isinstance(rounding, RoundedInputs)
    rounding.grid = LearnedStep().input_grid(4)
    rounding.learn(LearnedStep(), example=torch.randn(3, 8))
    assert set(learned_names(net)) <= set(dict(net.named_parameters()))
    assert learned_names(net)[-1].startswith("second.inputs.learned.")
    assert learned_names(Net(LossAware())) == []


@pytest.mark.parametrize("unpacked", [False, True])
def test_what_learns_has_numbers_of_its_own(unpacked: bool) -> None:
    """A checkpoint of a training refuses to be read into parts of larger memory, such as what odd counts leave."""
    for bits, size in ((4, (1, 1, 1)), (2, (3, 5)), (8, (3, 5))):
        weight, grid = torch.randn(size), LearnedStep().grid(bits)
        tensor = QuantizedTensor.of(LearnedStep().coded(weight, grid), grid, size, dtype=torch.float32)
        if unpacked:
            tensor.unpack()
        read = tensor()
        tensor.learn(LearnedStep())
        assert tensor.latent is not None
        assert tensor.latent.untyped_storage().nbytes() == 4 * tensor.latent.numel()
        assert tensor.latent.data_ptr() != read.data_ptr()


def test_the_importance_is_the_root_of_adams_second_moment() -> None:
    net = Net(LossAware())
    optimizer = torch.optim.AdamW([parameter for parameter in net.parameters() if parameter.requires_grad], lr=0.01)
    assert take_importance(net, optimizer) == 0
    assert all(torch.equal(numbers, torch.ones_like(numbers)) for numbers in importance(net))
    squares = torch.zeros(8, 8)
    latent = dict(net.named_parameters())["first.stored.weight.latent"]
    for step in range(2):
        optimizer.zero_grad()
        net(torch.randn(4, 8, generator=torch.Generator().manual_seed(step)))["loss"].backward()
        assert latent.grad is not None
        squares = 0.999 * squares + 0.001 * latent.grad.square()
        optimizer.step()
    assert take_importance(net, optimizer) == 2
    torch.testing.assert_close(importance(net)[0].view(8, 8), squares.sqrt() + 1e-8)
    assert not importance(net)[0].requires_grad
    twin = Net(LossAware())
    twin.load_state_dict(copy.deepcopy(net.state_dict()))  # as a checkpoint does
    assert torch.equal(importance(twin)[0], importance(net)[0])
    assert torch.equal(twin.first.weight, net.first.weight)


def test_a_trainer_takes_it_after_every_step(tmp_path: Path) -> None:
    net = Net(LossAware())
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True
    )
    data = [{"x": row, "labels": row} for row in torch.randn(16, 8)]
    trainer = Trainer(model=net, args=arguments, train_dataset=data, callbacks=[TakeImportance()])
    trainer.train()
    latent = dict(net.named_parameters())["second.stored.weight.latent"]
    moment = trainer.optimizer.state[latent]["exp_avg_sq"]
    torch.testing.assert_close(importance(net)[1].view(8, 8), moment.sqrt() + 1e-8)
    assert importance(net)[1].std() > 0
