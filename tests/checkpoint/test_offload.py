"""Checkpoints whose weights stay on disk: the same answers, or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from kronpress import KronpressError
from kronpress.checkpoint import save
from kronpress.factorize import Factorize
from tests.tiny import bench, factorized, logits, tiny_bert, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
GROUPS = [{"tokens": 20, "terms": 3}, {"tokens": 40, "terms": 2}]
PARTS = ("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head")
IN_MEMORY = dict.fromkeys(PARTS, "cpu")
FORMS: dict[str, dict[str, Any]] = {
    "products": {"method": {"name": "van_loan", "right": (2, 2)}, "sites": "all,embedding"},
    "permuted": {"method": {"name": "van_loan", "right": (1, 2), "permute": "all"}, "sites": "embedding"},
    "untied": {"method": {"name": "van_loan", "right": (2, 2)}, "sites": "embedding", "head": "untied"},
    "nested": {"method": {"name": "van_loan", "right": (2, 2), "levels": 2}, "sites": "embedding"},
    "grouped": {"method": {"name": "van_loan_frequency", "groups": GROUPS, "right": (1, 4)}, "sites": "embedding"},
    "trains": {"method": {"name": "tensor_train", "rank": 3}, "sites": "all"},
    "rows of trains": {"method": {"name": "tensor_train_rows", "rank": 2}, "sites": "embedding"},
    "monarch": {"method": {"name": "monarch", "blocks": 2}, "sites": "all"},
    "low rank and rows": {"method": "losparse", "sites": "all"},
    "low rank": {"method": {"name": "svd", "ratio": 0.5}, "sites": "feed_forward"},
}
MAPS: dict[str, dict[str, Any]] = {
    "all on disk": {"device_map": {"": "disk"}},
    "blocks on disk": {"device_map": IN_MEMORY | {"model.layers": "disk"}},
    "tables on disk": {"device_map": IN_MEMORY | {"model.embed_tokens": "disk", "lm_head": "disk"}},
    "little memory": {"device_map": "auto", "max_memory": {"cpu": "12KB"}},
    "no memory": {"device_map": "auto", "max_memory": {"cpu": "1KB"}},
}


def opened(folder: Path, **options: Any) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, offload_folder=folder / "away", **options)
    return model


@pytest.mark.parametrize("form", list(FORMS))
def test_weights_on_disk_give_the_same_answers(tmp_path: Path, form: str) -> None:
    work = bench(tiny_llama(), tmp_path)
    Factorize(**FORMS[form]).run(work)
    folder = save(work.student, tmp_path / "checkpoint")
    expected = logits(AutoModelForCausalLM.from_pretrained(folder))
    for name, options in MAPS.items():
        model = opened(folder, **options)
        for _ in range(2):  # what the first call brought in is taken away before the second
            torch.testing.assert_close(logits(model), expected, msg=name)


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_bert])
def test_other_families_read_a_tied_table_from_disk(tmp_path: Path, build: Callable[[], PreTrainedModel]) -> None:
    folder = save(factorized(build(), tmp_path), tmp_path / "checkpoint")
    auto = AutoModelForMaskedLM if build is tiny_bert else AutoModelForCausalLM
    expected = logits(auto.from_pretrained(folder))
    model = auto.from_pretrained(folder, device_map={"": "disk"})
    torch.testing.assert_close(logits(model), expected)


@pytest.mark.parametrize("offload", [accelerate.cpu_offload, accelerate.disk_offload])
def test_a_model_is_offloaded_after_it_was_opened(checkpoint: Path, offload: Callable[..., Any]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    expected = logits(model)
    places = (checkpoint / "away",) if offload is accelerate.disk_offload else ()
    offload(model, *places, execution_device=torch.device("cpu"))
    torch.testing.assert_close(logits(model), expected)


@pytest.mark.parametrize("path", ["model.embed_tokens", "lm_head"])
def test_one_half_of_a_tie_on_disk_is_refused(checkpoint: Path, path: str) -> None:
    with pytest.raises(KronpressError, match=r"device_map puts .* are tied; put both on disk or neither"):
        opened(checkpoint, device_map=IN_MEMORY | {path: "disk"})


def test_an_order_that_ties_share_stays_in_memory(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    Factorize(**FORMS["permuted"]).run(work)
    folder = save(work.student, tmp_path / "checkpoint")
    with pytest.raises(KronpressError, match=r"'lm_head\.table' shares the order .* leave offload_buffers out"):
        opened(folder, device_map={"": "disk"}, offload_buffers=True)


def test_a_model_without_values_computes_shapes(checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, device_map={"": "meta"})
    assert model(input_ids=torch.zeros(1, 5, dtype=torch.long, device="meta")).logits.shape == (1, 5, 264)
