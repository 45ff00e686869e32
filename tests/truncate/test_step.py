from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import kronpress
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.layers import structured_layers
from kronpress.prune import Prune
from kronpress.quantize import Quantize
from kronpress.records import RepairMeasure, TruncateRecord
from kronpress.truncate import CHOICES, Truncate
from kronpress.truncate.blocks import sharing
from kronpress.truncate.choice import apart, calibration
from kronpress.truncate.judge import Judge
from kronpress.truncate.repair import Repair
from kronpress.validation import parse
from tests import tiny
from tests.conformance.test_families import build, ids

DEPTH = 5


def deep(**fields: Any) -> PreTrainedModel:
    return tiny.tiny_llama(num_hidden_layers=DEPTH, **fields)


def silenced(model: PreTrainedModel, *blocks: int) -> PreTrainedModel:
    """A model of which some blocks add nothing to the stream."""
    with torch.no_grad():
        for block in (model.model.layers[index] for index in blocks):
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return model


def test_blocks_without_influence_go(tmp_path: Path) -> None:
    work = tiny.bench(silenced(deep(), 1, 3), tmp_path)
    record = Truncate(keep=3, blocks={"name": "influence", "tokens": 512}).run(work)
    assert record.kept == (0, 2, 4)
    torch.testing.assert_close(tiny.logits(work.student, ids()), tiny.logits(work.teacher, ids()))


def test_influence_is_one_minus_the_cosine_of_what_enters_and_leaves(tmp_path: Path) -> None:
    work = tiny.bench(deep(), tmp_path)
    with torch.no_grad():
        states = work.teacher(input_ids=calibration(work, tokens=256), output_hidden_states=True).hidden_states
    record = Truncate(keep=2, blocks={"name": "influence", "tokens": 256}).run(work)
    for entry in record.measured[:-1]:  # the last of the states went through the final norm
        turned = torch.cosine_similarity(states[entry.block], states[entry.block + 1], dim=-1)
        assert entry.value == pytest.approx(1 - float(turned.mean()), rel=1e-2)


def test_greedy_measures_the_loss_of_the_model_without_the_block(tmp_path: Path) -> None:
    work = tiny.bench(deep(), tmp_path)
    judge = Judge.of(work.teacher, calibration(work, tokens=512))
    record = Truncate(keep=2, blocks={"name": "greedy", "tokens": 512}).run(work)
    losses = []
    for block in range(DEPTH):
        alone = tiny.bench(work.teacher, tmp_path / str(block))
        Truncate(blocks=[other for other in range(DEPTH) if other != block]).run(alone)
        losses.append(judge.loss(alone.student))
    assert record.measured[0].block == losses.index(min(losses))
    assert record.measured[0].value == pytest.approx(min(losses), rel=1e-4)
    assert record.measured[-1].value == pytest.approx(judge.loss(work.student), rel=1e-4)


def test_an_interrupted_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, measured = tiny.bench(deep(), tmp_path), []
    loss = Judge.loss

    def counted(self: Judge, model: PreTrainedModel) -> float:
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append(model)
        return loss(self, model)

    step = Truncate(keep=2, blocks={"name": "greedy", "tokens": 512})
    with monkeypatch.context() as patch:
        patch.setattr(Judge, "loss", counted)
        with pytest.raises(KeyboardInterrupt):
            step.run(work)
        assert len(work.student.model.layers) == DEPTH
    with monkeypatch.context() as patch:
        patch.setattr(Judge, "loss", lambda self, model: measured.append(model) or loss(self, model))
        record = step.run(work)
    assert len(measured) == sum(range(3, DEPTH + 1))
    with monkeypatch.context() as patch:
        patch.setattr(Judge, "loss", None)
        fewer = Truncate(keep=3, blocks={"name": "greedy", "tokens": 512}).run(tiny.bench(deep(), tmp_path / "fewer"))
    assert fewer.measured == record.measured[:2]
    monkeypatch.setenv("KRONPRESS_CACHE", str(tmp_path / "other"))
    assert step.run(tiny.bench(deep(), tmp_path / "whole")) == record


def test_another_model_or_text_is_measured_anew(tmp_path: Path) -> None:
    step = Truncate(keep=4, blocks={"name": "greedy", "tokens": 512})
    works = [
        tiny.bench(deep(), tmp_path),
        tiny.bench(deep(seed=1), tmp_path),
        tiny.bench(deep(), tmp_path, text=tiny.TEXT[9:]),
        tiny.bench(deep(rms_norm_eps=0.1), tmp_path),
    ]
    losses = [step.run(work).measured[0].value for work in works]
    assert len(set(losses)) == 4


def test_an_encoder_is_judged_by_its_last_states(tmp_path: Path) -> None:
    work = tiny.bench(tiny.tiny_bert(num_hidden_layers=4), tmp_path)
    record = Truncate(keep=2, blocks={"name": "greedy", "tokens": 256}).run(work)
    assert record.measure.startswith("1 - cosine") and len(record.kept) == 2
    assert 0 < record.measured[0].value < record.measured[-1].value


@pytest.mark.parametrize("build_model", [deep, lambda: tiny.tiny_gpt2(n_layer=DEPTH)], ids=["llama", "gpt2"])
def test_repair_brings_the_last_states_nearer_and_leaves_the_whole_model(
    build_model: Callable[[], PreTrainedModel], tmp_path: Path
) -> None:
    work = tiny.bench(build_model(), tmp_path, text=tiny.TEXT * 4)
    Truncate(blocks=[0, 1, 3]).run(work)
    before = {name: value.clone() for name, value in work.teacher.state_dict().items()}
    repaired = sharing(work.student)
    held_out, fitted = apart(work, judged=1024, fitted=8192)
    Repair(tokens=8192, ridge=1e-3).apply(repaired, work.teacher, [0, 1, 3], windows=fitted)
    wanted, plain, mended = (last_states(model, held_out) for model in (work.teacher, work.student, repaired))
    assert (mended - wanted).square().sum() < 0.8 * (plain - wanted).square().sum()
    assert all(torch.equal(value, work.teacher.state_dict()[name]) for name, value in before.items())


def last_states(model: PreTrainedModel, windows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        states: torch.Tensor = model.base_model(input_ids=windows).last_hidden_state
    return states[:, 1:]


def test_a_repair_is_kept_where_the_loss_is_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 2.0])
    monkeypatch.setattr(Judge, "loss", lambda *_: next(losses))
    work = tiny.bench(deep(), tmp_path)
    record = Truncate(blocks=[0, 1, 3], repair={"tokens": 512}).run(work)
    assert record.repair == RepairMeasure(without=3.0, repaired=2.0)
    down = [model.model.layers[2].mlp.down_proj.weight for model in (work.student, work.teacher)]
    assert not torch.equal(*down)


def test_a_repair_that_does_not_help_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([2.0, 3.0])
    monkeypatch.setattr(Judge, "loss", lambda *_: next(losses))
    work = tiny.bench(silenced(deep(), 1, 3), tmp_path)
    record = Truncate(blocks=[0, 2, 4], repair={"tokens": 128, "ridge": 1e-9}).run(work)
    assert record.repair == RepairMeasure(without=2.0, repaired=3.0)
    torch.testing.assert_close(tiny.logits(work.student, ids()), tiny.logits(work.teacher, ids()))


def test_a_model_with_factors_keeps_those_of_its_blocks(tmp_path: Path) -> None:
    work = tiny.bench(deep(), tmp_path)
    Factorize(method={"name": "van_loan", "right": (2, 2), "terms": 2}, sites="all,embedding").run(work)
    Truncate(blocks=[1, 4]).run(work)
    paths = structured_layers(work.student)
    assert {path.split(".")[2] for path in paths if ".layers." in path} == {"0", "1"}
    again = kronpress.load(kronpress.save(work.student, tmp_path / "saved"))
    assert torch.equal(tiny.logits(again, ids()), tiny.logits(work.student, ids()))


@pytest.mark.parametrize(
    ("model_type", "fields", "blocks", "message"),
    [
        ("modernbert", {}, [1, 2], "block 1 of ModernBertForMaskedLM can not be block 0: there attn_norm would be"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, [0, 2], "block 2 of GPT2LMHeadModel can not be block 1"),
        ("lfm2", {}, [0, 2], "are all conv, and generation needs one with attention"),
    ],
)
def test_blocks_that_would_compute_otherwise_are_refused_and_the_model_left(
    model_type: str, fields: dict[str, Any], blocks: list[int], message: str, tmp_path: Path
) -> None:
    work = tiny.bench(build(model_type, **fields), tmp_path)
    with pytest.raises(KronpressError, match=message):
        Truncate(blocks=blocks).check(work)
    assert torch.equal(tiny.logits(work.student, ids()), tiny.logits(work.teacher, ids()))


def test_greedy_leaves_alone_what_can_not_move(tmp_path: Path) -> None:
    work = tiny.bench(build("modernbert"), tmp_path)
    assert Truncate(keep=1, blocks={"name": "greedy", "tokens": 64}).run(work).kept == (0,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": 2, "blocks": "alternate"}, "unknown choice of blocks 'alternate'"),
        ({"keep": 2, "blocks": {"name": "greedy", "token": 3}}, "unknown key 'token': did you mean 'tokens'"),
        ({"keep": 0}, "keep is 0"),
        ({"keep": 2, "repair": {"ridge": 0}}, "ridge is 0"),
    ],
)
def test_a_mistake_is_refused_with_the_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        parse(Truncate, fields, place="steps.0 (truncate)")


def test_repair_is_refused_where_a_norm_stands_behind_the_feed_forward(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="have a norm behind it; leave repair out"):
        Truncate(keep=2, repair=True).check(tiny.bench(tiny.tiny_bert(), tmp_path))


@pytest.mark.parametrize("before", ["quantize", "factorize"])
def test_repair_is_refused_behind_what_leaves_no_plain_weights(before: str, tmp_path: Path) -> None:
    work = tiny.bench(deep(), tmp_path)
    step = Truncate(blocks=[0, 2], repair=True)
    step.check(work)
    shaping = Quantize(weights={"bits": 4, "group": 8}) if before == "quantize" else Factorize(method="svd")
    shaping.run(work)
    with pytest.raises(KronpressError, match="has factors or codes already; truncate first, or leave repair out"):
        step.run(work)
    assert len(work.student.model.layers) == DEPTH


@pytest.mark.parametrize(("tokens", "windows"), [(3 * 64, (1, 2)), (64 * 64, (8, 56))])
def test_repair_is_judged_on_other_text_than_it_is_fitted_to(
    tokens: int, windows: tuple[int, int], tmp_path: Path
) -> None:
    text = "".join(chr(97 + number % 26) for number in range(tokens))
    work = tiny.bench(deep(max_position_embeddings=64), tmp_path, text=text)
    judged, fitted = apart(work, judged=512, fitted=3584)
    assert (len(judged), len(fitted)) == windows
    assert torch.equal(torch.cat([fitted, judged]), work.training_windows(size=64))
    longer = tiny.bench(deep(max_position_embeddings=64), tmp_path, text=text * 4)
    judged, fitted = apart(longer, judged=512, fitted=512)
    assert (len(judged), len(fitted)) == ((8, 8) if tokens > 999 else (6, 6)), "from all over the text"
    with pytest.raises(KronpressError, match="has one window of 64 tokens, and a repair is judged on another one"):
        apart(tiny.bench(deep(max_position_embeddings=64), tmp_path, text=text[:100]), judged=1, fitted=1)


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "gpt2"])
def test_a_narrow_model_is_truncated_too(model_type: str, tmp_path: Path) -> None:
    work = tiny.bench(build(model_type), tmp_path)
    Prune(keep=0.5, fit={"tokens": 512, "window": 64, "rounds": 4}).run(work)
    Truncate(blocks=[0, 2]).run(work)
    again = kronpress.load(kronpress.save(work.student, tmp_path / "saved"))
    assert torch.equal(tiny.logits(again, ids()), tiny.logits(work.student, ids()))


def test_only_what_measures_reads_text() -> None:
    reading = {name for name in CHOICES if name != "listed" and Truncate(keep=2, blocks=name).needs().text}
    assert reading == {"greedy", "influence"} and Truncate(keep=2, repair=True).needs().text


OPEN = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM
ids = torch.arange(7, 19)[None]
for folder in sys.argv[1:]:
    auto = AutoModelForMaskedLM if folder.endswith("bert") else AutoModelForCausalLM
    model = auto.from_pretrained(folder).eval()
    torch.save(model(input_ids=ids).logits, folder + ".pt")
    if auto is AutoModelForCausalLM:
        options = dict(max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
        cached, plain = (model.generate(ids, use_cache=use, **options) for use in (True, False))
        assert torch.equal(cached, plain) and cached.shape == (1, 24), folder
assert "kronpress" not in sys.modules
"""


def test_truncated_models_open_without_kronpress_and_generate_alike_with_a_cache(tmp_path: Path) -> None:
    for model_type in ("gpt2", "bert", "llama", "gemma3_text"):
        work = tiny.bench(build(model_type), tmp_path / "work")
        record = Truncate(blocks=[0, 2]).run(work)
        assert isinstance(record, TruncateRecord) and record.kept == (0, 2)
        kronpress.save(work.student, tmp_path / model_type, tokenizer=work.tokenizer)
        with torch.no_grad():
            torch.save(work.student(input_ids=torch.arange(7, 19)[None]).logits, tmp_path / f"{model_type}.expected")
    folders = [str(tmp_path / name) for name in ("gpt2", "bert", "llama", "gemma3_text")]
    subprocess.run([sys.executable, "-c", OPEN, *folders], check=True, timeout=300)
    for folder in folders:
        assert torch.equal(torch.load(f"{folder}.pt"), torch.load(f"{folder}.expected"))
