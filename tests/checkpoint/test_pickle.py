"""Structured models and configs between processes: pickled, copied, and given to a process that starts afresh."""

from __future__ import annotations

import copy
import importlib
import pickle
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

import kronpress
from kronpress.checkpoint import structured_layers
from tests.tiny import factorized, factors_of, logits, tiny_gpt2, tiny_llama

WORKER = """
import pickle, sys
import torch

loaded_before = "kronpress" in sys.modules


def work(rank, opened, compressed, base, config, folder):
    assert not loaded_before, "the process had kronpress before it was given the models"
    from transformers import AutoModelForCausalLM
    expected = torch.load(f"{folder}/expected.pt")
    for model in (opened, compressed, torch.load(f"{folder}/model.pt", weights_only=False)):
        with torch.no_grad():
            assert torch.equal(model(input_ids=torch.arange(12)[None]).logits, expected)
        assert model.lm_head.table is model.get_input_embeddings()
    opened.save_pretrained(f"{folder}/again")
    new = AutoModelForCausalLM.from_config(config)
    names = [type(value).__name__ for value in (opened, compressed, base, config, new)]
    with open(f"{folder}/names.txt", "w") as stream:
        stream.write(" ".join(names))
"""


@pytest.fixture(params=[tiny_llama, tiny_gpt2])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> PreTrainedModel:
    student: PreTrainedModel = factorized(request.param(), tmp_path)
    return student


def test_a_copy_is_the_same_model(model: PreTrainedModel, tmp_path: Path) -> None:
    opened = kronpress.load(kronpress.save(model, tmp_path / "saved"))
    for original in (model, opened):
        for twin in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
            assert type(twin) is type(original)
            assert torch.equal(logits(twin), logits(original))
            assert twin.get_input_embeddings().left is factors_of(twin.get_output_embeddings()).left
            assert twin.get_input_embeddings().left is not original.get_input_embeddings().left
    config = pickle.loads(pickle.dumps(opened.config))
    assert type(config) is type(opened.config)
    assert config.to_dict() == opened.config.to_dict() == copy.deepcopy(config).to_dict()
    assert config.quantization_config.modules.keys() == structured_layers(opened).keys()
    assert type(AutoModel.from_config(pickle.loads(pickle.dumps(AutoConfig.from_pretrained(tmp_path / "saved")))))


def test_a_new_process_is_given_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kronpress_worker.py").write_text(WORKER)
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("kronpress_worker").work
    student = factorized(tiny_llama(), tmp_path).eval()
    opened = kronpress.load(kronpress.save(student, tmp_path / "saved"))
    expected = logits(opened, torch.arange(12)[None])
    torch.save(expected, tmp_path / "expected.pt")
    torch.save(opened, tmp_path / "model.pt")
    torch.multiprocessing.spawn(work, args=(opened, student, opened.model, opened.config, str(tmp_path)))
    assert (tmp_path / "names.txt").read_text().split() == [
        "KronpressLlamaForCausalLM",
        "KronpressLlamaForCausalLM",
        "KronpressLlamaModel",
        "KronpressLlamaConfig",
        "KronpressLlamaForCausalLM",
    ]
    assert torch.equal(logits(kronpress.load(tmp_path / "again"), torch.arange(12)[None]), expected)
