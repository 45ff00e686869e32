"""Mutated checkpoints: refused with a sentence, or the same model; through every door."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

import kronpress
from kronpress.checkpoint import save, structured_layers
from kronpress.factorize import Factorize
from tests.fuzz.mutations import mutated_bytes, mutated_tensors, mutated_value
from tests.fuzz.outcome import outcome, run_trials
from tests.tiny import bench, factorized, logits, tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer

MANIFEST = "kronpress.json"
FOREIGN = ("adapter_config.json", "model.safetensors.index.json", "config.yaml")
UNREAD = ("config.yaml", *(f"other_{name}.json" for name in ("config", "generation_config", "kronpress")))
UNREAD += ("other_tokenizer.json", "other_tokenizer_config.json")
FEW = [pytest.param(40, id="few"), pytest.param(2000, id="many", marks=pytest.mark.slow)]


@dataclass(frozen=True)
class Original:
    """A sound checkpoint, its model, and the class of transformers that opens it, None for one without factors."""

    folder: Path
    model: PreTrainedModel
    auto: Any


def _tensor_trains(folder: Path) -> PreTrainedModel:
    work = bench(tiny_llama(), folder)
    Factorize(form={"name": "tensor_train", "rank": 2}, sites="feed_forward").run(work)
    return work.student


def _rows_and_blocks(folder: Path) -> PreTrainedModel:
    work = bench(tiny_llama(), folder)
    Factorize(form="losparse", sites="attention").run(work)
    Factorize(form={"name": "monarch", "blocks": 2}, sites="feed_forward").run(work)
    return work.student


BUILDERS: dict[str, tuple[Callable[[Path], PreTrainedModel], Any]] = {
    "llama": (lambda folder: factorized(tiny_llama(), folder), AutoModelForCausalLM),
    "gpt2": (lambda folder: factorized(tiny_gpt2(tied=False), folder), AutoModelForCausalLM),
    "bert": (lambda folder: factorized(tiny_bert(), folder), AutoModelForMaskedLM),
    "tensor trains": (_tensor_trains, AutoModelForCausalLM),
    "rows and blocks": (_rows_and_blocks, AutoModelForCausalLM),
    "plain": (lambda folder: tiny_gpt2(), None),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Original]:
    """Give the checkpoint of a trial's number: the builders take turns."""
    folder = tmp_path_factory.mktemp("originals")

    @cache
    def build(name: str) -> Original:
        builder, auto = BUILDERS[name]
        place = save(builder(folder), folder / name, tokenizer=tiny_tokenizer())
        return Original(place, kronpress.load(place), auto)

    names = list(BUILDERS)
    return lambda number: build(names[number % len(names)])


def mutate_config(folder: Path, random: Random) -> None:
    edit(folder / "config.json", random)


def mutate_spec(folder: Path, random: Random) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    quantization = config.get("quantization_config", {})
    quantization["modules"] = mutated_value(quantization.get("modules", {"": {}}), random)
    path.write_text(json.dumps(config))


def mutate_tensors(folder: Path, random: Random) -> None:
    path = random.choice(weights_in(folder))
    save_file(mutated_tensors(load_file(path), random), path, metadata={"format": "pt"})


def mutate_bytes(folder: Path, random: Random) -> None:
    path = random.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    path.write_bytes(mutated_bytes(path.read_bytes(), random))


def mutate_header(folder: Path, random: Random) -> None:
    path = random.choice(weights_in(folder))
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(mutated_value(json.loads(content[8 : 8 + size]), random)).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])


def mutate_json(folder: Path, random: Random) -> None:
    edit(random.choice(sorted(folder.glob("*.json"))), random)


def mutate_files(folder: Path, random: Random) -> None:
    path = random.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    action = random.choice(("remove", "empty", "folder", "double", "foreign"))
    if action == "double":
        shutil.copy(path, folder / f"other_{path.name}")
    elif action == "foreign":
        (folder / random.choice(FOREIGN)).write_text("{}")
    else:
        path.unlink()
        if action == "empty":
            path.touch()
        elif action == "folder":
            path.mkdir()


def edit(path: Path, random: Random) -> None:
    path.write_text(json.dumps(mutated_value(json.loads(path.read_text()), random)))


def weights_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.safetensors") if "probe" not in path.name)


MUTATIONS: tuple[Callable[[Path, Random], None], ...] = (
    *(mutate_config, mutate_spec, mutate_spec, mutate_tensors, mutate_tensors),
    *(mutate_bytes, mutate_header, mutate_json, mutate_files),
)


@pytest.mark.parametrize("trials", FEW)
@pytest.mark.filterwarnings("ignore")
def test_a_mutated_checkpoint_is_refused_or_the_same_model(
    trials: int, originals: Callable[[int], Original], tmp_path: Path
) -> None:
    refused = []

    def trial(number: int) -> None:
        original, random = originals(number), Random(number)
        mutation = random.choice(MUTATIONS)
        label = f"{original.folder.name}, {mutation.__name__}, trial {number}"
        folder = copied(original, tmp_path)
        mutation(folder, random)
        refused.append(judge(folder, original, label, values=mutation is not mutate_bytes))

    run_trials(trials, trial)
    assert sum(refused) > trials / 2, "the mutations do something"


def copied(original: Original, folder: Path) -> Path:
    """Return a fresh copy of a checkpoint."""
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return Path(shutil.copytree(original.folder, folder / "checkpoint"))


def judge(folder: Path, original: Original, label: str, *, values: bool) -> bool:
    """Check every door; say whether `load` refused. Flipped bits of `values` are for `verify` to find."""
    ours = outcome(lambda: kronpress.load_with_tokenizer(folder)[0], label=f"{label}, load")
    if ours.accepted:
        same_tensors(ours.value, original, label, values=values)
        if values:
            same_answers(ours.value, original, label)
    if original.auto is not None:
        theirs = outcome(lambda: original.auto.from_pretrained(folder), label=f"{label}, Auto", refusals=(Exception,))
        if theirs.accepted:
            same_tensors(theirs.value, original, f"{label}, Auto", values=values)
    verified = outcome(lambda: kronpress.verify(folder), label=f"{label}, verify")
    if verified.accepted:
        assert content_of(folder) == content_of(original.folder), f"{label}: verify passes a changed checkpoint"
    return not ours.accepted


def same_answers(model: PreTrainedModel, original: Original, label: str) -> None:
    now, before = logits(model), logits(original.model)
    assert float((now - before).abs().max() / before.std()) < 0.05, f"{label}: other answers"


def same_tensors(model: PreTrainedModel, original: Original, label: str, *, values: bool) -> None:
    """See that the model has the tensors of the sound one, all of them read, and the layers that its config says."""
    now, before = tensors_of(model), tensors_of(original.model)
    assert set(now) == set(before), f"{label}: other tensors: {sorted(set(now) ^ set(before))[:3]}"
    other = [name for name, value in before.items() if now[name].shape != value.shape]
    if values:
        other = [name for name, value in before.items() if not torch.equal(now[name], value)]
    assert not other, f"{label}: other values in {other[:3]}"
    specs = {path: layer.spec.model_dump(mode="json") for path, layer in structured_layers(model).items()}
    written = {path: layer.spec.model_dump(mode="json") for path, layer in structured_layers(original.model).items()}
    assert without_padding(specs) == without_padding(written), f"{label}: other layers than were written"


def tensors_of(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: value.float() for name, value in model.state_dict().items()}


def without_padding(value: Any) -> Any:
    """Return specs without the padding index, which decides gradients alone."""
    if isinstance(value, dict):
        return {key: without_padding(inner) for key, inner in value.items() if key != "padding_idx"}
    return [without_padding(inner) for inner in value] if isinstance(value, list) else value


def content_of(folder: Path) -> dict[str, bytes | None]:
    """Return the content of the files that decide what a model answers, None for what is no file."""
    paths = [path for path in folder.iterdir() if path.name not in (MANIFEST, *UNREAD)]
    return {path.name: path.read_bytes() if path.is_file() else None for path in paths}


@pytest.mark.parametrize("trials", [pytest.param(20, id="few"), pytest.param(2000, id="many", marks=pytest.mark.slow)])
def test_verify_finds_every_flipped_bit(trials: int, originals: Callable[[int], Original], tmp_path: Path) -> None:
    def trial(number: int) -> None:
        original, random = originals(number), Random(number)
        folder = copied(original, tmp_path)
        path = random.choice(sorted(path for path in folder.iterdir() if path.name != MANIFEST))
        content = bytearray(path.read_bytes())
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        path.write_bytes(content)
        label = f"{original.folder.name}, {path.name}, trial {number}"
        assert not outcome(lambda: kronpress.verify(folder), label=label).accepted, f"{label}: not found"

    run_trials(trials, trial)
