"""A checkpoint whose numbers lie on grids, in the hands of users and of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from kronpress import KronpressError
from kronpress.adapters import lora_config
from kronpress.checkpoint import adopt, load, save, verify
from kronpress.layers import quantized_tensors
from kronpress.quantizers import let_learn
from tests.checkpoint.test_ecosystem import trainer
from tests.quantizers.test_scheme import put, scheme_of
from tests.tiny import logits, some_ids, tiny_gpt2, tiny_llama, tiny_tokenizer

WEIGHTS = "kronpress.safetensors"


@pytest.fixture(params=[tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    made: PreTrainedModel = put(request.param(), scheme_of(weights={"bits": 3, "group": 8}, tables=4))
    return adopt(made.eval())


@pytest.fixture
def folder(model: PreTrainedModel, tmp_path: Path) -> Path:
    return save(model, tmp_path / "model", tokenizer=tiny_tokenizer())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_opens_in_another_number_format(dtype: torch.dtype, folder: Path) -> None:
    expected = logits(load(folder))
    opened = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    assert opened(input_ids=some_ids()).logits.dtype == dtype
    torch.testing.assert_close(logits(opened).float(), expected, atol=0.15, rtol=0.1)
    codes = [(tensor.packed, tensor.scale) for tensor in quantized_tensors(opened)]
    stored = [(tensor.packed, tensor.scale) for tensor in quantized_tensors(load(folder))]
    for (packed, scale), (other, there) in zip(codes, stored, strict=True):
        assert packed is not None and other is not None and scale is not None and there is not None
        assert torch.equal(packed, other) and torch.equal(scale, there)


def test_it_is_cast_and_cast_back(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    expected = logits(model)
    assert model.half() is model
    torch.testing.assert_close(logits(model).float(), expected, atol=0.15, rtol=0.1)
    again = load(save(model.bfloat16(), folder.with_name("narrow")))
    codes = zip(quantized_tensors(again), quantized_tensors(model), strict=True)
    assert all(torch.equal(one.coded().codes, other.coded().codes) for one, other in codes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["auto", "disk"])
def test_a_device_map_puts_it_elsewhere(place: str, folder: Path, tmp_path: Path) -> None:
    expected = logits(load(folder))
    base = load(folder).base_model_prefix
    placed = {base: "disk", "lm_head": "disk"} if place == "disk" else "auto"
    opened = AutoModelForCausalLM.from_pretrained(folder, device_map=placed, offload_folder=tmp_path / "disk")
    torch.testing.assert_close(opened(input_ids=some_ids()).logits, expected)


def test_packed_it_trains_what_is_left_and_learning_it_trains_all(folder: Path, tmp_path: Path) -> None:
    packed = AutoModelForCausalLM.from_pretrained(folder)
    before = {name: value.clone() for name, value in packed.state_dict().items()}
    trainer(packed, tmp_path / "packed").train()
    after = packed.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.endswith(("packed", "scale")))
    assert any(not torch.equal(before[name], after[name]) for name in before)

    learning = load(folder)
    let_learn(learning)
    assert torch.equal(logits(learning), logits(load(folder)))
    run = trainer(learning, tmp_path / "learning")
    run.train()
    losses = [line["loss"] for line in run.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
    run.save_model(str(tmp_path / "final"))
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert torch.equal(logits(opened), logits(learning))
    codes = [tensor.coded().codes for tensor in quantized_tensors(opened)]
    assert any(not torch.equal(one, other.coded().codes) for one, other in zip(codes, quantized_tensors(load(folder)),
                                                                              strict=True))  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_adapters_train_on_top_of_it(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = AutoModelForCausalLM.from_pretrained(folder)
    adapted = peft.get_peft_model(model, lora_config(model, r=2))
    adapted(input_ids=some_ids(), labels=some_ids()).loss.backward()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    assert trained and all(parameter.grad is not None for parameter in trained)


def test_a_changed_byte_is_found(folder: Path) -> None:
    path = folder / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(KronpressError, match=rf"{WEIGHTS} is not the file that was saved"):
        verify(folder)


@pytest.mark.parametrize("ending", ["packed", "scale"])
def test_a_missing_part_is_named(ending: str, folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = next(key for key in sorted(tensors) if key.endswith(ending))
    save_file({key: value for key, value in tensors.items() if key != name}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(KronpressError, match=rf"lacks 1 weights.* '{name}'"):
        load(folder)


@pytest.mark.parametrize("ending", ["packed", "scale"])
def test_a_part_cut_short_is_named(ending: str, folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = next(key for key in sorted(tensors) if key.endswith(ending))
    tensors[name] = tensors[name].flatten()[:-1].clone()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(KronpressError, match=rf"{name}"):
        load(folder)


def test_another_grid_in_the_config_is_found(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    path = next(
        path for path, fields in config["quantization_config"]["modules"].items() if "up" in path or "c_fc" in path
    )
    config["quantization_config"]["modules"][path]["stored"]["weight"]["levels"] = "int4"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(KronpressError, match="packed"):
        load(folder)


def test_its_vocabulary_is_not_resized(folder: Path) -> None:
    with pytest.raises(KronpressError, match="factors or codes whose shapes fix its rows"):
        load(folder).resize_token_embeddings(300)
