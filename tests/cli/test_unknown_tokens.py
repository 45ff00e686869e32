"""A tokenizer with more tokens than the model has rows: named before any work, and only where a text has them in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import kronpress
from kronpress import KronpressError
from kronpress.cli import app
from kronpress.data import require_known
from kronpress.distill import Distill
from kronpress.evaluate import Evaluate
from kronpress.evaluate.samples import generate_samples
from kronpress.factorize import Factorize
from kronpress.finetune import Finetune
from kronpress.prune import Prune
from kronpress.step import Step
from tests.tiny import TEXT, bench, tiny_bert, tiny_llama, tiny_tokenizer

ADDED = "<tool_call>"
NAMED = rf"the tokenizer gives id 264 \('{ADDED}'\) and \w+ knows 264 ids; .*resize_token_embeddings\(265\)"
RUNNER = CliRunner()


def with_more() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([ADDED])
    return tokenizer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path / "model")
    with_more().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A text of which the training part has the token in it at its end only."""
    cut = len(TEXT) * 8 // 10
    (tmp_path / "with.txt").write_text(TEXT[:cut] + ADDED + TEXT[cut:])
    (tmp_path / "without.txt").write_text(TEXT)
    (tmp_path / "lambada.jsonl").write_text(json.dumps({"text": f"one two {ADDED} three"}) + "\n")
    return tmp_path


def command(*words: object) -> str:
    result = RUNNER.invoke(app, [*map(str, words)])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, KronpressError | SystemExit), result.exception
    return str(result.exception) if isinstance(result.exception, KronpressError) else result.output


RECIPE = """
model: {model}
data: {{train: {data}}}
steps:
  - {{step: prune, keep: 0.5, fit: {{tokens: 512, window: 64}}}}
"""


def test_commands_name_the_token(model: Path, data: Path) -> None:
    (data / "recipe.yaml").write_text(RECIPE.format(model=model, data=data / "with.txt"))
    outputs = [
        command("run", data / "recipe.yaml", "--out", data / "run"),
        command("generate", model, "--prompt", f"a {ADDED}"),
        command("evaluate", model, "--lambada", data / "lambada.jsonl"),
    ]
    for output in outputs:
        assert "<tool_call>" in output and "resize_token_embeddings(265)" in output.replace("\n", "")


def test_texts_without_the_token_are_read_as_ever(model: Path, data: Path) -> None:
    (data / "recipe.yaml").write_text(RECIPE.format(model=model, data=data / "without.txt"))
    result = RUNNER.invoke(app, ["run", str(data / "recipe.yaml"), "--out", str(data / "run")])
    assert result.exit_code == 0, result.output
    opened, tokenizer = kronpress.load_with_tokenizer(data / "run" / "checkpoint")
    assert len(tokenizer) == 265
    assert generate_samples(opened, tokenizer, ["a"], max_new_tokens=2)


STEPS: dict[str, Step] = {
    "calibrated": Prune(keep=0.5, fit={"tokens": 2048, "window": 64}),
    "whitened": Factorize(method={"name": "svd_whitened", "ratio": 0.5}, sites="feed_forward"),
    "by frequency": Factorize(method={"name": "van_loan_frequency", "right": (1, 4)}, sites="embedding"),
    "distilled": Distill(tokens=512, window=64, batch=2, losses={"logits": 1.0}),
    "evaluated": Evaluate(protocols=()),
    "sampled": Evaluate(protocols=(), prompts=(f"a {ADDED}",)),
}


@pytest.mark.parametrize("name", list(STEPS))
def test_steps_name_the_token(tmp_path: Path, name: str) -> None:
    model = tiny_bert() if name == "evaluated" else tiny_llama()
    work = bench(model, tmp_path, text=f"{ADDED} " + TEXT)
    work.tokenizer = with_more()
    with pytest.raises(KronpressError, match=NAMED):
        STEPS[name].run(work)


def test_a_mask_that_the_encoder_lacks_is_named(tmp_path: Path) -> None:
    work = bench(tiny_bert(), tmp_path)
    work.tokenizer = with_more()
    work.tokenizer.mask_token = ADDED
    with pytest.raises(KronpressError, match=NAMED):
        Distill(tokens=512, window=64, batch=2, losses={"cross_entropy": 1.0}).check(work)


@pytest.mark.parametrize("where", ["train", "dev", "padding"])
def test_a_task_names_the_token_before_training(tmp_path: Path, where: str) -> None:
    work = bench(tiny_bert(), tmp_path)
    work.tokenizer = with_more()
    if where == "padding":
        work.tokenizer.pad_token = ADDED
    for split in ("train", "dev"):
        text = f"fine {ADDED}" if split == where else "fine"
        (tmp_path / f"{split}.tsv").write_text(f"sentence\tlabel\n{text}\t1\nbad\t0\n")
    step = Finetune(tasks={"sst-2": {"data": str(tmp_path)}}, epochs=1, batch=2)
    with pytest.raises(KronpressError, match=NAMED):
        step.check(work)


def test_ids_that_the_model_knows_are_let_through() -> None:
    require_known(torch.tensor([], dtype=torch.long), with_more(), model=tiny_llama())
    require_known(torch.tensor([[0, 263]]), with_more(), model=tiny_llama())
