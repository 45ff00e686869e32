"""Shipped recipes read windows that the model sees, whatever their length."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.families import is_causal
from kronpress.run.execution import execute
from kronpress.run.recipe import read_recipe, shipped
from kronpress.train.language import LanguageStep
from tests.tiny import TEXT, bench, save_tiny, tiny_bert, tiny_gpt2, tiny_llama

OWN_WINDOW = {"minilm-7-glue": 128, "minilm-7-glue-low-rank": 128, "minilm-megabyte": 128, "two-stage-minilm": 128}
OWN_WINDOW |= {"distilgpt2": 1024, "gpt2-alt": 1024}


def model_for(recipe: str, positions: int) -> PreTrainedModel:
    """A model of the family that the recipe is for, with sides that its factors divide."""
    name, grouped = read_recipe(recipe).model, bool(re.search(r"group: \d", read_recipe(recipe).to_yaml()))
    if "bert" in name or "minilm" in name:
        sizes = (
            {"hidden_size": 64, "intermediate_size": 128} if grouped else {"hidden_size": 48, "intermediate_size": 96}
        )
        return tiny_bert(max_position_embeddings=positions, **sizes)
    if "gpt2" in name:
        return tiny_gpt2(n_embd=48, n_inner=96, n_positions=positions)
    sizes = {"hidden_size": 64, "intermediate_size": 128} if grouped else {}
    return tiny_llama(max_position_embeddings=positions, **sizes)


def on_a_small_model(recipe: str, folder: Path) -> list[str]:
    """Overrides for what has nothing to do with windows: data of tasks, and sizes of tables and trains."""
    text = read_recipe(recipe).to_yaml()
    overrides = []
    if "step: finetune" in text:
        (folder / "SST-2").mkdir()
        for name in ("train", "dev"):
            (folder / "SST-2" / f"{name}.tsv").write_text("sentence\tlabel\nthe fox\t0\na rabbit\t1\n")
        overrides += ["finetune.tasks=sst-2", f"finetune.data={folder}", "finetune.augment=null"]
        overrides += ["finetune.select_on=dev"]
    if "groups:\n" in text:
        overrides += [
            "0.form.groups=[{tokens: 9, terms: 48}, {tokens: 20, terms: 8}]",
            "0.form.right=[1, 48]",
            "0.form.terms=4",
        ]
    overrides += ["truncate.keep=2"] if "step: truncate" in text else []
    return overrides + (["factorize.form.rank=4"] if "tensor_train" in text else [])


@pytest.mark.parametrize("positions", [64, 128])
@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_suits_models_with_few_positions(name: str, positions: int, tmp_path: Path) -> None:
    overrides, work = on_a_small_model(name, tmp_path), bench(model_for(name, positions), tmp_path)
    if name in OWN_WINDOW:
        for training in (step for step in read_recipe(name).steps if isinstance(step, LanguageStep)):
            seen = positions - (0 if is_causal(work.student) else 2)
            too_long = f"a window of {OWN_WINDOW[name]} is too long .*; set window to {seen} or"
            with pytest.raises(KronpressError, match=too_long):
                training.check(work)
            overrides.append(f"{training.kind}.window=null")
    for step in read_recipe(name, overrides=overrides).steps:
        step.check(work)


def test_reports_say_which_windows_were_read(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", tiny_llama(max_position_embeddings=64))
    (tmp_path / "text.txt").write_text(TEXT)
    changes = [f"model={tmp_path / 'model'}", f"data.train={tmp_path / 'text.txt'}", "evaluate.max_windows=1"]
    changes += ["prune.fit.tokens=128", "distill.tokens=256", "distill.validate_every=2"]
    run = execute(read_recipe("halve-ffn", overrides=changes), tmp_path / "run")
    paths = sorted(run.folder.glob("steps/*/report.json"))
    pruned, before, distill, after = (json.loads(path.read_text())["record"] for path in paths)
    assert pruned["method"]["fit"]["window"] == 64
    assert (distill["window"], distill["steps"], distill["tokens"]) == (64, 2, 256)
    assert [report["perplexity"][0]["student"]["protocol"] for report in (before, after)] == ["tokens-64"] * 2
    assert after["speed"]["prompt_tokens"] == after["speed"]["new_tokens"] == 32
    assert "tokens-64" in (run.folder / "report.html").read_text()


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("kroneckerbert")])
def test_kroneckerbert_reads_512_tokens_and_says_what_its_stage_1_lacks(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name, overrides=["distill.tokens=510", "distill.batch=1"])
    assert "next-sentence prediction" in recipe.description
    (distill,) = (step for step in recipe.steps if isinstance(step, Distill))
    record = distill.run(bench(tiny_bert(num_hidden_layers=1, max_position_embeddings=512), tmp_path))
    assert (record.window, record.tokens) == (510, 510)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("halve-ffn-training-free", "prune.fit.window=65"),
        ("halve-ffn-svd", "factorize.fit={name: whitened, window: 65}"),
    ],
)
def test_a_window_of_calibration_that_the_model_cannot_see_is_refused(name: str, change: str, tmp_path: Path) -> None:
    step = read_recipe(name, overrides=[change]).steps[0]
    with pytest.raises(KronpressError, match=r"a window of 65 is too long .* sees 64 tokens; set window to 64 or less"):
        step.check(bench(tiny_llama(max_position_embeddings=64), tmp_path))
