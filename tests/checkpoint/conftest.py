"""Compressed models to save and open again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from kronpress.checkpoint import save
from kronpress.families import FAMILIES
from kronpress.prune import Prune
from tests.conformance.test_families import build
from tests.tiny import bench, factorized, tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer

BUILDERS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama-tied": tiny_llama,
    "llama-untied": lambda: tiny_llama(tied=False),
    "gpt2-tied": tiny_gpt2,
    "gpt2-untied": lambda: tiny_gpt2(tied=False),
    "bert": tiny_bert,
}


@pytest.fixture(params=BUILDERS)
def dense(request: pytest.FixtureRequest) -> PreTrainedModel:
    return BUILDERS[request.param]()


@pytest.fixture
def compressed(dense: PreTrainedModel, tmp_path: Path) -> PreTrainedModel:
    return factorized(dense, tmp_path)


@pytest.fixture
def narrow(dense: PreTrainedModel, tmp_path: Path) -> PreTrainedModel:
    work = bench(dense, tmp_path)
    Prune(keep=0.5, fit={"tokens": 2048, "window": 64}).run(work)
    return work.student


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with a tied Llama of which every matrix is factored, and its tokenizer."""
    return save(factorized(tiny_llama(), tmp_path), tmp_path / "checkpoint", tokenizer=tiny_tokenizer())


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each model type, with factors in the blocks, in the embedding and in the head."""
    folder = tmp_path_factory.mktemp("families")
    work = folder / "work"
    return {
        name: save(factorized(build(name), work, sites="up,embedding,head"), folder / name, tokenizer=tiny_tokenizer())
        for name in FAMILIES
    }
