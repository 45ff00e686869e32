"""Codes that make up for one another on text beat the nearest ones, on every matrix of real models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kronpress.activations import InputMoments, walk
from kronpress.checkpoint import load_with_tokenizer
from kronpress.data import Corpus, read_text
from kronpress.families import layout
from kronpress.layers import Coded, Grid, weight_of
from kronpress.quantize import compensated
from kronpress.quantizers import nearest
from kronpress.step import Workbench

pytestmark = pytest.mark.slow
TOKENS, WINDOW = 8192, 256


def output_error(weight: torch.Tensor, coded: Coded, *, grid: Grid, moment: torch.Tensor) -> float:
    missing = (weight - grid.values(*coded).reshape(weight.shape)).double()
    return float(torch.linalg.vecdot(missing @ moment, missing).sum())


@pytest.mark.parametrize(
    ("name", "levels"), [("minilm-l6", ("int2", "int3", "int4")), ("smollm2-135m", ("int2", "int3"))]
)
def test_outputs_are_nearer_in_every_matrix(name: str, levels: tuple[str, ...], tmp_path: Path) -> None:
    model, tokenizer = load_with_tokenizer(f"bundled:{name}")
    model = model.float()
    text = Corpus("reference", read_text("bundled:python-reference").text[:200_000])
    bench = Workbench(model, None, tokenizer, text, text, tmp_path)
    sites = [site for site in layout(model).sites if site.block is not None]

    def wanted(block: int) -> list[InputMoments]:
        chosen = [site.path for site in sites if site.block == block]
        return [InputMoments(path, layer=model.get_submodule(path)) for path in chosen]

    compared = 0
    for stop in walk(model, bench.training_windows(size=WINDOW, tokens=TOKENS), wanted=wanted, description=name):
        for statistic in stop.statistics:
            weight, moment = weight_of(model.get_submodule(statistic.path)).float(), statistic.second_moment()
            for level in levels:
                grid = Grid.model_validate({"levels": level, "group": 64})
                ours = compensated(weight, grid, moment, rounds=1, ridge=1e-2)
                errors = [
                    output_error(weight, coded, grid=grid, moment=moment)
                    for coded in (ours, nearest(grid.groups(weight), grid))
                ]
                assert errors[0] < errors[1], (statistic.path, level)
                compared += 1
    assert compared == len(sites) * len(levels)
