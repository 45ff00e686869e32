from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import calibrated
from benchmarks.calibrated import MODELS, recipe_of
from kronpress.checkpoint.files import read_json
from kronpress.families import layout
from kronpress.run.recipe import shares_of
from kronpress.step import Workbench
from tests.tiny import TEXT, bench, save_tiny, tiny_llama


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_made(name: str, tmp_path: Path) -> None:
    recipe = recipe_of(name, "novel")
    assert "novel" not in recipe.data.train
    assert recipe_of(name, self_text=4096).data.train == "self"
    shares = shares_of(recipe_of(name, twice="novel").data.train)
    assert shares["novel"].weight == 2 * shares["news"].weight
    sizes = {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30}
    work: Workbench = bench(tiny_llama(**sizes), tmp_path)
    assert len(layout(work.student).attentions) == 30
    for step in recipe.steps:
        step.check(work)


def test_models_are_made_measured_and_not_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {}
    for name, text in (("novel", TEXT), ("news", TEXT[::-1])):
        (tmp_path / f"{name}.txt").write_text(text * 2)
        sources[name] = {"source": str(tmp_path / f"{name}.txt")}
    texts = {name: {**source, "windows": 1, "protocol": "tokens-32"} for name, source in sources.items()}
    (tmp_path / "texts.yaml").write_text(f"name: small\ntexts: {texts}")
    table: dict[str, Any] = {"model": str(save_tiny(tmp_path / "model")), "data": {"train": sources}}
    monkeypatch.setattr(calibrated, "_TABLE", table)
    fit = {"tokens": 512, "window": 32}
    monkeypatch.setitem(MODELS, "half", [{"step": "prune", "keep": 0.5, "fit": fit}])
    paths = {"out": tmp_path / "out", "json": tmp_path / "result.json", "texts": tmp_path / "texts.yaml"}
    asked = ["half", *(word for name, path in paths.items() for word in (f"--{name}", str(path)))]
    calibrated.main([*asked, "--without", "novel"])
    calibrated.main(asked)
    rows = read_json(paths["json"])
    assert set(rows) == {"half", "half, without novel"}
    assert rows["half"]["general"] == pytest.approx((rows["half"]["novel"] * rows["half"]["news"]) ** 0.5)
    assert rows["half"]["novel"] != rows["half, without novel"]["novel"]
    monkeypatch.setattr(calibrated, "recipe_of", lambda *_, **__: None)
    calibrated.main(asked)
    assert read_json(paths["json"]) == rows
