"""Runs from end to end on tiny models, interrupted ones included."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

import kronpress
from kronpress.errors import KronpressError
from kronpress.export import DenseExporter
from kronpress.families import is_causal
from kronpress.finetune import Finetune
from kronpress.footprint import footprint
from kronpress.layers import rounded_inputs
from kronpress.run.execution import execute
from kronpress.run.folder import Run
from kronpress.run.recipe import Recipe, make_recipe, read_recipe, shipped
from tests.tiny import save_tiny, tiny_bert, tiny_gpt2, tiny_llama, weights_files

TEXT = "".join(f"The {i}th line of a short story about {i % 7} rabbits and a fox.\n" for i in range(200))
PROTOCOL_WINDOW = 512


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def small(name: str, model: Path, text: Path, *more: str) -> Recipe:
    """A shipped recipe on a tiny model and little text."""
    kinds = {step.kind for step in read_recipe(name).steps}
    overrides = [f"model={model}", f"data.train={text}", "data.self_text=null"]
    if "evaluate" in kinds:
        overrides += ["evaluate.max_windows=1", "evaluate.speed=false"]
    overrides += ["evaluate.prompts=[Once]"] if "prompts" in read_recipe(name).to_yaml() else []
    for kind in kinds & {"distill", "pretrain"}:
        overrides += [f"{kind}.tokens=512", f"{kind}.window=32", f"{kind}.save_every=3"]
    if "truncate" in kinds:  # the recipes that train for epochs, in large batches
        trained = "distill" if "distill" in kinds else "pretrain"
        overrides += ["truncate.keep=2", f"{trained}.epochs=null", f"{trained}.batch=2", f"{trained}.micro_batch=1"]
    if "finetune" in kinds:
        overrides += ["finetune.tasks=sst-2", "finetune.epochs=0.5", f"finetune.data={glue(text.parent)}"]
        overrides += ["finetune.augment=null"]  # a tokenizer of bytes has no words
    if "groups:\n" in read_recipe(name).to_yaml():
        overrides += [
            "0.form.groups=[{tokens: 9, terms: 48}, {tokens: 20, terms: 8}]",
            "0.form.right=[1, 48]",
            "0.form.terms=4",
        ]
    if "tensor_train" in read_recipe(name).to_yaml():
        overrides += ["factorize.form.rank=4"]
    if "prune" in kinds:
        overrides += ["prune.fit.tokens=512", "prune.fit.window=32"]
    return read_recipe(name, overrides=[*overrides, *more])


def glue(folder: Path) -> Path:
    """Data of SST-2, a few lines of it."""
    (folder / "SST-2").mkdir(exist_ok=True)
    for name in ("train", "dev"):
        lines = [f"the fox is {('sad', 'glad')[i % 2]} and the {i}th rabbit\t{i % 2}" for i in range(40)]
        (folder / "SST-2" / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return folder


def llama(folder: Path) -> Path:
    return save_tiny(folder, tiny_llama(max_position_embeddings=PROTOCOL_WINDOW))


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(*weights_files(run.checkpoint))


def assert_same(a: Run, b: Run) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def front_matter(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((run.checkpoint / "README.md").read_text().split("---")[1])
    return found


def own_kind(recipe: str) -> PreTrainedModel:
    """A tiny model of the kind that a shipped recipe names, with sides that its factors divide."""
    name, grouped = read_recipe(recipe).model, bool(re.search(r"group: \d", read_recipe(recipe).to_yaml()))
    sizes = {"hidden_size": 64, "intermediate_size": 128} if grouped else {}
    if "bert" in name or "minilm" in name:
        return tiny_bert(**{"num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 96} | sizes)
    if "gpt2" in name:
        return tiny_gpt2(n_embd=48, n_inner=96, n_positions=PROTOCOL_WINDOW)
    return tiny_llama(max_position_embeddings=PROTOCOL_WINDOW, **sizes)


OTHER_SIZES = {  # of recipes that run here: each names one that has its steps
    "kroneckerbert-21-glue": "kroneckerbert-8-glue",
    "kroneckerbert-21": "kroneckerbert-8",
    "kroneckerbert-5": "kroneckerbert-8",
    "minilm-7-glue-low-rank": "minilm-7-glue",
    "gpt2-ttm-32": "gpt2-ttm-16",
    "gpt2-ttm-64": "gpt2-ttm-16",
    "gpt2-ttm-80": "gpt2-ttm-16",
    "halve-ffn-van-loan-normalized": "halve-ffn-van-loan",
    "krony-67m": "krony-81m",
    "krony-74m": "krony-81m",
    "krony-80m-2f": "krony-81m",
    "krony-87m": "krony-81m",
    "krony-93m-4f": "krony-81m",
    "krony-96m": "krony-81m",
}


def test_recipes_of_other_sizes_have_the_same_steps() -> None:
    for name, other in OTHER_SIZES.items():
        kinds, others = ([step.kind for step in read_recipe(recipe).steps] for recipe in (name, other))
        assert set(kinds) == set(others), (name, kinds, others)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in OTHER_SIZES else []) for name in shipped()]
)
def test_every_shipped_recipe_runs_and_reopens(name: str, tmp_path: Path, text: Path) -> None:
    model = own_kind(name)
    run = execute(small(name, save_tiny(tmp_path / "model", model), text), tmp_path / "run")
    assert {"recipe.yaml", "manifest.json", "report.html", "checkpoint"} <= {p.name for p in run.folder.iterdir()}
    assert json.loads(run.manifest_path.read_text())["finished"]
    assert kronpress.verify(run.checkpoint)["deviation"] <= 1e-5
    auto = AutoModelForCausalLM if is_causal(model) else AutoModelForMaskedLM
    opened = auto.from_pretrained(run.checkpoint)
    changed = any(step.changes_student for step in run.recipe.steps)
    size = footprint(opened, folder=run.checkpoint)
    assert size.bytes_on_disk < footprint(model, folder=tmp_path / "model").bytes_on_disk + (0 if changed else 1)
    assert "kronpress" in front_matter(run)["tags"]
    assert front_matter(run)["pipeline_tag"] == ("text-generation" if is_causal(model) else "fill-mask")
    if next(rounded_inputs(opened), None) is None:
        parity = DenseExporter().write(kronpress.load(run.checkpoint), tmp_path / "dense").parity
        assert parity.as_run <= 1e-4, "scales, orders and padding included"
    assert not list(run.folder.rglob("trainer")), "training checkpoints are removed"
    fine_tuned = len([path for path in weights_files(run.folder / "steps") if path.parts[-4].endswith("-finetune")])
    steps = [step for step in run.recipe.steps if isinstance(step, Finetune)]
    students = [not step.stages or "student" in step.plan("sst-2").starts.values() for step in steps]
    assert fine_tuned == sum(1 + len(step.stages) + student for step, student in zip(steps, students, strict=True))
    assert len(weights_files(run.folder)) == 1 + fine_tuned


@pytest.mark.parametrize(
    ("model", "name", "more"),
    [
        (tiny_gpt2(n_positions=PROTOCOL_WINDOW), "halve-ffn", ()),
        (tiny_gpt2(n_positions=PROTOCOL_WINDOW), "halve-ffn-van-loan", ("factorize.sites=all,embedding",)),
        (tiny_bert(), "halve-ffn-training-free", ()),
    ],
    ids=["gpt2-narrow", "gpt2-everything", "bert"],
)
def test_the_other_families_run_too(
    model: PreTrainedModel, name: str, more: tuple[str, ...], tmp_path: Path, text: Path
) -> None:
    run = execute(small(name, save_tiny(tmp_path / "model", model), text, *more), tmp_path / "run")
    assert kronpress.verify(run.checkpoint)["files"] >= 2
    causal = type(model).__name__ == "GPT2LMHeadModel"
    assert front_matter(run)["pipeline_tag"] == ("text-generation" if causal else "fill-mask")


def test_an_encoder_is_compared_by_its_outputs(tmp_path: Path, text: Path) -> None:
    recipe = small("halve-ffn-training-free", save_tiny(tmp_path / "model", tiny_bert()), text, "evaluate.speed=true")
    run = execute(recipe, tmp_path / "run")
    summary = run.summary()
    assert [row.phase for row in summary.speed] == ["prefill"]
    assert "cosine" in summary.notes[0]
    assert "AutoModelForMaskedLM" in (run.checkpoint / "README.md").read_text()


def test_sizes_before_and_after_are_in_the_same_number_format(tmp_path: Path, text: Path) -> None:
    model = save_tiny(tmp_path / "model", tiny_llama(max_position_embeddings=PROTOCOL_WINDOW).to(torch.bfloat16))
    run = execute(small("halve-ffn-training-free", model, text), tmp_path / "run")
    manifest = run.manifest()
    before, after = manifest.footprint_before, manifest.footprint_after
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.bfloat16}
    assert kronpress.verify(run.checkpoint)["deviation"] <= 1e-5, "the probe is taken of what is saved"
    assert after is not None
    assert before.bytes_in_memory - after.bytes_in_memory == 2 * (before.parameters - after.parameters)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps.3.protocols=[tokens-1024]", "sees at most 512"),
        ("steps.3.text=nowhere.txt", "nowhere.txt"),
        ("steps.3.prompts=['']", "has no tokens"),
        ("steps.2.window=100000", "sees 512 tokens"),
        ("data.held_out={text}", "is the training text"),
    ],
)
def test_a_mistake_in_the_last_step_is_found_before_the_first(
    override: str, message: str, tmp_path: Path, text: Path
) -> None:
    text.write_text(TEXT[:8000])
    recipe = small("halve-ffn", llama(tmp_path / "model"), text)
    recipe = read_recipe(write(recipe, tmp_path / "r.yaml"), overrides=[override.format(text=text)])
    with pytest.raises(KronpressError, match=message):
        execute(recipe, tmp_path / "a" / "deep" / "run")
    assert not (tmp_path / "a").exists()


def write(recipe: Recipe, path: Path) -> Path:
    path.write_text(recipe.to_yaml())
    return path


def test_the_same_recipe_gives_the_same_weights(tmp_path: Path, text: Path) -> None:
    recipe = small("halve-ffn", llama(tmp_path / "model"), text, "evaluate.prompts=[]")
    assert_same(execute(recipe, tmp_path / "a"), execute(recipe, tmp_path / "b"))


def test_a_finished_run_is_left_alone(tmp_path: Path, text: Path) -> None:
    recipe = small("halve-ffn-training-free", llama(tmp_path / "model"), text)
    run = execute(recipe, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    execute(recipe, tmp_path / "run", resume=True)
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before
    with pytest.raises(KronpressError, match="already holds a run"):
        execute(recipe, tmp_path / "run")
    with pytest.raises(KronpressError, match="another recipe"):
        execute(recipe.model_copy(update={"seed": 9}), tmp_path / "run", resume=True)


def test_lambada_stands_beside_perplexity(tmp_path: Path, text: Path) -> None:
    lines = [json.dumps({"text": f"the {word} rabbit and the {word} fox"}) for word in ("sad", "glad", "old")]
    (tmp_path / "lambada.jsonl").write_text("\n".join(lines))
    more = [f"evaluate.lambada={tmp_path / 'lambada.jsonl'}", "evaluate.max_passages=2"]
    run = execute(small("halve-ffn-training-free", llama(tmp_path / "model"), text, *more), tmp_path / "run")
    (report,) = (json.loads(path.read_text()) for path in run.folder.glob("steps/*-evaluate/report.json"))
    (windows,), lambada = report["record"]["perplexity"], report["record"]["lambada"]
    assert (windows["student"]["protocol"], lambada["student"]["protocol"]) == ("tokens-512", "lambada-openai")
    assert lambada["student"]["passages"] == 2
    assert lambada["ratio"] == lambada["student"]["perplexity"] / lambada["dense"]["perplexity"] != 1
    page = html.unescape((run.folder / "report.html").read_text())
    assert "lambada-openai" in page
    assert "% of LAMBADA's last words" in page


def test_lambada_is_checked_before_anything_is_changed(tmp_path: Path, text: Path) -> None:
    (tmp_path / "lambada.jsonl").write_text('{"text": "alone"}')
    more = f"evaluate.lambada={tmp_path / 'lambada.jsonl'}"
    with pytest.raises(KronpressError, match="line 1: 'alone' is not two words"):
        execute(small("halve-ffn-training-free", llama(tmp_path / "model"), text, more), tmp_path / "run")


def shortened(tmp_path: Path, text: Path, *steps: dict[str, Any]) -> Recipe:
    data = {"train": str(text)}
    first = {"step": "truncate", "blocks": {"name": "greedy", "tokens": 64}, "keep": 2}
    training = {"step": "distill", "tokens": 64, "window": 32, "batch": 1}
    every = [first, *({**training, **step} for step in steps)]
    return make_recipe({"model": str(llama(tmp_path / "model")), "data": data, "steps": every})


def test_steps_are_checked_on_a_student_of_the_depth_that_they_will_find(tmp_path: Path, text: Path) -> None:
    layers = {"losses": {"pkd": {"layers": [0, 2]}}}
    run = execute(shortened(tmp_path, text, layers), tmp_path / "run")
    assert AutoModelForCausalLM.from_pretrained(run.checkpoint).config.num_hidden_layers == 2
    wrong = {"losses": {"pkd": {"layers": [0, 1, 2]}}}
    with pytest.raises(KronpressError, match="names 3 blocks of the teacher, but the student has 2"):
        execute(shortened(tmp_path, text, wrong), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_narrower_student_is_foreseen(tmp_path: Path, text: Path) -> None:
    training = {"step": "distill", "tokens": 64, "window": 32, "batch": 1, "losses": {"hidden": 1}}
    model = llama(tmp_path / "model")
    steps = [{"step": "pool", "width": 8}, training]
    with pytest.raises(KronpressError, match=r"project"):
        execute(make_recipe({"model": str(model), "data": {"train": str(text)}, "steps": steps}), tmp_path / "run")


@pytest.mark.parametrize("compressed", [True, False], ids=["factors", "dense"])
def test_a_run_that_trains_adapters_ends_in_the_checkpoint_of_one_that_does_not(
    compressed: bool, text: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    model, folder = save_tiny(tmp_path / "model"), tmp_path / "run"
    steps: list[dict[str, Any]] = [{"step": "factorize", "form": {"name": "kronecker", "right": [2, 1]}}]
    adapters = {"name": "lora", "rank": 2}
    steps = [*steps[: int(compressed)], {"step": "pretrain", "tokens": 256, "window": 32, "adapters": adapters}]
    run = execute(make_recipe({"model": str(model), "data": {"train": str(text)}, "steps": steps}), folder)
    assert run.manifest().plain is not compressed
    names = [path.name for path in weights_files(folder / "checkpoint")]
    assert names == ["kronpress.safetensors" if compressed else "model.safetensors"]
    opened = AutoModelForCausalLM.from_pretrained(folder / "checkpoint")
    assert opened.num_parameters() == (8_386 if compressed else 10_096)
    assert "adapters of rank 2 on" in (folder / "report.html").read_text()
