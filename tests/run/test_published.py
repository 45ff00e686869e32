"""Each published system by its shipped recipe: the parameters and operations are exactly those of its paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from kronpress.evaluate import Footprint, footprint
from kronpress.factorize import Factorize
from kronpress.run.recipe import read_recipe
from tests.tiny import bench

HEAD = 50257 * 768
FEED_FORWARD_BIASES = 12 * (3072 + 768)


@pytest.fixture(scope="module")
def gpt2() -> PreTrainedModel:
    return _build(GPT2LMHeadModel, GPT2Config())


@pytest.fixture(scope="module")
def bert() -> PreTrainedModel:
    """BERT-base as kronpress opens it: with the head that the recipes train, and the pooler of its file."""
    model: Any = _build(BertForMaskedLM, BertConfig())
    model.bert.pooler = _build(BertModel, BertConfig(num_hidden_layers=0)).pooler
    opened: PreTrainedModel = model
    return opened


def _build(model_class: Any, config: Any) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = model_class(config)
    return model


def measured(name: str, model: PreTrainedModel, folder: Path, *overrides: str) -> Footprint:
    return footprint(compressed(name, model, folder, *overrides))


def compressed(name: str, model: PreTrainedModel, folder: Path, *overrides: str) -> PreTrainedModel:
    work = bench(model, folder)
    for step in read_recipe(name, overrides=overrides).steps:
        if isinstance(step, Factorize):
            step.check(work)
            step.run(work)
    untied = 0 if work.student.config.tie_word_embeddings else HEAD
    biases = FEED_FORWARD_BIASES if "bias: false" in read_recipe(name).to_yaml() else 0
    assert footprint(work.student).parameters_effective == footprint(model).parameters + untied - biases
    return work.student


KRONY = {
    "krony-67m": 67_893_504,
    "krony-74m": 74_108_376,
    "krony-80m-2f": 80_400_048,
    "krony-81m": 81_972_576,
    "krony-87m": 86_691_144,
    "krony-93m-4f": 92_983_488,
    "krony-96m": 96_128_304,
    "krony-96m-prune": 96_128_304,
}
KRONY_OTHER_SHAPES = {  # the rows of Krony-PT's table I that no recipe is named after, and its sums of small products
    "64, 64": (1, 67_928_832),
    "128, 64": (1, 68_020_224),
    "256, 64": (1, 68_213_376),
    "256, 64 twice": (2, 68_610_048),
    "256, 64 three times": (3, 69_006_720),
    "768, 384": (1, 74_894_784),
    "1024, 384": (1, 77_254_032),
    "1536, 384": (1, 81_972_576),
    "3072, 384": (1, 96_128_304),
    "1024, 256 three times": (3, 86_691_720),
    "3072, 768": (1, 124_439_832),
}
TENSOR_TRAINS = {16: 68_085_504, 32: 71_756_544, 64: 83_606_784, 80: 107_698_944}
KRONECKER_BERT = {  # in the paper, which leaves the head out; as the recipe makes and opens it; GFLOPs
    "5": (20_762_508, 21_385_158, 9.23),
    "8": (14_654_216, 15_276_866, 5.47),
    "21": (5_228_272, 5_850_922, 1.403),
}


@pytest.mark.parametrize("name", KRONY)
def test_krony_pt(name: str, gpt2: PreTrainedModel, tmp_path: Path) -> None:
    found = measured(name, gpt2, tmp_path)
    assert found.parameters == found.parameters_without_head == KRONY[name]
    assert found.parameters_untied == KRONY[name] + HEAD


def test_joint_rank_k(gpt2: PreTrainedModel, tmp_path: Path) -> None:
    rank = 2304 * 768 // 2 // (2304 + 768)
    saved = 12 * (2304 * 768 - rank * (2304 + 768))
    assert measured("joint-rank-k", gpt2, tmp_path).parameters == 124_439_808 - saved == 113_822_976


@pytest.mark.parametrize("shape", KRONY_OTHER_SHAPES)
def test_the_other_shapes_of_krony_pt(shape: str, gpt2: PreTrainedModel, tmp_path: Path) -> None:
    terms, parameters = KRONY_OTHER_SHAPES[shape]
    left = [int(part.split()[0]) for part in shape.split(", ")]
    right = [3072 // left[0], 768 // left[1]]
    changes = (
        f"factorize.form.right={right}",
        f"factorize.form.terms={terms}",
        "factorize.fit=nearest",
        "factorize.blocks=[0]",
    )
    found = measured("krony-96m", gpt2, tmp_path, *changes)
    dense = footprint(gpt2).parameters
    assert dense - 12 * (dense - found.parameters) == parameters, "twelve times what one block saves"


def test_kngpt2(gpt2: PreTrainedModel, tmp_path: Path) -> None:
    found = measured("kngpt2", gpt2, tmp_path)
    assert found.parameters == found.parameters_untied == 122_504_906
    assert found.parameters_without_head == 83_907_530


def test_kngpt2_with_a_tied_head_is_a_language_model_of_the_size_that_the_paper_names(
    gpt2: PreTrainedModel, tmp_path: Path
) -> None:
    found = measured("kngpt2", gpt2, tmp_path, "factorize.head=tied")
    assert found.parameters == found.parameters_without_head == 83_907_530


def test_tqcompressed(gpt2: PreTrainedModel, tmp_path: Path) -> None:
    found = measured("tqcompressed-81m", gpt2, tmp_path, "factorize.form.permute=none")  # which changes no count
    assert found.parameters == 119_933_764
    assert found.parameters_without_head == 81_336_388


@pytest.mark.parametrize("rank", TENSOR_TRAINS)
def test_tensor_trains(rank: int, gpt2: PreTrainedModel, tmp_path: Path) -> None:
    found = measured(f"gpt2-ttm-{rank}", gpt2, tmp_path)
    assert found.parameters == TENSOR_TRAINS[rank]


@pytest.mark.parametrize("size", KRONECKER_BERT)
def test_kronecker_bert(size: str, bert: PreTrainedModel, tmp_path: Path) -> None:
    in_the_paper, as_opened, billions = KRONECKER_BERT[size]
    student = compressed(f"kroneckerbert-{size}", bert, tmp_path)
    size_of = footprint(student)
    assert footprint(student.base_model).parameters == in_the_paper, "pooler included"
    assert size_of.parameters == as_opened
    assert round(128 * size_of.block_flops_per_token / 1e9, 3 if billions < 2 else 2) == billions


def test_the_dense_models_are_counted_alike(gpt2: PreTrainedModel, bert: PreTrainedModel) -> None:
    assert footprint(gpt2).parameters == footprint(gpt2).parameters_effective == 124_439_808
    assert footprint(bert).parameters == 110_104_890
    assert footprint(bert.base_model).parameters == 109_482_240
    assert round(128 * footprint(bert).block_flops_per_token / 1e9, 2) == 21.73
