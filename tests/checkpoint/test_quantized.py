"""A checkpoint whose numbers lie on grids, in the hands of users and of transformers."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from kronpress import KronpressError
from kronpress.adapters import lora_config
from kronpress.checkpoint import Probe, adopt, load, save, structured_layers, verify
from kronpress.families import replace_module
from kronpress.footprint import footprint
from kronpress.layers import quantized_tensors, rounded_inputs
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
    with pytest.warns(UserWarning, match="tensors are codes, which do not learn"):
        trainer(packed, tmp_path / "packed").train()
    after = packed.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.endswith(("packed", "scale")))
    assert any(not torch.equal(before[name], after[name]) for name in before)

    learning = load(folder)
    let_learn(learning)
    torch.testing.assert_close(logits(learning), logits(load(folder)))
    run = trainer(learning, tmp_path / "learning")
    run.train()
    losses = [line["loss"] for line in run.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
    run.save_model(str(tmp_path / "final"))
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    torch.testing.assert_close(logits(opened), logits(learning))
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


def test_a_training_of_codes_resumes_and_returns_to_the_best(folder: Path, tmp_path: Path) -> None:
    def learning() -> PreTrainedModel:
        model = load(folder)
        let_learn(model)
        return model

    whole = learning()
    trainer(whole, tmp_path / "run", save_steps=2).train()
    again = learning()
    trainer(again, tmp_path / "run", save_steps=2).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert {key for key in whole.state_dict() if key.endswith("latent")}
    for key, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    trainer(learning(), tmp_path / "best", **best).train()


@pytest.mark.filterwarnings("ignore:.*are codes")
def test_a_training_of_codes_does_not_resume_from_codes_alone(folder: Path, tmp_path: Path) -> None:
    trainer(load(folder), tmp_path / "run", save_steps=2).train()
    model = load(folder)
    let_learn(model)
    with pytest.raises(KronpressError, match="holds codes alone, and this model learns"):
        trainer(model, tmp_path / "other").train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


@pytest.mark.parametrize("bits", [8, 4, 1])
def test_rounded_inputs_do_not_shake_the_probe(bits: int, tmp_path: Path) -> None:
    """Machines add in other orders, and number formats round: a grid makes whole steps of that."""
    model = put(tiny_llama(), scheme_of(weights=4, inputs={"bits": bits, "quantizer": "mse"}))
    folder = save(adopt(model.eval()), tmp_path / "model")
    assert load(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    shaken, probe = load(folder), Probe.read(folder)
    assert probe is not None
    with torch.no_grad():
        for parameter in shaken.parameters():
            parameter.mul_(1 + 1e-6)
    assert probe.deviation(shaken) < 1e-3
    assert not any(part.idle for part in rounded_inputs(shaken)), "it rounds again after that"


@pytest.mark.parametrize("whole", [True, False])
def test_a_head_that_is_tied_no_more_is_saved(whole: bool, folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    if whole:
        model.set_input_embeddings(torch.nn.Embedding(*model.get_input_embeddings().weight.shape))
    else:
        head = model.get_output_embeddings()
        head.table = copy.deepcopy(head.table)
        model.config.tie_word_embeddings = False
    expected = logits(model)
    assert torch.equal(logits(load(save(model, tmp_path / "untied"))), expected)


def test_a_model_made_dense_again_is_a_plain_one(tmp_path: Path) -> None:
    model = adopt(put(tiny_llama(), scheme_of(weights={"bits": 3, "group": 8}, tables=4)).eval())
    expected = logits(model)
    for path, layer in structured_layers(model).items():
        replace_module(model, path, module=layer.to_dense())
    model.save_pretrained(tmp_path / "by itself")
    for place in (save(model, tmp_path / "dense"), tmp_path / "by itself"):
        opened = AutoModelForCausalLM.from_pretrained(place)
        assert not type(opened).__name__.startswith("Kronpress")
        torch.testing.assert_close(logits(opened), expected)


@pytest.mark.filterwarnings("ignore")  # of peft
def test_a_model_with_adapters_inside_is_not_saved(folder: Path, tmp_path: Path) -> None:
    peft, model = pytest.importorskip("peft"), load(folder)
    peft.get_peft_model(model, lora_config(model, r=2))
    with pytest.raises(KronpressError, match="holds adapters of peft"):
        save(model, tmp_path / "adapted")
    assert not (tmp_path / "adapted").exists()


def test_outputs_that_are_not_finite_are_not_saved(model: PreTrainedModel, tmp_path: Path) -> None:
    name, norm = next((name, part) for name, part in model.named_parameters() if "norm" in name or "ln" in name)
    norm.data[0] = float("nan")
    with pytest.raises(KronpressError, match=f"outputs are not finite: {name} holds NaN"):
        save(model, tmp_path / "broken")
    assert not (tmp_path / "broken").exists()


@pytest.mark.parametrize("unpack", [False, True])
def test_numbers_behind_codes_are_not_written_into(unpack: bool, folder: Path) -> None:
    model = load(folder, unpack=unpack)
    layer = next(layer for path, layer in structured_layers(model).items() if "mlp" in path)
    expected = logits(model)
    layer.weight.mul_(0)
    with pytest.raises(KronpressError, match="were written into, which leaves its codes as they are"):
        layer.weight.sum()
    assert torch.equal(logits(model), expected)


def test_numbers_behind_codes_count(folder: Path) -> None:
    model = load(folder)
    assert model.num_parameters() == footprint(model).parameters == footprint(load(folder, unpack=True)).parameters
    assert model.num_parameters(only_trainable=True) < model.num_parameters() / 10


def test_what_learns_is_cast(folder: Path) -> None:
    model = load(folder)
    expected = logits(model)
    let_learn(model)
    torch.testing.assert_close(logits(model.half()).float(), expected, atol=0.15, rtol=0.1)
