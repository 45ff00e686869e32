"""The walk: what is gathered is what the blocks see, and a changed block is what the next one sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from kronpress.activations import InputMoments, Statistic, stream, walk
from kronpress.families import layout
from kronpress.layers import weight_of
from tests.tiny import DEPTH, bench, tiny_bert, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.usefixtures("in_float32")
BUILDERS = pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert])


class Outputs(Statistic):
    """What leaves a block in both streams."""

    def __init__(self) -> None:
        self.dense: list[torch.Tensor] = []
        self.compressed: list[torch.Tensor] = []

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        yield

    def after_dense(self, index: int, output: torch.Tensor) -> None:
        self.dense.append(output)

    def after_compressed(self, index: int, output: torch.Tensor) -> None:
        self.compressed.append(output)


def windows_of(model: PreTrainedModel, folder: Path) -> torch.Tensor:
    return bench(model, folder).training_windows(size=16)[:6]


def halve(model: PreTrainedModel, block: int) -> None:
    weight_of(model.get_submodule(layout(model).feed_forwards[block].down)).mul_(0.5)


@BUILDERS
def test_the_moments_are_those_of_the_layer_s_inputs(build: type, tmp_path: Path) -> None:
    model = build()
    windows, path, seen = windows_of(model, tmp_path), layout(model).feed_forwards[1].up, []
    handle = model.get_submodule(path).register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    model(input_ids=windows)
    handle.remove()
    inputs = torch.cat(seen).double()

    def wanted(block: int) -> list[InputMoments]:
        return [InputMoments(path, layer=model.get_submodule(path))] if block == 1 else []

    stops = list(walk(model, windows, wanted=wanted, description="test"))
    assert [stop.block for stop in stops] == list(range(DEPTH))
    assert [len(stop.statistics) for stop in stops] == [0, 1, 0]
    found = stops[1].statistics[0].second_moment()
    torch.testing.assert_close(found, inputs.T @ inputs / len(inputs), rtol=1e-5, atol=1e-7)


@BUILDERS
def test_a_changed_block_is_what_the_next_one_sees_and_the_dense_stream_stays(build: type, tmp_path: Path) -> None:
    model, dense = build(), build()
    windows = windows_of(model, tmp_path)
    for stop in walk(model, windows, wanted=lambda _: [Outputs()], with_dense=True, description="test"):
        (outputs,) = stop.statistics
        expected = dense(input_ids=windows, output_hidden_states=True).hidden_states[stop.block + 1]
        if stop.block + 1 < DEPTH:  # the last ones have passed the closing norm
            torch.testing.assert_close(torch.cat(outputs.dense), expected)
        if stop.block:
            assert not torch.allclose(torch.cat(outputs.compressed), torch.cat(outputs.dense))
        else:
            torch.testing.assert_close(outputs.compressed, outputs.dense)
        halve(model, stop.block)


@BUILDERS
def test_what_leaves_a_block_can_be_given(build: type, tmp_path: Path) -> None:
    model = build()
    windows, given = windows_of(model, tmp_path), []
    for stop in walk(model, windows, wanted=lambda _: [Outputs()], description="test"):
        (outputs,) = stop.statistics
        assert not outputs.dense
        if stop.block == 0:
            stop.leaving = given = [torch.zeros_like(output) for output in outputs.compressed]
        if stop.block == 1:
            block = stream.BlockStream.begin(model, windows)
            block.hidden = given
            torch.testing.assert_close(outputs.compressed, [output for _, output in block.outputs(model, block=1)])


def test_the_hooks_are_gone_after_a_stop(tmp_path: Path) -> None:
    model = tiny_llama()
    path = layout(model).feed_forwards[0].up
    layer = model.get_submodule(path)
    steps = walk(
        model, windows_of(model, tmp_path), wanted=lambda _: [InputMoments(path, layer=layer)], description="test"
    )
    next(steps)
    assert not layer._forward_pre_hooks


class Later(Outputs):
    turn = 1


def test_a_later_turn_sees_what_was_changed_at_the_stop_before(tmp_path: Path) -> None:
    model = tiny_llama()
    windows, stops = windows_of(model, tmp_path), []
    for stop in walk(model, windows, wanted=lambda _: [Later(), Outputs()], with_dense=True, description="test"):
        stops.append(stop)
        if len(stops) % 2:
            halve(model, stop.block)
    assert [stop.block for stop in stops] == [block for block in range(DEPTH) for _ in range(2)]
    for first, second in zip(stops[::2], stops[1::2], strict=True):
        (before,), (after,) = first.statistics, second.statistics
        assert not torch.allclose(torch.cat(before.compressed), torch.cat(after.compressed))
        torch.testing.assert_close(before.dense, after.dense)
