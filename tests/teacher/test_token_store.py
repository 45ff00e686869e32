from __future__ import annotations

import copy
import gc
import json
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.losses import LogitDistillation, Predictions, parse_losses
from kronpress.teacher import token_store as cache
from kronpress.teacher.token_store import INDEX, Kept, TeacherCache, build_cache, check_size
from kronpress.train import language_objective as distillation
from kronpress.train import trainer
from kronpress.train.text import EncoderText, Frame, FromCache, NextToken
from kronpress.train.trainer import DistillationTrainer
from tests.tiny import VOCABULARY, bench, tiny_bert, tiny_gpt2, tiny_llama, tiny_tokenizer

WINDOW, COUNT, PLENTY = 16, 6, 2**20
TOP = Kept(5)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in fp32, and keep two windows to a shard."""
    for module in (trainer, cache, distillation):
        monkeypatch.setattr(module, "mixed_precision", lambda _: nullcontext(), raising=False)
    monkeypatch.setattr("kronpress.distill.step.computes_in_bfloat16", lambda _: False)
    monkeypatch.setattr(cache, "_SHARD_BYTES", 2 * WINDOW * 22)


class Killed(BaseException):
    """What stands for the end of the process."""


def text(*, seed: int = 0) -> NextToken:
    windows = torch.randint(256, (COUNT, WINDOW), generator=torch.Generator().manual_seed(seed))
    return NextToken(windows, torch.arange(COUNT))


def masked_text() -> EncoderText:
    return EncoderText(text().windows, torch.arange(COUNT), Frame.of(tiny_bert(), tiny_tokenizer()), seed=0)


def build(folder: Path, teacher: PreTrainedModel | None = None, *, of: Any = None, kept: Kept = TOP) -> TeacherCache:
    return build_cache(folder, teacher or tiny_llama(), of or text(), kept=kept, max_bytes=PLENTY)


@torch.no_grad()
def predictions(teacher: PreTrainedModel, example: dict[str, torch.Tensor], temperature: float = 1.0) -> torch.Tensor:
    """The log-probabilities of all words, (tokens, vocabulary)."""
    inputs = {name: value[None] for name, value in example.items() if name in ("input_ids", "token_type_ids")}
    return torch.log_softmax(teacher(**inputs).logits[0] / temperature, dim=-1)


def asked(monkeypatch: pytest.MonkeyPatch, *, die_at: int | None = None) -> list[int]:
    """Note how many windows the teacher is asked about at each time, and let the process end at one of them."""
    found: list[int] = []
    ask: Callable[..., Any] = cache._ask

    def ask_or_die(teacher: Any, examples: Any, **options: Any) -> Any:
        found.append(len(examples))
        if len(found) == die_at:
            raise Killed
        return ask(teacher, examples, **options)

    monkeypatch.setattr(cache, "_ask", ask_or_die)
    return found


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(("model", "of"), [(tiny_llama, text), (tiny_gpt2, text), (tiny_bert, masked_text)])
def test_the_likeliest_words_and_the_mass_of_the_others_are_kept(
    model: Any, of: Any, temperature: float, tmp_path: Path
) -> None:
    teacher, examples = model(), of()
    stored = build(tmp_path, teacher, of=examples, kept=Kept(5, temperature))
    assert len(stored) == COUNT
    for row in range(COUNT):
        every = predictions(teacher, examples[row], temperature)
        best = every.topk(5, dim=-1)
        words, log_probabilities = stored[row]
        assert torch.equal(words, best.indices)
        torch.testing.assert_close(log_probabilities[:, :5], best.values, atol=2e-3, rtol=1e-3)
        rest = 1 - best.values.exp().sum(dim=-1)
        torch.testing.assert_close(log_probabilities[:, 5].exp(), rest, atol=1e-3, rtol=2e-3)
        torch.testing.assert_close(log_probabilities.exp().sum(dim=-1), torch.ones(len(words)))


def test_the_files_are_as_large_as_was_said_before(tmp_path: Path) -> None:
    stored = build(tmp_path)
    data = COUNT * WINDOW * (5 * (2 + 2) + 2)
    assert data <= stored.bytes <= data + 3 * 256
    check_size(text(), tiny_llama(), kept=TOP, max_bytes=data)
    with pytest.raises(KronpressError, match="2,112 bytes"):
        check_size(text(), tiny_llama(), kept=TOP, max_bytes=data - 1)


def test_large_vocabularies_take_four_bytes_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = build(tmp_path / "two")[0][0]
    monkeypatch.setattr(cache, "_word_bytes", lambda _: 4)
    four = build(tmp_path / "four")
    assert torch.equal(four[0][0], expected)
    assert four.bytes >= COUNT * WINDOW * (5 * (4 + 2) + 2)


def test_words_beyond_the_signed_range_come_back(tmp_path: Path) -> None:
    teacher = tiny_llama(vocab_size=2**16)
    words, _ = build(tmp_path, teacher)[0]
    assert int(words.max()) > 2**15
    assert torch.equal(words, predictions(teacher, text()[0]).topk(5, dim=-1).indices)


def test_too_small_a_limit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="cache_max_bytes is 2,000; raise it, lower top_k or train on fewer"):
        build_cache(tmp_path / "teacher", tiny_llama(), text(), kept=TOP, max_bytes=2000)
    assert not any(tmp_path.iterdir())


def test_too_full_a_disk_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("kronpress.checkpoint.files.shutil.disk_usage", lambda _: usage)
    with pytest.raises(KronpressError, match="free some space"):
        build(tmp_path / "teacher")
    assert not any(tmp_path.iterdir())


def test_an_interrupted_building_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        asked(patch, die_at=3)
        build(tmp_path / "killed")
    with pytest.raises(KronpressError, match=r"shard-00002\.safetensors is missing"):
        TeacherCache.open(tmp_path / "killed", text(), kept=TOP)
    found = asked(monkeypatch)
    build(tmp_path / "killed")
    assert found == [2]
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()
    assert len(whole.key.shards) == 3


def test_a_finished_cache_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path)
    found = asked(monkeypatch)
    build(tmp_path)
    assert found == []


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_shard_is_computed_again_with_a_warning(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = tmp_path / build(tmp_path).key.shards[1]
    content = shard.read_bytes()
    if damage == "remove":
        shard.unlink()
    else:
        shard.write_bytes(content[:-9] if damage == "cut" else content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(KronpressError, match=r"shard-00001\.safetensors is missing or damaged"):
        TeacherCache.open(tmp_path, text(), kept=TOP)
    found = asked(monkeypatch)
    build(tmp_path)
    assert f"warning: {shard} is missing or damaged; it is computed again" in capsys.readouterr().out
    assert (found, shard.read_bytes()) == ([2], content)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"key": 3, "shards": {}}', '{"key": {"kept": 1}, "shards": 3}'])
def test_a_damaged_index_is_no_cache(index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path)
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(KronpressError, match="no finished teacher cache"):
        TeacherCache.open(tmp_path, text(), kept=TOP)
    assert len(build(tmp_path)[0]) == 2
    assert "it is built again" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        {"kept": 3},
        {"kept": {"k": "many"}},
        {"rows_per_shard": 0},
        {"rows_per_shard": 3},
        {"rows": 5},
        {"tokens": "all"},
    ],
    ids=str,
)
def test_a_damaged_key_is_no_cache(change: dict[str, Any], tmp_path: Path) -> None:
    build(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(index | {"key": index["key"] | change}))
    with pytest.raises(KronpressError, match="build"):
        TeacherCache.open(tmp_path, text(), kept=TOP)
    assert len(build(tmp_path)[0]) == 2


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"teacher": tiny_llama(seed=3)}, "teacher"),
        ({"of": text(seed=3)}, "examples"),
        ({"kept": Kept(4)}, "kept"),
        ({"kept": Kept(5, 2.0)}, "kept"),
    ],
    ids=["teacher", "text", "words", "temperature"],
)
def test_a_cache_of_something_else_is_not_mistaken(
    other: dict[str, Any], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "cache")
    again = build(tmp_path / "cache", **other)
    assert f"has another {what}; it is built again" in capsys.readouterr().out
    fresh = build(tmp_path / "fresh", **other)
    for row in range(COUNT):
        assert all(torch.equal(*pair) for pair in zip(again[row], fresh[row], strict=True))


def test_a_finished_cache_opens_without_the_teacher(tmp_path: Path) -> None:
    expected = build(tmp_path)
    stored = TeacherCache.open(tmp_path, text(), kept=TOP)
    assert stored.key == expected.key
    assert torch.equal(stored[3][1], expected[3][1])
    with pytest.raises(KronpressError, match="is of other text"):
        TeacherCache.open(tmp_path, text(seed=1), kept=TOP)
    with pytest.raises(KronpressError, match=r"keeps Kept\(k=5.* and Kept\(k=6"):
        TeacherCache.open(tmp_path, text(), kept=Kept(6))
    with pytest.raises(KronpressError, match="no finished teacher cache"):
        TeacherCache.open(tmp_path / "none", text(), kept=TOP)


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    build(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_of_masked_text_the_guessed_tokens_alone_can_be_kept(tmp_path: Path) -> None:
    teacher, examples = tiny_bert(), masked_text()
    stored = build(tmp_path, teacher, of=examples, kept=Kept(5, labeled=True))
    assert stored.key.tokens == 2
    for index in range(COUNT):
        example = FromCache(examples, stored)[index]
        guessed = example["labels"] != -100
        assert example["cached_words"].shape == (WINDOW + 2, 5)
        expected = predictions(teacher, example)[guessed].topk(5, dim=-1)
        assert torch.equal(example["cached_words"][guessed], expected.indices)
        torch.testing.assert_close(
            example["cached_log_probabilities"][guessed][:, :5], expected.values, atol=2e-3, rtol=1e-3
        )


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jensen_shannon"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_coarse_divergence_and_its_gradient_are_those_of_the_plain_formula(
    divergence: Any, temperature: float
) -> None:
    ours, theirs = (3 * torch.randn(7, 30, dtype=torch.float64) for _ in range(2))
    ours.requires_grad_()
    words = theirs.topk(4, dim=-1).indices

    def coarse(logits: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(logits / temperature, dim=-1)
        best = p.gather(1, words)
        return torch.cat([best, 1 - best.sum(dim=1, keepdim=True)], dim=1)

    p, q = coarse(theirs), coarse(ours)
    middle = (p + q) / 2
    pairs = {"forward": [(p, q)], "reverse": [(q, p)], "jensen_shannon": [(p, middle), (q, middle)]}[divergence]
    plain = sum((a * (a / b).log()).sum(dim=1) for a, b in pairs) / len(pairs) * temperature**2
    loss = LogitDistillation(divergence=divergence, temperature=temperature, top_k=4)
    labels = torch.zeros(7, dtype=torch.long)
    top = Predictions(theirs.float()).top(4, temperature=temperature)
    value, slope = loss.per_token(Predictions(ours.detach().float()), top, labels)
    torch.testing.assert_close(value.double(), plain.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(slope.double(), torch.autograd.grad(plain.sum(), ours)[0], atol=1e-5, rtol=1e-4)


# --- the step


def step(**fields: Any) -> Distill:
    fixed = {"tokens": 12 * 4 * 32, "window": 32, "batch": 4, "learning_rate": 5e-3, "save_every": 3}
    return Distill(**(fixed | {"losses": {"logits": {"top_k": 16}}} | fields))


def run(folder: Path, model: Callable[..., PreTrainedModel] = tiny_llama, **fields: Any) -> Any:
    work = bench(model(seed=1), folder, teacher=model(seed=2))
    chosen = step(**fields)
    chosen.check(work)
    torch.manual_seed(0)
    return chosen.run(work), work.student


def losses_of(report: dict[str, Any], *, curve: str = "curve") -> list[float]:
    return [point["loss"] for point in report[curve]]


CURVES: list[Any] = [
    pytest.param(tiny_llama, {}, id="llama"),
    pytest.param(tiny_gpt2, {"losses": {"logits": {"top_k": 8, "temperature": 2.0}, "cross_entropy": 0.3}}, id="hot"),
    pytest.param(tiny_llama, {"losses": {"logits": {"top_k": 8, "divergence": "reverse"}}}, id="reverse"),
    pytest.param(
        tiny_llama, {"losses": {"a": {"name": "logits", "top_k": 8}, "b": {"name": "logits", "top_k": 3}}}, id="two"
    ),
    pytest.param(tiny_bert, {}, id="bert"),
    pytest.param(tiny_bert, {"losses": {"logits": {"top_k": 8, "at": "labels"}}}, id="bert on labels"),
]


@pytest.mark.parametrize(("model", "fields"), CURVES)
def test_learning_from_the_cache_is_learning_from_the_teacher(
    model: Any, fields: dict[str, Any], tmp_path: Path
) -> None:
    there, _ = run(tmp_path / "there", model, **fields, validate_every=6)
    cached, _ = run(tmp_path / "cached", model, **fields, validate_every=6, cache_teacher=True)
    for curve in ("curve", "validation"):
        expected = losses_of(there, curve=curve)
        assert len(expected) >= 2
        assert losses_of(cached, curve=curve) == pytest.approx(expected, rel=0.02)
    assert cached["teacher_cache"]["bytes"] > 0


def test_all_words_give_the_whole_divergence(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", losses="logits")
    cached, _ = run(tmp_path / "cached", losses={"logits": {"top_k": VOCABULARY}}, cache_teacher=True)
    assert losses_of(cached) == pytest.approx(losses_of(whole), rel=5e-3)


def test_several_epochs_ask_about_each_window_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench(tiny_llama(seed=1), tmp_path, teacher=tiny_llama(seed=2), text="some words of text. " * 20)
    windows = len(work.training_windows(size=32))
    found = asked(monkeypatch)
    report = step(cache_teacher=True).run(work)
    assert (windows, sum(found), report["teacher_cache"]["windows"]) == (12, 12, 12)
    assert report["tokens"] == 4 * windows * 32


def test_no_copy_of_the_teacher_stays_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[Any] = []
    train: Callable[..., Any] = DistillationTrainer.train

    def copied(self: Distill, work: Any) -> PreTrainedModel:
        teacher: PreTrainedModel = copy.deepcopy(work.teacher)
        copies.append(weakref.ref(teacher))
        return teacher

    def train_alone(self: DistillationTrainer, **options: Any) -> Any:
        gc.collect()
        assert [reference() for reference in copies] == [None]
        assert self.objective.teacher is None
        return train(self, **options)

    monkeypatch.setattr(Distill, "_teacher", copied)
    monkeypatch.setattr(DistillationTrainer, "train", train_alone)
    step(cache_teacher=True).run(bench(tiny_llama(seed=1), tmp_path, teacher=tiny_llama(seed=2)))


@pytest.mark.parametrize("model", [tiny_llama, tiny_bert])
def test_going_on_after_a_kill_ends_where_no_kill_would(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = run(tmp_path / "whole", model, cache_teacher=True)
    calls, compute = iter(range(100)), DistillationTrainer.compute_loss

    def compute_or_die(self: DistillationTrainer, *arguments: Any, **options: Any) -> Any:
        if next(calls) == 7:
            raise Killed
        return compute(self, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(DistillationTrainer, "compute_loss", compute_or_die)
        run(tmp_path / "killed", model, cache_teacher=True)
    assert (tmp_path / "killed" / "trainer" / "teacher" / INDEX).exists()  # which the pipeline removes in the end
    found = asked(monkeypatch)
    _, resumed = run(tmp_path / "killed", model, cache_teacher=True)
    assert found == []
    for name, value in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"losses": "logits"}, "the loss logits needs more of the teacher than its likeliest words"),
        ({"losses": "cross_entropy"}, "no loss compares with a teacher"),
        (
            {
                "losses": {
                    "a": {"name": "logits", "top_k": 2},
                    "b": {"name": "logits", "top_k": 2, "temperature": 3},
                }
            },
            r"the temperatures \[1\.0, 3\.0\]",
        ),
        ({"losses": {"logits": {"top_k": 265}}}, "top_k is 265 and the teacher has 264 words"),
        ({"cache_max_bytes": 100_000}, "101,376 bytes .48 windows, 32 tokens of each, 16 words of each"),
        ({"cache_max_bytes": 110_000, "validate_every": 2}, "135,168 bytes .64 windows"),
    ],
    ids=str,
)
def test_a_step_that_cannot_be_cached_is_refused_before_any_step(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    work = bench(tiny_llama(seed=1), tmp_path / "step", teacher=tiny_llama(seed=2))
    with pytest.raises(KronpressError, match=message):
        step(cache_teacher=True, **fields).check(work)
    assert not (tmp_path / "step").exists()


def test_what_losses_look_at_decides_what_is_kept() -> None:
    given = {"a": {"name": "logits", "top_k": 3}, "b": {"name": "logits", "top_k": 8}, "cross_entropy": 0.1}
    assert Kept.of(parse_losses(given)) == Kept(8)
    on_labels = {"logits": {"top_k": 3, "at": "labels", "temperature": 2.0}}
    assert Kept.of(parse_losses(on_labels)) == Kept(3, 2.0, labeled=True)


def test_the_index_tells_what_the_cache_is_of(tmp_path: Path) -> None:
    build(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["key"]["kept"] == {"k": 5, "temperature": 1.0, "labeled": False, "words": None}
    assert set(index["shards"]) == {f"shard-0000{n}.safetensors" for n in range(3)}


def test_the_plain_kl_of_a_stored_row_is_that_of_the_models(tmp_path: Path) -> None:
    """With all words kept, torch's own divergence from the cached row equals that from the teacher."""
    teacher, student = tiny_llama(seed=2), tiny_llama(seed=1)
    words, log_probabilities = build(tmp_path, teacher, kept=Kept(VOCABULARY))[0]
    ours = predictions(student, text()[0])
    cached = F.kl_div(ours.gather(1, words), log_probabilities[:, :-1], log_target=True, reduction="sum")
    expected = F.kl_div(ours, predictions(teacher, text()[0]), log_target=True, reduction="sum")
    assert float(cached) == pytest.approx(float(expected), rel=2e-3)
