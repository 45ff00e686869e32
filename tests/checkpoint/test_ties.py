"""Whether head and embedding are tied is what the tensors say; no path loses a head of its own."""

from __future__ import annotations

import copy
import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

import kronpress
from kronpress.evaluate import footprint
from kronpress.export import DenseExporter
from kronpress.factorize import Factorize
from kronpress.families import family_of
from kronpress.prune import Prune
from kronpress.run.execution import execute
from kronpress.run.recipe import Recipe
from tests.conformance.test_families import build
from tests.tiny import (
    DIM,
    TEXT,
    VOCABULARY,
    bench,
    logits,
    save_tiny,
    tiny_gpt2,
    tiny_llama,
    tiny_tokenizer,
    weights_files,
)

MODEL_TYPES = ["llama", "gpt2", "bert", "roberta", "distilbert"]


def with_own_head(folder: Path, model: PreTrainedModel) -> Path:
    """A plain checkpoint whose config says tied, and whose file holds another head, as public fine-tunes do."""
    save_tiny(folder, model)
    tensors, head = load_file(folder / "model.safetensors"), f"{family_of(model).head}."
    weight = model.get_output_embeddings().weight.detach()
    tensors[f"{head}weight"] = weight + 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert json.loads((folder / "config.json").read_text()).get("tie_word_embeddings", True)
    return folder


def stored(folder: Path) -> int:
    with safe_open(weights_files(folder)[0], framework="pt") as stream:
        return sum(stream.get_tensor(name).numel() for name in list(stream.keys()))


def reopened(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    kronpress.save(copy.deepcopy(model), folder, tokenizer=tiny_tokenizer())
    kronpress.verify(folder)
    return kronpress.load(folder)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_head_of_its_own_is_kept_on_every_path(model_type: str, tmp_path: Path) -> None:
    folder = with_own_head(tmp_path / "theirs", build(model_type))
    model = kronpress.load(folder)
    expected, weight = logits(model), model.get_output_embeddings().weight.detach().clone()
    assert not torch.allclose(expected, logits(build(model_type)), atol=1e-2)
    assert model.config.tie_word_embeddings is False
    assert torch.equal(logits(reopened(model, tmp_path / "plain")), expected)
    size = footprint(model)
    assert size.parameters == size.parameters_untied == stored(tmp_path / "plain")
    assert size.parameters - size.parameters_without_head >= weight.numel()

    work = bench(model, tmp_path / "work")
    Factorize(method={"name": "van_loan", "right": (2, 2), "terms": 2}, sites="feed_forward").run(work)
    for number, student in enumerate((work.student, reopened(work.student, tmp_path / "factors"))):
        assert torch.equal(student.get_output_embeddings().weight, weight)
        assert torch.equal(logits(student), logits(work.student))
        DenseExporter().write(student, tmp_path / f"dense-{number}")
        assert torch.equal(kronpress.load(tmp_path / f"dense-{number}").get_output_embeddings().weight, weight)
    assert footprint(work.student).parameters == stored(tmp_path / "factors")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_factored_embedding_leaves_the_head_and_a_tied_one_says_what_it_dropped(
    model_type: str, tmp_path: Path
) -> None:
    model = kronpress.load(with_own_head(tmp_path / "theirs", build(model_type)))
    weight = model.get_output_embeddings().weight.detach().clone()
    kept = bench(model, tmp_path / "kept")
    assert Factorize(method={"name": "van_loan", "right": (1, 2)}, sites="embedding").run(kept).notes == ()
    again = reopened(kept.student, tmp_path / "kept")
    assert torch.equal(again.get_output_embeddings().weight, weight)
    assert torch.equal(logits(again), logits(kept.student))

    tied = bench(model, tmp_path / "tied")
    (text,) = Factorize(method={"name": "van_loan", "right": (1, 2)}, sites="embedding", head="tied").run(tied).notes
    assert f"dropped the trained weights of the output head {family_of(model).head} ({weight.numel():,} numbers" in text
    again = reopened(tied.student, tmp_path / "tied")
    assert again.get_output_embeddings().table is again.get_input_embeddings()
    assert torch.equal(logits(again), logits(tied.student))
    assert footprint(again).parameters == stored(tmp_path / "tied")


def test_a_model_that_transformers_opened_keeps_its_head_too(tmp_path: Path) -> None:
    folder = with_own_head(tmp_path / "theirs", tiny_llama())
    expected = logits(kronpress.load(folder))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(reopened(model, tmp_path / "again")), expected)
    work = bench(model, tmp_path)
    Factorize(method={"name": "van_loan", "right": (2, 2)}, sites="up").run(work)
    assert not torch.equal(work.student.lm_head.weight, work.student.model.embed_tokens.weight)


def test_pruning_keeps_it(tmp_path: Path) -> None:
    model = kronpress.load(with_own_head(tmp_path / "theirs", tiny_llama()))
    work = bench(model, tmp_path)
    Prune(keep=0.5, fit={"tokens": 2048, "window": 64}).run(work)
    again = reopened(work.student, tmp_path / "narrow")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_the_report_of_a_run_says_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = with_own_head(tmp_path / "theirs", tiny_llama())
    (tmp_path / "text.txt").write_text(TEXT)
    step = {"method": {"name": "van_loan", "right": [1, 2]}, "step": "factorize", "sites": "embedding", "head": "tied"}
    fields = {"model": str(folder), "data": {"train": str(tmp_path / "text.txt")}, "steps": [step]}
    run = execute(Recipe.model_validate(fields), tmp_path / "run")
    notes = "\n".join(run.summary().notes)
    for text in ("which is kept (tie_word_embeddings: false)", "head: tied dropped the trained weights"):
        assert text in notes
        assert text in html.unescape((tmp_path / "run" / "report.html").read_text())
    assert "note: head: tied dropped" in capsys.readouterr().out


@pytest.mark.parametrize("build_model", [tiny_llama, tiny_gpt2])
def test_equal_tensors_that_the_config_unties_stay_two(build_model: Callable[..., Any], tmp_path: Path) -> None:
    model = build_model(tied=False)
    model.get_output_embeddings().weight.data.copy_(model.get_input_embeddings().weight.data)
    opened = kronpress.load(save_tiny(tmp_path / "theirs", model))
    size = footprint(opened)
    assert opened.config.tie_word_embeddings is False
    assert size.parameters == size.parameters_untied == size.parameters_without_head + VOCABULARY * DIM


@pytest.mark.parametrize("build_model", [tiny_llama, tiny_gpt2])
def test_one_tensor_that_the_config_unties_is_saved_as_tied(build_model: Callable[..., Any], tmp_path: Path) -> None:
    model = build_model(tied=False)
    model.get_output_embeddings().weight = model.get_input_embeddings().weight
    again = reopened(model, tmp_path / "saved")
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_of_two_biases_the_one_that_is_used_counts(model_type: str, tmp_path: Path) -> None:
    model = build(model_type)
    save_tiny(tmp_path / "theirs", model)
    tensors = load_file(tmp_path / "theirs" / "model.safetensors")
    (other,) = (name for name in tensors if name in ("cls.predictions.bias", "lm_head.bias"))
    tensors[f"{family_of(model).head}.bias"] = tensors[other] + 1
    save_file(tensors, tmp_path / "theirs" / "model.safetensors", metadata={"format": "pt"})
    opened = kronpress.load(tmp_path / "theirs")
    expected = logits(model) + 1
    torch.testing.assert_close(logits(opened), expected)
    for sites in ("feed_forward", "embedding,head"):
        work = bench(opened, tmp_path)
        Factorize(method={"name": "van_loan", "right": (1, 2)}, sites=sites).run(work)
        again = reopened(work.student, tmp_path / sites)
        assert torch.equal(again.get_output_embeddings().bias, tensors[other] + 1)
        assert torch.equal(logits(again), logits(work.student))


def test_a_gguf_file_with_a_head_of_its_own(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    model = tiny_llama(vocab_size=32)
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    for key, value in {"context_length": 128, "embedding_length": DIM, "block_count": 3}.items():
        writer.add_uint32(f"llama.{key}", value)
    for key, value in {"feed_forward_length": 24, "attention.head_count": 4, "attention.head_count_kv": 2}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_uint32("llama.vocab_size", 32)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3)
    for name, value in model.state_dict().items():
        key = names.get_name(name.removesuffix(".weight")) + ".weight"
        writer.add_tensor(key, (value + 1 if name.startswith("lm_head") else value).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    opened = kronpress.load(tmp_path / "tiny.gguf")
    head = opened.lm_head
    assert isinstance(head, nn.Linear)
    assert opened.config.tie_word_embeddings is False
    torch.testing.assert_close(head.weight, model.lm_head.weight + 1)
    again = reopened(opened, tmp_path / "saved")
    assert torch.equal(again.lm_head.weight, head.weight)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_factored_head_beside_a_dense_table_opens_again(model_type: str, tmp_path: Path) -> None:
    work = bench(build(model_type), tmp_path / "work")
    Factorize(method={"name": "van_loan", "right": (1, 2)}, sites="head").run(work)
    again = reopened(work.student, tmp_path / "saved")
    assert torch.equal(logits(again), logits(work.student))
    assert footprint(again) == footprint(work.student)
    assert footprint(again).parameters == stored(tmp_path / "saved")
