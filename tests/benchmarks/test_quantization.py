"""The benchmarks of few bits, on tiny models: what they run, keep and go on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import quantization, quantization_text
from kronpress.checkpoint.files import read_json
from kronpress.finetune import Finetune
from tests.tiny import TEXT, save_tiny


def test_every_arm_has_stages_that_a_step_takes() -> None:
    epochs = {}
    for name, arm in quantization.ARMS.items():
        step = Finetune.model_validate({"tasks": ["rte"], "losses": {"logits": 1}, **arm})
        assert next(stage.start for stage in step.stages.values()) == "teacher"
        copies = 0 if step.augment is None else step.augment.copies
        epochs[name] = {label: (1 + copies) * (stage.epochs or 0) for label, stage in step.stages.items()}
    progressive = list(epochs["progressive"].values())
    two = list(epochs["progressive"]).index("w2a8") + 1
    for name, budget in (("direct-2", progressive[:two]), ("direct-1", progressive)):
        assert sum(epochs[name].values()) == sum(budget)
    assert epochs["direct-2, augmented"] == epochs["direct-2"]
    ternary = {sum(arm.values()) for name, arm in epochs.items() if name.startswith("ternary")}
    assert ternary == {sum(epochs["ternary, TWN"].values())}


def test_every_row_is_a_recipe() -> None:
    rows = quantization_text.rows(
        ["dense", "halved"], ["32", "8", "4", "4 of 32", "3", "2"], ["nearest", "compensated", "healed"]
    )
    assert len(rows) == 32
    for row in rows:
        steps = quantization_text.recipe(*row).steps
        assert [step.kind for step in steps] == [
            *(["prune"] if row[0] == "halved" else []),
            *(["quantize"] if row[1] != "32" else []),
            *(["distill"] if row[2] == "healed" else []),
        ]


def test_rows_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("model"))
    for name, text in (("a", TEXT), ("b", TEXT.upper()), ("c", TEXT[::-1])):
        Path(f"{name}.txt").write_text(text)
    Path("set.yaml").write_text("name: all\ntexts: {c: {source: c.txt, windows: 2, protocol: tokens-64}}\n")
    small = {"bits": {"4": {"weights": 4}}, "starts": {"dense": []}, "fits": {"nearest": []}}
    table = {"data": {"train": {"a.txt": 1, "b.txt": 1}}, **small}
    monkeypatch.setattr(quantization_text, "_TABLE", table)
    made = quantization_text.make_recipe
    monkeypatch.setattr(quantization_text, "make_recipe", lambda content: made({**content, "model": "model"}))
    command = ["--out", "out", "--texts", "set.yaml", "--json", "result.json"]
    quantization_text.main(command)
    kept = read_json(Path("result.json"))
    assert list(kept) == ["dense, 4 bits, nearest"]
    assert kept["dense, 4 bits, nearest"]["general"] == pytest.approx(kept["dense, 4 bits, nearest"]["c"])
    assert "| dense | 4 | nearest |" in capsys.readouterr().out
    quantization_text.main(command)
    assert read_json(Path("result.json")) == kept
