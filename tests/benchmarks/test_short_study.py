from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import short_study, short_study_plot
from benchmarks.dirtied import dirtied, texts_of
from benchmarks.short_study import TABLES, Arm, arms, recipe_of
from kronpress.checkpoint.files import read_json
from kronpress.distill import Distill
from kronpress.pretrain import Pretrain
from tests.tiny import TEXT, save_tiny


@pytest.mark.parametrize("table", list(TABLES))
def test_every_arm_is_a_recipe_of_its_own(table: str) -> None:
    recipes = {arm.name: arm.recipe(arm.start, {"train": arm.text}) for arm in arms(table, TABLES[table]["starts"])}
    assert len(recipes) == len({recipe.digest() for recipe in recipes.values()})
    for name, recipe in recipes.items():
        assert isinstance(recipe.steps[0], Pretrain if ", text, " in name else Distill)


@pytest.mark.parametrize("start", list(short_study._TABLE["starts"]))
def test_every_start_is_a_recipe(start: str) -> None:
    steps = short_study._TABLE["starts"][start]
    assert steps == [] or recipe_of("bundled:smollm2-135m", steps).steps


def test_a_dirty_text_has_copies_and_boilerplate_at_the_rates_of_the_study_and_cleaning_takes_them_out(
    tmp_path: Path,
) -> None:
    lines = [
        f"line {number} says that {number} and {number + 1} are {2 * number + 1} all in all." for number in range(400)
    ]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n")
    mixed = dirtied("\n".join(lines), seed=0).splitlines()
    pages = [line for line in mixed if "<" in line]
    assert len(pages) / len(mixed) == pytest.approx(0.2, abs=0.01)
    assert (len(mixed) - len(pages)) / len(lines) == pytest.approx(1 + 0.5 * 2, rel=0.15)
    texts = texts_of({"lines": {"source": str(tmp_path / "text.txt")}}, "cleaned", tmp_path / "texts")
    (shard,) = Path(texts["lines"]["source"]).glob("*.txt")
    assert sorted(shard.read_text().splitlines()) == sorted(lines)


def test_an_arm_is_trained_measured_and_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text(TEXT * 2)
    text = f"{{source: {tmp_path}/text.txt, windows: 1, protocol: tokens-32}}"
    (tmp_path / "texts.yaml").write_text(f"name: general\ntexts: {{lines: {text}}}")
    table: dict[str, Any] = {
        "model": str(save_tiny(tmp_path / "model")),
        "precision": "fp32",
        "data": {"train": {"lines": {"source": str(tmp_path / "text.txt")}}},
        "starts": {"alt": [{"step": "truncate", "keep": 1}]},
        "trainings": {"text": {}},
        "best": {},
        "shapes": {},
        "speeds": {},
        "settings": {"learning_rate": 1e-3, "batch": 1, "window": 32},
    }
    monkeypatch.setattr(short_study, "_TABLE", table)
    monkeypatch.setitem(short_study.TABLES, "rates", {"starts": ["alt"], "trainings": ["text"], "tokens": [64]})
    monkeypatch.setattr(short_study.recipe_of, "__kwdefaults__", {"data": table["data"], "seed": 0})
    result = tmp_path / "result.json"
    asked = ["rates", "--out", str(tmp_path / "out"), "--texts", str(tmp_path / "texts.yaml"), "--json", str(result)]
    short_study.main(asked)
    first = result.read_text()
    rows = read_json(result)
    assert rows["alt, untrained"]["blocks"] == [0]
    assert [row["tokens"] for row in rows.values()] == [0, 64]
    assert all(row["precision"] == "fp32" and row["general"] > 0 for row in rows.values())
    monkeypatch.setattr(short_study, "evaluated", None)
    short_study.main(asked)
    assert result.read_text() == first


def test_the_plot_has_a_point_for_each_arm_of_known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(short_study._TABLE, "speeds", {"truncated, text": 2.0, "dense, text": 1.0})
    arm = {"training": "text", "tokens": 8, "general": 2.0, "text": "whole"}
    rows = [
        {"start": "alt", "rate": 1e-3, **arm},
        {"start": "dense", "rate": 1e-4, **arm},
        {"start": "dense", "rate": 1e-3, **arm},
    ]
    assert short_study_plot.points(rows) == {("alt", "text"): [(4.0, 2.0)], ("dense", "text"): [(8.0, 2.0)]}
    assert short_study_plot.picture(rows).count("<svg") == 1


def test_an_arm_tells_itself_from_others() -> None:
    assert Arm("alt", "text", 60000).name == "alt, text, 60000, 0.0003, seed 0"
