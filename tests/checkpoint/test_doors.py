"""With kronpress imported, every way into a checkpoint gives the same model, which saves the same checkpoint again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertForPreTraining,
    GPT2DoubleHeadsModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralForCausalLM,
    MistralModel,
    PreTrainedModel,
    T5ForConditionalGeneration,
    pipeline,
)

import kronpress
from kronpress import KronpressError
from kronpress.checkpoint import structured_layers
from kronpress.factorize import Factorize
from tests.tiny import bench, factorized, factors_of, logits, some_ids, tiny_bert, tiny_gpt2, tiny_llama

CONCRETE = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "bert": "BertForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
}
IDS = some_ids().clamp_min(2)  # 1 is RoBERTa's padding


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


@pytest.mark.parametrize("model_type", CONCRETE)
def test_every_door_gives_the_same_model(model_type: str, families: dict[str, Path], tmp_path: Path) -> None:
    folder, concrete = families[model_type], getattr(transformers, CONCRETE[model_type])
    expected = kronpress.load(folder)
    auto = AutoModelForMaskedLM if "MaskedLM" in concrete.__name__ else AutoModelForCausalLM
    opened = {
        "auto": auto.from_pretrained(folder),
        "concrete": concrete.from_pretrained(folder),
        "with our config": concrete.from_pretrained(folder, config=AutoConfig.from_pretrained(folder)),
        "with their config": concrete.from_pretrained(folder, config=concrete.config_class.from_pretrained(folder)),
    }
    for door, model in opened.items():
        assert type(model) is type(expected) and isinstance(model, concrete), door
        assert torch.equal(logits(model, IDS), logits(expected, IDS)), door
        again = tmp_path / door
        model.save_pretrained(again)
        assert config_of(again) == config_of(folder), door
        assert {path.name for path in again.glob("*.safetensors*")} == {
            "kronpress.safetensors",
            "kronpress.safetensors.index.json",
        }
        assert torch.equal(logits(concrete.from_pretrained(again), IDS), logits(expected, IDS)), door


@pytest.mark.parametrize("model_type", CONCRETE)
def test_a_config_builds_the_structured_model(model_type: str, families: dict[str, Path], tmp_path: Path) -> None:
    folder, concrete = families[model_type], getattr(transformers, CONCRETE[model_type])
    whole = kronpress.load(folder)
    auto = AutoModelForMaskedLM if "MaskedLM" in concrete.__name__ else AutoModelForCausalLM
    config = AutoConfig.from_pretrained(folder)
    for build in (auto.from_config, concrete, concrete._from_config):
        torch.manual_seed(3)
        first = build(config)
        torch.manual_seed(3)
        second = build(AutoConfig.from_pretrained(folder))
        assert type(first) is type(second) is type(whole)
        assert {path: layer.spec for path, layer in structured_layers(first).items()} == {
            path: layer.spec for path, layer in structured_layers(whole).items()
        }
        assert first.num_parameters() == whole.num_parameters()
        for name, value in first.state_dict().items():
            assert torch.equal(value, second.state_dict()[name]), name
        assert logits(first, IDS).isfinite().all()
        assert logits(first, IDS).std() > 1e-4
    first.save_pretrained(tmp_path / "fresh")
    assert torch.equal(logits(kronpress.load(tmp_path / "fresh"), IDS), logits(first, IDS))


def test_new_factors_are_as_large_as_new_weights(checkpoint: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint))
    for path, layer in structured_layers(model).items():
        deviation = layer.to_dense().weight.std()
        assert 0.5 < deviation / model.config.initializer_range < 2, path


def test_new_cores_are_drawn_though_a_list_of_the_layer_holds_them(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    Factorize(form={"name": "tensor_train", "rank": 4}, fit="nearest", sites="feed_forward").run(work)
    kronpress.save(work.student, tmp_path / "saved")
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path / "saved")))
    for path, layer in structured_layers(models[0]).items():
        weight, other = layer.dense_weight(), models[1].get_submodule(path).dense_weight()
        assert 0.1 < weight.std() / models[0].config.initializer_range < 5 and not torch.equal(weight, other), path


def test_a_tied_head_shares_the_factors_of_a_new_model(checkpoint: Path) -> None:
    model = LlamaForCausalLM(AutoConfig.from_pretrained(checkpoint))
    assert model.get_input_embeddings().left is factors_of(model.get_output_embeddings()).left
    half = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_bert])
def test_the_model_below_a_head_is_saved_and_opened(build: Callable[[], Any], tmp_path: Path) -> None:
    model = kronpress.load(kronpress.save(factorized(build(), tmp_path), tmp_path / "whole"))
    described = dict(model.config.quantization_config.modules)
    model.base_model.save_pretrained(tmp_path / "base")
    assert model.config.quantization_config.modules == described
    for door in (AutoModel, type(build().base_model)):
        base = door.from_pretrained(tmp_path / "base")
        assert len(structured_layers(base)) == len(described) - 1  # no head
        with torch.no_grad():
            hidden = [each.eval()(IDS)[0] for each in (base, model.base_model)]
        assert torch.equal(*hidden)


def test_other_heads_get_the_same_factors(families: dict[str, Path]) -> None:
    for model_class, folder in ((GPT2DoubleHeadsModel, families["gpt2"]), (BertForPreTraining, families["bert"])):
        model = model_class.from_pretrained(folder)
        assert type(model).__name__ == f"Kronpress{model_class.__name__}"
        assert structured_layers(model).keys() == structured_layers(kronpress.load(folder)).keys()
    classifier = AutoModelForSequenceClassification.from_pretrained(families["bert"], num_labels=3)
    assert classifier.config.num_labels == 3
    assert len(structured_layers(classifier)) == len(structured_layers(kronpress.load(families["bert"]))) - 1


def test_a_pipeline_takes_it_and_nothing_warns(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    transformers.logging.enable_propagation()
    try:
        writer = pipeline("text-generation", model=str(checkpoint), device="cpu")
        LlamaForCausalLM.from_pretrained(checkpoint)
    finally:
        transformers.logging.disable_propagation()
    assert type(writer.model).__name__ == "KronpressLlamaForCausalLM"
    assert writer("line 1", max_new_tokens=4)[0]["generated_text"].startswith("line 1")
    assert "not supported" not in caplog.text  # neither by the pipeline nor by a class for `llama`


def test_a_class_of_another_family_is_refused(checkpoint: Path) -> None:
    with pytest.raises(KronpressError, match="cannot describe a model with structured layers"):
        T5ForConditionalGeneration.from_pretrained(checkpoint)

    for relative in (MistralForCausalLM, MistralModel):
        with pytest.raises(KronpressError, match="holds a kronpress_llama model, which no MistralConfig describes"):
            relative.from_pretrained(checkpoint)

    class Mine(LlamaForCausalLM):
        pass

    with pytest.raises(KronpressError, match="Mine is not a model class that kronpress can open"):
        Mine.from_pretrained(checkpoint)


def test_plain_models_stay_plain(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "plain")
    for model in (LlamaForCausalLM.from_pretrained(tmp_path / "plain"), LlamaForCausalLM(tiny_llama().config)):
        assert type(model) is LlamaForCausalLM and type(model.config) is LlamaConfig
        model.save_pretrained(tmp_path / "again")
        assert (tmp_path / "again" / "model.safetensors").exists()


def test_weights_of_the_first_format_are_read(checkpoint: Path) -> None:
    expected = logits(kronpress.load(checkpoint))
    (checkpoint / "kronpress.safetensors").rename(checkpoint / "model.safetensors")
    (checkpoint / "kronpress.safetensors.index.json").unlink()
    config = config_of(checkpoint)
    config["quantization_config"]["format_version"] = 1
    (checkpoint / "config.json").write_text(json.dumps(config))
    models: list[PreTrainedModel] = [kronpress.load(checkpoint), LlamaForCausalLM.from_pretrained(checkpoint)]
    for model in models:
        assert torch.equal(logits(model), expected)


def test_a_variant_is_refused_and_only_the_main_process_writes(checkpoint: Path, tmp_path: Path) -> None:
    model = kronpress.load(checkpoint)
    with pytest.raises(KronpressError, match="leave `variant` out"):
        model.save_pretrained(tmp_path / "variant", variant="fp16")
    model.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not list((tmp_path / "other").glob("*.safetensors*"))


def test_shards_of_an_earlier_save_go(checkpoint: Path, tmp_path: Path) -> None:
    model = kronpress.load(checkpoint)
    model.save_pretrained(tmp_path / "saved", max_shard_size="8KB")
    assert len(list((tmp_path / "saved").glob("kronpress-*.safetensors"))) > 1
    model.save_pretrained(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").glob("*.safetensors")] == ["kronpress.safetensors"]
    assert torch.equal(logits(kronpress.load(tmp_path / "saved")), logits(model))


def test_what_is_pushed_has_its_own_name(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = kronpress.load(checkpoint)
    sent: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(type(model), "push_to_hub", lambda _, name, **options: sent.append((name, options)))
    model.save_pretrained(tmp_path / "mine", push_to_hub=True, commit_message="first")
    model.save_pretrained(tmp_path / "mine", push_to_hub=True, repo_id="me/mine", private=True)
    size = {"max_shard_size": "50GB"}
    assert sent == [("mine", {"commit_message": "first"} | size), ("me/mine", {"private": True} | size)]
    assert (tmp_path / "mine" / "kronpress.safetensors").exists()
