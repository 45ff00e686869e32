"""A model whose blocks stay in files is compressed to the same bits, and only where that is possible."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import kronpress
from kronpress.activations import progress
from kronpress.activations.stream import BlockStream
from kronpress.errors import KronpressError
from kronpress.run import room
from kronpress.run.execution import execute
from kronpress.run.recipe import Recipe, make_recipe
from tests.tiny import TEXT, save_tiny, tiny_bert, tiny_gpt2, tiny_llama, weights_files

FIT = {"tokens": 1024, "window": 64}
WHITENED = {"step": "factorize", "form": "low_rank", "sites": "attention,up,down", "fit": {"name": "whitened", **FIT}}
NEAREST = {"step": "factorize", "form": "low_rank", "sites": "feed_forward"}
HEADS = {"step": "prune", "fit": FIT, "query_key": 0.5, "value_output": 0.5}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "neurons": (tiny_llama, {"step": "prune", "fit": FIT}),
    "products of neurons": (tiny_gpt2, {"step": "prune", "fit": FIT, "form": "kronecker"}),
    "heads of one matrix": (tiny_gpt2, HEADS),
    "an encoder": (tiny_bert, {"step": "prune", "fit": FIT}),
    "an untied head": (partial(tiny_llama, tied=False), WHITENED),
    "outputs on text": (tiny_gpt2, WHITENED),
    "without text": (tiny_llama, NEAREST),
}


def recipe(folder: Path, *steps: dict[str, Any], build: Any = tiny_llama, **fields: Any) -> Recipe:
    """A recipe on a tiny model in bfloat16, which lies in the folder."""
    if not (folder / "model").exists():
        save_tiny(folder / "model", build().to(torch.bfloat16))
        (folder / "text.txt").write_text(TEXT)
    data = {"train": str(folder / "text.txt")}
    return make_recipe({"model": str(folder / "model"), "data": data, "precision": "fp32", "steps": steps, **fields})


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for path in weights_files(folder / "checkpoint") for name, value in load_file(path).items()}


def require_equal(folder: Path, other: Path) -> None:
    expected, found = tensors(folder), tensors(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype == torch.bfloat16 or not value.is_floating_point()
        assert torch.equal(found[name], value), name
    probe = "checkpoint/kronpress_probe.safetensors"
    assert (folder / probe).read_bytes() == (other / probe).read_bytes()
    assert (folder / "checkpoint" / "config.json").read_bytes() == (other / "checkpoint" / "config.json").read_bytes()


def memory_of(folder: Path) -> str:
    return str(json.loads((folder / "manifest.json").read_text())["memory"])


@pytest.mark.parametrize("case", CASES)
def test_the_bits_are_those_of_the_whole_model(case: str, tmp_path: Path) -> None:
    build, step = CASES[case]
    for memory in ("whole", "blocks"):
        execute(recipe(tmp_path, step, build=build, memory=memory), tmp_path / memory)
        assert memory_of(tmp_path / memory) == memory
    require_equal(tmp_path / "whole", tmp_path / "blocks")


def test_an_interrupted_run_goes_on_at_its_block_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    steps, count = recipe(tmp_path, {"step": "prune", "fit": FIT}, memory="blocks"), 0
    execute(steps, tmp_path / "straight")
    outputs = BlockStream.outputs

    def stopping(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 5:  # the text comes to the third block
            raise KeyboardInterrupt
        return outputs(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(BlockStream, "outputs", stopping)
        with pytest.raises(KeyboardInterrupt):
            execute(steps, tmp_path / "stopped")
    names = {path.name for path in (tmp_path / "stopped" / "steps" / "00-prune" / "trainer").iterdir()}
    assert names == {"block-000.safetensors", "block-001.safetensors", "walk.safetensors"}
    monkeypatch.setattr(room, "available_bytes", lambda: 2**50)  # what has begun stays as it began
    execute(steps, tmp_path / "stopped", resume=True)
    require_equal(tmp_path / "straight", tmp_path / "stopped")


def test_several_steps_and_a_plain_one_leave_a_sound_model(tmp_path: Path) -> None:
    steps = ({"step": "prune", "fit": FIT}, {**WHITENED, "sites": "attention"})
    run = execute(recipe(tmp_path, *steps, memory="blocks"), tmp_path / "run")
    assert kronpress.load(run.checkpoint).dtype == torch.bfloat16
    assert not (run.folder / "steps" / "00-prune" / "trainer").exists()


REFUSED = {
    "another step": ({"step": "distill", "tokens": 640, "window": 32}, r"steps\.0 \(distill\).* needs all .* whole"),
    "a table": ({**NEAREST, "sites": "embedding,head"}, r"steps\.0 \(factorize\)"),
    "an order of neighbors": (
        {**NEAREST, "form": {"name": "kronecker", "right": [1, 2], "permute": "folded"}},
        r"steps\.0 \(factorize\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_step_that_needs_the_whole_model_is_refused_before_any_work(case: str, tmp_path: Path) -> None:
    step, message = REFUSED[case]
    with pytest.raises(KronpressError, match=message):
        execute(recipe(tmp_path, step, memory="blocks"), tmp_path / "run")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_model_with_codes_is_refused(tmp_path: Path) -> None:
    quantized = execute(recipe(tmp_path, {"step": "quantize", "weights": 8}), tmp_path / "quantized").checkpoint
    fields = {"step": "prune", "fit": FIT}
    with pytest.raises(KronpressError, match="has codes of a grid"):
        execute(recipe(tmp_path, fields, model=str(quantized), memory="blocks"), tmp_path / "run")


@pytest.mark.parametrize(("available", "expected"), [(2**10, "blocks"), (2**40, "whole"), (None, "whole")])
def test_it_is_decided_by_the_memory_that_is_available(
    available: int | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda: available)
    execute(recipe(tmp_path, NEAREST), tmp_path / "run")
    assert memory_of(tmp_path / "run") == expected
    said = "its blocks stay in files, one at a time being in memory"
    assert (said in capsys.readouterr().out) == (expected == "blocks")


def test_what_needs_the_whole_model_gets_it_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda: 2**10)
    execute(recipe(tmp_path, {**NEAREST, "again": True}), tmp_path / "run")
    assert memory_of(tmp_path / "run") == "whole"
    assert "has to be in memory as a whole: steps.0 (factorize)" in capsys.readouterr().out


PEAK = """
import json, sys, threading, time
from pathlib import Path

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

from kronpress.run import execute, make_recipe
before, most = anonymous(), 0

def look():
    global most
    while True:
        most = max(most, anonymous())
        time.sleep(0.002)

threading.Thread(target=look, daemon=True).start()
execute(make_recipe(json.loads(sys.argv[1])), sys.argv[2])
print("peak", most - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux says of a process")
def test_the_peak_is_below_what_the_whole_model_takes(tmp_path: Path) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 16, "num_attention_heads": 8}
    build, taken = partial(tiny_llama, **sizes), dict[str, int]()
    step = {**NEAREST, "sites": "up"}
    for memory in ("whole", "blocks"):
        given = recipe(tmp_path, step, build=build, memory=memory)
        fields = json.dumps({**given.model_dump(mode="json", exclude={"steps"}), "steps": [step]})
        command = [sys.executable, "-c", PEAK, fields, str(tmp_path / memory)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        taken[memory] = int(told.rpartition("peak ")[2])
    size = sum(path.stat().st_size for path in weights_files(tmp_path / "model"))  # two bytes a number
    assert taken["blocks"] < 2 * size < taken["whole"]
