"""Leaving one kind of text out: which runs are made, what is measured of them, and what is compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import experiment, leave_one_out
from benchmarks import measured as measured_runs
from kronpress.checkpoint.files import read_json
from kronpress.errors import KronpressError
from kronpress.evaluate.text_set import TextSetFile
from kronpress.run import execute, read_recipe
from tests.tiny import save_tiny, tiny_llama

KINDS = ("apple", "bread", "cheese")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A recipe on three kinds of text, and a set of texts to measure on; the arguments that name them."""
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "model", tiny_llama(num_hidden_layers=1))
    for kind in KINDS:
        for part in ("train", "dev"):
            lines = [f"the {number}th {kind} is no {part} and {number * number}" for number in range(300)]
            Path(f"{kind}.{part}.txt").write_text("\n".join(lines) + "\n")
    train = ", ".join(f"{kind}: {{source: {kind}.train.txt}}" for kind in KINDS)
    texts = ", ".join(f"{kind}: {{source: {kind}.dev.txt, windows: 4, protocol: tokens-32}}" for kind in KINDS)
    Path("recipe.yaml").write_text(
        f"model: model\nprecision: fp32\ndata: {{train: {{{train}}}}}\n"
        "steps: [{step: prune, fit: {tokens: 8192, window: 32}}]\n"
    )
    Path("set.yaml").write_text(f"name: food\ntexts: {{{texts}}}\n")
    return ("recipe.yaml", "--texts", "set.yaml", "--out", "out")


def test_each_kind_is_compared_with_the_run_that_saw_it(
    files: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    leave_one_out.main(files)
    result = read_json(Path("out/leave-one-out.json"))
    assert (result["texts"], [kind["name"] for kind in result["kinds"]]) == ("food", list(KINDS))
    files_of = {path.name.rpartition("-")[0]: read_json(path) for path in Path("out").glob("*-????????????.json")}
    ratios = {
        run: {text["name"]: text["perplexity"]["ratio"] for text in record["texts"]["texts"]}
        for run, record in files_of.items()
    }
    assert ratios.keys() == {"all", *(f"without-{kind}" for kind in KINDS)}
    product = 1.0
    for kind in result["kinds"]:
        seen, unseen = ratios["all"][kind["name"]], ratios[f"without-{kind['name']}"][kind["name"]]
        assert (kind["seen"], kind["unseen"]) == (seen, unseen) and seen != unseen
        assert kind["unseen_over_seen"] == unseen / seen
        product *= unseen / seen
    assert result["unseen_over_seen"] == pytest.approx(product ** (1 / 3))
    assert result["general"] == files_of["all"]["texts"]["general"]
    manifest = json.loads(Path("out/without-bread/manifest.json").read_text())
    rest = {kind: {"source": f"{kind}.train.txt"} for kind in ("apple", "cheese")}
    alone = execute(read_recipe("recipe.yaml", fields={"data": {"train": rest}}), Path("alone"))
    assert manifest["data"] == alone.manifest().data, "a run without a kind is one that never knew it"
    assert f"| bread | {ratios['all']['bread']:.3f} |" in capsys.readouterr().out


def test_a_study_goes_on_where_it_was_left(files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    leave_one_out.main([*files, "--only", "bread"])
    assert {path.name for path in Path("out").iterdir() if path.is_dir()} == {"all", "without-bread"}
    before = read_json(Path("out/leave-one-out.json"))
    assert [kind["name"] for kind in before["kinds"]] == ["bread"]
    measured = []
    original = measured_runs.Evaluation.compare
    monkeypatch.setattr(
        measured_runs.Evaluation,
        "compare",
        lambda self, *models, stage, **options: (
            measured.append(stage) or original(self, *models, stage=stage, **options)
        ),
    )
    leave_one_out.main([*files, "--only", "apple"])
    after = read_json(Path("out/leave-one-out.json"))
    assert measured == ["without-apple"]
    assert [kind["name"] for kind in after["kinds"]] == ["apple", "bread"]
    assert after["kinds"][1] == before["kinds"][0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-o", "data.train=apple.train.txt"], "the recipe trains on one text; name two or more kinds"),
        (["-o", "data.train.dates.source=x.txt"], "the set of texts food has none called dates .* but apple, bread"),
        (["--only", "dates"], "the recipe trains on no dates; choose of apple, bread, cheese"),
    ],
)
def test_a_mistake_is_explained(more: list[str], message: str, files: tuple[str, ...]) -> None:
    with pytest.raises(KronpressError, match=message):
        leave_one_out.main([*files, *more])
    assert not Path("out").exists()


def test_the_recipe_and_the_set_that_come_along_have_the_same_kinds() -> None:
    texts = TextSetFile.model_validate(experiment.table("general"))
    train = experiment.recipe("leave-one-out").data.train
    assert isinstance(train, dict) and list(train) == list(texts.texts)
    assert train["reference"].source == texts.texts["reference"].source == "bundled:python-reference"
    assert texts.texts["reference"].held_out == 0.1, "what a run holds out of the same text"
