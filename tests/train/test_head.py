from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from kronpress.activations.head import withheld
from kronpress.train import head as chunks
from kronpress.train.head import Score, through_head
from tests.tiny import VOCABULARY, factorized, factors_of, some_ids, tiny_bert, tiny_llama

DIM, TOKENS = 16, 10


def some_hidden(*, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()


def plain(logits: torch.Tensor) -> torch.Tensor:
    """Two losses that are sums over tokens."""
    weights = torch.arange(1.0, len(logits) + 1, dtype=logits.dtype)
    return torch.stack([(weights[:, None] * logits.square()).sum(), logits.sin().sum()])


def score(calls: list[slice]) -> Score:
    """The losses of `plain`, token by token."""
    weights = torch.arange(1.0, TOKENS + 1, dtype=torch.float64)

    def of(logits: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(rows)
        weighted = weights[rows, None] * logits
        return torch.stack([(weighted * logits).sum(), logits.sin().sum()]), 2 * weighted

    return of


def tied_factors() -> nn.Module:
    model = factorized(tiny_llama(), Path("unused"))
    return model.get_output_embeddings().double()


HEADS = {
    "linear": lambda: nn.Linear(DIM, VOCABULARY, dtype=torch.float64),
    "without bias": lambda: nn.Linear(DIM, VOCABULARY, bias=False, dtype=torch.float64),
    "tied factors": tied_factors,
    "bert's": lambda: tiny_bert().get_output_embeddings().double(),
}


@pytest.mark.parametrize("tokens_at_once", [1, 3, TOKENS, 1000])
@pytest.mark.parametrize("name", HEADS)
def test_value_and_gradients_are_those_of_all_logits(
    name: str, tokens_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, hidden, calls = HEADS[name](), some_hidden(), []
    monkeypatch.setattr(chunks, "_CHUNK_ELEMENTS", tokens_at_once * VOCABULARY)
    losses = through_head(hidden, head, score(calls), vocabulary=VOCABULARY)
    expected = plain(head(hidden))
    torch.testing.assert_close(losses, expected)
    sizes = [rows.stop - rows.start for rows in calls]
    assert max(sizes) <= tokens_at_once
    assert sum(sizes) == TOKENS
    wanted = [hidden, *head.parameters()]
    ours, theirs = (torch.autograd.grad(3 * each[0], wanted) for each in (losses, expected))
    torch.testing.assert_close(ours, theirs)
    assert len(wanted) > 1
    assert all(each.any() for each in ours)


def test_the_factors_of_a_tied_head_are_those_of_the_table() -> None:
    head = tied_factors()
    assert {id(each) for each in head.parameters()} == {id(each) for each in factors_of(head).parameters()}


def test_frozen_parameters_get_no_gradient_and_the_rest_does() -> None:
    head, hidden = HEADS["linear"](), some_hidden()
    head.bias.requires_grad_(False)
    through_head(hidden, head, score([]), vocabulary=VOCABULARY)[0].backward()
    assert head.bias.grad is None
    assert head.weight.grad.any()
    assert hidden.grad.any()


def test_the_gradients_of_chunks_add_to_what_is_there() -> None:
    head, hidden = HEADS["linear"](), some_hidden()
    for _ in range(2):
        through_head(hidden, head, score([]), vocabulary=VOCABULARY)[0].backward()
    (once,) = torch.autograd.grad(plain(head(hidden))[0], head.weight)
    torch.testing.assert_close(head.weight.grad, 2 * once)


def test_without_gradients_it_only_adds_up() -> None:
    head, hidden = HEADS["linear"](), some_hidden()
    with torch.no_grad():
        losses = through_head(hidden, head, score([]), vocabulary=VOCABULARY)
        torch.testing.assert_close(losses, plain(head(hidden)))
    assert not losses.requires_grad


def test_of_no_tokens_there_is_no_loss() -> None:
    head, hidden = HEADS["linear"](), some_hidden()
    losses = through_head(hidden[:0], head, score([]), vocabulary=VOCABULARY)
    assert not losses.any()
    assert not torch.autograd.grad(losses[0], hidden)[0].any()


def test_a_head_is_withheld_for_the_time_of_a_block() -> None:
    model = tiny_llama()
    before = copy.deepcopy(model)(input_ids=some_ids()).logits
    head = model.get_output_embeddings()
    with withheld(head):
        hidden = model(input_ids=some_ids()).logits
    assert hidden.shape == (2, 12, DIM)
    torch.testing.assert_close(head(hidden), before)
    torch.testing.assert_close(model(input_ids=some_ids()).logits, before)
    with pytest.raises(RuntimeError, match="stop"), withheld(head):
        raise RuntimeError("stop")
    assert "forward" not in vars(head)
