from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kronpress.activations.attention import Attention
from kronpress.activations.trace import Sizes, Trace
from kronpress.errors import KronpressError
from kronpress.losses import LOSSES, AttentionDistance
from kronpress.losses.relations import scores_of
from tests.losses.traces import SIZES, TOKENS, all_seen, leaves, some_trace

CAUSAL = torch.ones(1, 1, 2, 2, dtype=torch.bool).tril()


def one_head(query: list[float], key: list[float]) -> Trace:
    """An attention of two tokens whose heads are one number wide."""
    q, k = (torch.tensor(each).view(1, 1, 2, 1) for each in (query, key))
    return Trace(attentions=[Attention(q, k, k, scaling=0.5, visible=CAUSAL)])


@pytest.mark.parametrize("first", [7.0, 1.0])
def test_by_hand(first: float) -> None:
    """The second query sees both keys, with scores (1, 3) in the student and (0, 0) in the teacher."""
    query = [first, 2.0]
    ours, theirs = one_head(query, [1.0, 3.0]), one_head([0.0, 0.0], [1.0, 1.0])
    seen = torch.ones(1, 2, dtype=torch.bool)
    value = AttentionDistance()(ours, theirs, seen=seen, projection=None)
    student = torch.tensor([1.0, 3.0]).log_softmax(0)
    assert value.item() == pytest.approx((-torch.log(torch.tensor(2.0)) - student.mean()).item() / 2)
    value = AttentionDistance(of="scores")(ours, theirs, seen=seen, projection=None)
    assert value.item() == pytest.approx(((query[0] / 2) ** 2 + (1 + 9) / 2) / 2)
    only = torch.tensor([[False, True]])
    assert AttentionDistance(of="scores")(ours, theirs, seen=only, projection=None).item() == pytest.approx(5)


def plain(ours: Attention, theirs: Attention, of: str) -> torch.Tensor:
    """Head by head, query by query."""
    total, count = torch.zeros(()), 0
    for text in range(ours.query.shape[0]):
        for head in range(4):
            rows = [
                (each.query[text, head] @ each.key[text, head // 2].T * each.scaling)[i, : i + 1]
                for i in range(TOKENS)
                for each in (ours, theirs)
            ]
            for s, t in zip(rows[::2], rows[1::2], strict=True):
                p = t.softmax(0)
                value = (s - t).square().mean() if of == "scores" else (p * (p.log() - s.log_softmax(0))).sum()
                total, count = total + value, count + 1
    return total / count


@pytest.mark.parametrize("of", ["probabilities", "scores"])
def test_value_and_gradient_are_those_of_the_plain_formula(of: str) -> None:
    ours, theirs = some_trace(), some_trace(seed=1)
    value = AttentionDistance.model_validate({"of": of})(ours, theirs, seen=all_seen(), projection=None)
    expected = sum(plain(s, t, of) for s, t in zip(ours.attentions, theirs.attentions, strict=True)) / 3
    torch.testing.assert_close(value, expected)
    queries = [each.query for each in ours.attentions] + [each.key for each in ours.attentions]
    torch.testing.assert_close(torch.autograd.grad(value, queries), torch.autograd.grad(expected, queries))


@pytest.mark.parametrize("name", ["attention", "minilm", "directions"])
def test_what_cannot_be_seen_does_not_matter(name: str) -> None:
    ours, theirs = some_trace(), some_trace(seed=1)
    seen, loss = all_seen(), LOSSES[name]()
    seen[:, -1] = False  # the last of the tokens, which no other one sees
    before = loss(ours, theirs, seen=seen, projection=None)
    for trace in (ours, theirs):
        for states in leaves(trace):
            states.data[..., -1, :] = 1e6
    torch.testing.assert_close(loss(ours, theirs, seen=seen, projection=None), before)


@pytest.mark.parametrize("name", ["attention", "minilm"])
def test_nothing_of_the_size_of_the_scores_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = some_trace(), some_trace(seed=1)
    kept: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        LOSSES[name](layers="same")(ours, theirs, seen=all_seen(), projection=None)
    assert max(kept, default=0) < 2 * 4 * TOKENS * TOKENS
    kept.clear()
    monkeypatch.setattr(
        "kronpress.losses.relations.checkpoint",
        lambda run, *a, use_reentrant, preserve_rng_state, **k: run(*a, **k),
    )
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        LOSSES[name](layers="same")(ours, theirs, seen=all_seen(), projection=None)
    assert max(kept) >= 2 * 4 * TOKENS * TOKENS


@pytest.mark.parametrize("name", ["attention", "directions", "minilm"])
def test_other_heads_are_refused_before_training(name: str) -> None:
    with pytest.raises(KronpressError, match="the student has 4 and the teacher 2; use the loss minilm"):
        LOSSES[name]().projection(SIZES, Sizes(depth=3, dim=8, heads=2, head=4))


@pytest.mark.parametrize("name", ["attention", "directions"])
def test_another_depth_is_refused_before_training(name: str) -> None:
    with pytest.raises(KronpressError, match=f"layers of the loss '{name}' is 'same'"):
        LOSSES[name]().projection(SIZES, Sizes(depth=4, dim=8, heads=4, head=2))
    assert LOSSES[name](layers="uniform").projection(SIZES, Sizes(depth=4, dim=8, heads=4, head=2)) is None


def test_models_that_do_not_record_their_attention_are_noticed() -> None:
    with pytest.raises(ValueError, match="run the models inside of training_attention"):
        AttentionDistance()(Trace(), Trace(), seen=all_seen(), projection=None)


def test_heads_that_share_a_key_follow_each_other() -> None:
    attention = some_trace().attentions[0]
    found = scores_of(attention)
    for head in range(4):
        shared = {name: getattr(attention, name)[:, head // 2, None] for name in ("key", "value")}
        one = replace(attention, query=attention.query[:, head, None], **shared)
        torch.testing.assert_close(found[:, head, None], scores_of(one))
