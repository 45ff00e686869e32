from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

import kronpress
from kronpress.checkpoint import adopt, structured_layers
from kronpress.layers import FactoredHead
from kronpress.prune import Prune
from tests.tiny import (
    bench,
    factorized,
    factors_of,
    logits,
    save_tiny,
    tiny_bert,
    tiny_gpt2,
    tiny_llama,
    tiny_tokenizer,
)


def config_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "config.json").read_text())


def stored(folder: Path) -> int:
    with safe_open(folder / "kronpress.safetensors", framework="pt") as stream:
        return sum(stream.get_tensor(name).numel() for name in list(stream.keys()))


def count(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def plain_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a process that never imports kronpress."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_two_round_trips_are_bit_exact(compressed: PreTrainedModel, tmp_path: Path) -> None:
    expected = logits(compressed)
    first = kronpress.load(kronpress.save(compressed, tmp_path / "first"))
    assert torch.equal(logits(first), expected)
    second = kronpress.load(kronpress.save(first, tmp_path / "second"))
    assert torch.equal(logits(second), expected)
    assert (
        count(compressed) == count(first) == count(second) == stored(tmp_path / "first") == stored(tmp_path / "second")
    )
    assert {path: layer.spec for path, layer in structured_layers(second).items()} == {
        path: layer.spec for path, layer in structured_layers(compressed).items()
    }
    assert config_of(tmp_path / "first") == config_of(tmp_path / "second")
    kronpress.verify(tmp_path / "second")


def test_what_was_tied_is_tied_again(compressed: PreTrainedModel, tmp_path: Path) -> None:
    tied = compressed.get_input_embeddings().left is factors_of(compressed.get_output_embeddings()).left
    again = kronpress.load(kronpress.save(compressed, tmp_path / "saved"))
    assert (again.get_input_embeddings().left is factors_of(again.get_output_embeddings()).left) is tied
    assert again.config.tie_word_embeddings is tied


@pytest.mark.parametrize("sites", ["head", "embedding"])
@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2])
def test_a_tie_with_one_end_factored(build: object, sites: str, tmp_path: Path) -> None:
    student = factorized(build(), tmp_path, sites=sites)
    expected = logits(student)
    again = kronpress.load(kronpress.save(student, tmp_path / "saved"))
    assert torch.equal(logits(again), expected)
    assert count(again) == count(student)


def test_a_narrow_model_is_a_plain_checkpoint(narrow: PreTrainedModel, dense: PreTrainedModel, tmp_path: Path) -> None:
    expected = logits(narrow)
    folder = kronpress.save(narrow, tmp_path / "saved", tokenizer=tiny_tokenizer())
    assert config_of(folder)["model_type"] == dense.config.model_type
    assert "quantization_config" not in config_of(folder)
    assert torch.equal(logits(kronpress.load(folder)), expected)
    assert count(narrow) < count(dense)
    kronpress.verify(folder)


def test_without_kronpress_a_narrow_model_opens_and_a_compressed_one_never_does(
    checkpoint: Path, tmp_path: Path
) -> None:
    work = bench(tiny_llama(), tmp_path)
    Prune(keep=0.5, fit={"tokens": 2048, "window": 64}).run(work)
    plain = kronpress.save(work.student, tmp_path / "plain", tokenizer=tiny_tokenizer())
    torch.save(logits(work.student), tmp_path / "expected.pt")
    code = """
import sys, torch, transformers
plain, expected, compressed = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(plain)
transformers.AutoTokenizer.from_pretrained(plain)
with torch.no_grad():
    assert torch.equal(model(input_ids=torch.linspace(0, 263, 24).long().view(2, 12)).logits, torch.load(expected))
for auto in ("AutoConfig", "AutoModel", "AutoModelForCausalLM"):
    try:
        getattr(transformers, auto).from_pretrained(compressed)
    except ValueError as error:
        assert "kronpress_llama" in str(error), error
    else:
        raise AssertionError(f"{auto} opened it")
assert "kronpress" not in sys.modules
"""
    done = plain_python(code, plain, tmp_path / "expected.pt", checkpoint)
    assert done.returncode == 0, done.stderr


def test_with_kronpress_imported_transformers_opens_it(checkpoint: Path) -> None:
    expected = logits(kronpress.load(checkpoint))
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert torch.equal(logits(model), expected)
    code = """
import sys, kronpress
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
print(pipeline("text-generation", model=sys.argv[1], device="cpu")("line 1", max_new_tokens=4)[0]["generated_text"])
"""
    done = plain_python(code, checkpoint)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("line 1")


def test_the_base_model_alone_opens_with_its_factors(checkpoint: Path) -> None:
    base, whole = AutoModel.from_pretrained(checkpoint), kronpress.load(checkpoint)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(base(ids).last_hidden_state, whole.model(ids).last_hidden_state)


def test_the_tokenizer_comes_along(checkpoint: Path) -> None:
    text = "line 3: 9 is 3 times 3"
    _, tokenizer = kronpress.load_with_tokenizer(checkpoint)
    assert tokenizer(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]
    assert AutoTokenizer.from_pretrained(checkpoint).decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("build", [tiny_llama, tiny_bert, tiny_gpt2])
@pytest.mark.parametrize("rest", [False, True])
def test_a_folder_without_a_tokenizer_gives_none(build: Any, rest: bool, tmp_path: Path) -> None:
    folder = kronpress.save(build(), tmp_path / "saved", tokenizer=tiny_tokenizer())
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 128}')
    if not rest:
        (folder / "tokenizer_config.json").unlink()
    assert kronpress.load_with_tokenizer(folder)[1] is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_number_format_can_be_asked_for_and_is_kept(checkpoint: Path, dtype: torch.dtype, tmp_path: Path) -> None:
    half = kronpress.load(checkpoint, dtype=dtype)
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    again = kronpress.load(kronpress.save(half, tmp_path / "half"))
    assert {parameter.dtype for parameter in again.parameters()} == {dtype}
    assert torch.equal(logits(again), logits(half))
    weights = [(folder / "kronpress.safetensors").stat().st_size for folder in (checkpoint, tmp_path / "half")]
    assert weights[1] < 0.7 * weights[0]  # a part of the file is names


def test_large_weights_are_saved_in_shards(checkpoint: Path, tmp_path: Path) -> None:
    model = kronpress.load(checkpoint)
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert torch.equal(logits(kronpress.load(tmp_path / "shards")), logits(model))


def test_a_plain_model_is_left_plain() -> None:
    model = tiny_llama()
    assert type(adopt(model)) is type(tiny_llama())
    assert model.config.model_type == "llama"


def test_a_hub_style_folder_of_a_user_opens(tmp_path: Path) -> None:
    model = tiny_gpt2()
    opened, tokenizer = kronpress.load_with_tokenizer(save_tiny(tmp_path / "theirs", model))
    assert torch.equal(logits(opened), logits(model))
    assert tokenizer is not None


def test_the_config_names_every_swapped_module(checkpoint: Path) -> None:
    quantization = config_of(checkpoint)["quantization_config"]
    assert quantization["quant_method"] == "kronpress"
    assert quantization["format_version"] == 2
    model = kronpress.load(checkpoint)
    assert set(quantization["modules"]) == set(structured_layers(model))
    assert quantization["modules"]["model.layers.0.mlp.up_proj"] == {
        "kind": "kronecker_linear", "left": [12, 8], "right": [2, 2], "terms": 2, "scales": True, "orders": [],
        "bias": False,
    }  # fmt: skip
    assert isinstance(model.lm_head, FactoredHead)


def test_a_checkpoint_can_be_factored_further(checkpoint: Path, tmp_path: Path) -> None:
    partly = kronpress.save(factorized(tiny_llama(), tmp_path, sites="up"), tmp_path / "partly")
    fully = factorized(kronpress.load(partly), tmp_path, sites="down,gate")
    again = kronpress.load(kronpress.save(fully, tmp_path / "fully"))
    assert torch.equal(logits(again), logits(fully))
    assert len(structured_layers(again)) == 9
