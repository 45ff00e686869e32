from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertModel

from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.pretrain import Pretrain
from kronpress.quantize import Quantize
from kronpress.step import Workbench
from kronpress.train import log, read_log
from kronpress.train.trainer import DistillationTrainer
from kronpress.truncate import Truncate
from kronpress.validation import parse
from tests.tiny import TEXT, bench, tiny_bert, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.usefixtures("in_float32")

STEPS = 8


def step(**fields: Any) -> Pretrain:
    fixed = {"window": 32, "batch": 4, "learning_rate": 5e-3, "save_every": 4}
    length = {} if "epochs" in fields else {"tokens": STEPS * 4 * 32}
    return Pretrain(**(fixed | length | fields))


def weights(work: Workbench) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in work.student.state_dict().items()}


def test_a_truncated_model_learns_with_no_teacher_in_memory(tmp_path: Path) -> None:
    work = bench(tiny_llama(num_hidden_layers=4), tmp_path)
    Truncate(keep=2).run(work)
    work.dense = None
    report = step(tokens=24 * 4 * 32).run(work)
    losses = [point.loss for point in report.curve]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert report.parts.keys() == {"cross_entropy"} and not Pretrain(tokens=1).needs().teacher


def test_it_is_distillation_with_cross_entropy_alone(tmp_path: Path) -> None:
    pretrained, distilled = (bench(tiny_llama(), tmp_path / name) for name in ("pretrain", "distill"))
    fields = {"window": 32, "batch": 4, "learning_rate": 5e-3, "tokens": 256}
    Pretrain(**fields, smoothing=0.1).run(pretrained)
    Distill(**fields, losses={"cross_entropy": {"smoothing": 0.1}}).run(distilled)
    assert all(torch.equal(value, distilled.student.state_dict()[name]) for name, value in weights(pretrained).items())


def test_from_random_weights_every_matrix_is_drawn_anew_factors_included(tmp_path: Path) -> None:
    works = [bench(tiny_llama(initializer_range=0.05), tmp_path / str(number)) for number in range(3)]
    for work in works:
        Factorize(method={"name": "tensor_train", "rank": 4}, sites="feed_forward").run(work)
    before, works[2].seed = weights(works[0]), 1
    for work in works:
        step(start="random", tokens=1, learning_rate=1e-12).run(work)
    drawn, again, other = map(weights, works)
    for name, value in drawn.items():
        assert torch.equal(value, again[name])
        if value.dim() > 1:
            assert not torch.allclose(value, before[name], atol=1e-4) and not torch.equal(value, other[name]), name
    query = drawn["model.layers.0.self_attn.q_proj.weight"]
    down = works[0].student.model.layers[0].mlp.down_proj.dense_weight().detach()
    assert query.std() == pytest.approx(0.05, rel=0.3) and down.std() == pytest.approx(0.05, rel=0.5)
    assert works[0].student.lm_head.weight is works[0].student.model.embed_tokens.weight


def test_from_random_weights_what_is_on_grids_is_drawn_too(tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    Quantize(weights={"bits": 4, "group": 8}).run(work)
    before = {path: weight_of(layer) for path, layer in layers_of(work.student.model.layers[0])}
    step(start="random", tokens=1, learning_rate=1e-12).run(work)
    for path, layer in layers_of(work.student.model.layers[0]):
        pair = torch.stack([before[path].flatten(), weight_of(layer).flatten()])
        assert pair.corrcoef()[0, 1].abs() < 0.3, path


def layers_of(block: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    return [(path, layer) for path, layer in block.named_modules() if path.endswith("proj")]


def weight_of(layer: torch.nn.Module) -> torch.Tensor:
    """What a quantized layer multiplies with: its outputs for unit vectors."""
    with torch.no_grad():
        outputs: torch.Tensor = layer(torch.eye(layer.in_features))
    return outputs.T.clone()


def test_frozen_layers_stay_as_they_are(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    before = weights(work)
    step(frozen=["positions", "up"]).run(work)
    after = work.student.state_dict()
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    expected = {name for name in before if "wpe" in name or "c_fc" in name}
    assert still == expected and all(parameter.requires_grad for parameter in work.student.parameters())
    with pytest.raises(KronpressError, match="frozen: did you mean 'positions'"):
        step(frozen=["position"]).check(work)


@pytest.mark.parametrize(("epochs", "shares"), [(2, 2.0), (0.5, 0.5)])
def test_epochs_read_the_whole_text_so_often(epochs: float, shares: float, tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path, text=TEXT[: len(TEXT) // 10])
    windows = len(work.training_windows(size=32))
    assert windows > 10
    report = step(epochs=epochs, batch=1).run(work)
    assert report.steps == round(shares * windows + 0.49)


def test_an_encoder_guesses_masked_tokens(tmp_path: Path) -> None:
    report = step(tokens=24 * 4 * 32).run(bench(tiny_bert(), tmp_path))
    losses = [point.loss for point in report.curve]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_seconds_are_counted_over_all_sittings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: Iterator[int] = iter(range(10**6))
    monkeypatch.setattr(log.time, "perf_counter", lambda: float(next(ticks)))
    work, calls = bench(tiny_llama(), tmp_path), iter(range(10**6))
    compute = DistillationTrainer.compute_loss

    def compute_or_stop(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return compute(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "compute_loss", compute_or_stop)
        with pytest.raises(KeyboardInterrupt):
            step().run(work)
    stopped = [line["seconds"] for line in read_log(tmp_path / "train.jsonl")]
    report = step().run(bench(tiny_llama(), tmp_path))
    seconds = [line["seconds"] for line in read_log(tmp_path / "train.jsonl")]
    assert seconds[:2] == stopped and seconds == sorted(seconds) and seconds[2] > stopped[-1]
    assert report.seconds > seconds[-1] and report.devices == 1
    assert replace(report, seconds=1800, devices=4).device_hours == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either tokens, or epochs"),
        ({"tokens": 5, "epochs": 1}, "either tokens, or epochs"),
        ({"tokens": 5, "losses": {"logits": 1}}, "unknown key 'losses'"),
        ({"tokens": 5, "start": "scratch"}, "start is 'scratch'"),
        ({"tokens": 5, "betas": [0.9, 1]}, "betas.1 is 1"),
        ({"tokens": 5, "validation_windows": 3}, "would not be read; set validate_every"),
    ],
)
def test_a_mistake_is_refused_with_the_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        parse(Pretrain, fields, place="steps.0 (pretrain)")


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    work = bench(BertModel(tiny_bert().config), tmp_path)
    with pytest.raises(KronpressError, match="BertModel has no output head"):
        step().check(work)
