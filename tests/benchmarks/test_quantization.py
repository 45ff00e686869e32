"""The benchmarks of few bits, on tiny models: what they run, keep and go on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import quantization, quantization_text
from kronpress.checkpoint.files import read_json
from kronpress.distill import Distill
from kronpress.finetune import Finetune
from tests.tiny import TEXT, save_tiny


def test_every_arm_has_stages_that_a_step_takes() -> None:
    epochs = {}
    for name, arm in quantization.ARMS.items():
        step = Finetune.model_validate({"tasks": ["rte"], "losses": {"logits": 1}, **arm})
        assert next(stage.start for stage in step.stages.values()) == "teacher"
        copies = 0 if step.augment is None else step.augment.copies
        epochs[name] = {label: (1 + copies) * (stage.epochs or 0) for label, stage in step.stages.items()}
    stages = list(epochs["progressive"])
    direct = [arm for name, arm in epochs.items() if name in ("direct-2", "direct-1", "direct-1-4", "direct-1-1")]
    assert len(direct) == 4
    for ((label, whole),) in (arm.items() for arm in direct):
        assert whole == sum(epochs["progressive"][stage] for stage in stages[: stages.index(label) + 1])
    assert epochs["direct-2, augmented"] == epochs["direct-2"]
    ternary = {sum(arm.values()) for name, arm in epochs.items() if name.startswith("ternary")}
    assert ternary == {sum(epochs["ternary, TWN"].values())}


def test_every_row_is_a_recipe() -> None:
    assert [step.kind for step in quantization_text.beginning("healed").steps] == ["prune", "distill"]
    rows = quantization_text.rows(["8", "4", "4 of 32", "3", "2"], ["nearest", "compensated", "trained", "progressive"])
    assert [bits for bits, fit in rows if fit == "progressive"] == ["3", "2"]
    for bits, fit in rows:
        steps = quantization_text.recipe("a folder", bits, fit).steps
        once = ["quantize", "distill"] if fit in ("trained", "progressive") else ["quantize"]
        assert [step.kind for step in steps] == once * (2 if fit == "progressive" else 1)
        trained = [step for step in steps if isinstance(step, Distill)]
        assert sum(step.tokens for step in trained) in (0, 100_000)
        assert all(step.teacher == "bundled:smollm2-135m" for step in trained)


def test_rows_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("model"))
    for name, text in (("a", TEXT), ("b", TEXT.upper()), ("c", TEXT[::-1])):
        Path(f"{name}.txt").write_text(text)
    Path("set.yaml").write_text("name: all\ntexts: {c: {source: c.txt, windows: 2, protocol: tokens-64}}\n")
    data, prune = {"train": {"a.txt": 1, "b.txt": 1}}, {"step": "prune", "fit": {"tokens": 256, "window": 32}}
    table = {"model": "model", "data": data, "losses": {"logits": 1}, "starts": {"dense": [], "halved": [prune]}}
    table |= {"bits": {"4": {"scheme": {"weights": 4}, "learning_rate": 1e-4}}, "fits": {"nearest": {"fit": "nearest"}}}
    monkeypatch.setattr(quantization_text, "_TABLE", table)
    command = ["--out", "out", "--texts", "set.yaml", "--json", "result.json"]
    command += ["--starts", "dense", "halved", "--bits", "4", "--fits", "nearest"]
    quantization_text.main(command)
    kept = read_json(Path("result.json"))
    assert list(kept) == ["dense, 4 bits, nearest", "halved, 32 bits", "halved, 4 bits, nearest"]
    assert kept["halved, 32 bits"]["bytes"] > kept["halved, 4 bits, nearest"]["bytes"]
    assert kept["dense, 4 bits, nearest"]["general"] == pytest.approx(kept["dense, 4 bits, nearest"]["c"])
    assert "| dense | 4 | nearest |" in capsys.readouterr().out
    quantization_text.main(command)
    assert read_json(Path("result.json")) == kept
