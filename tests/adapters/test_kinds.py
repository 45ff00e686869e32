"""Which adapters a recipe can name, and with which fields."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from kronpress.adapters import ADAPTERS, Adapters, Lokr, Lora, require_adaptable
from kronpress.errors import KronpressError
from kronpress.validation import parse_named
from tests.tiny import tiny_llama


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("lora", Lora()),
        ({"name": "lokr", "rank": 4, "alpha": 8, "sites": "up"}, Lokr(rank=4, alpha=8, sites="up")),
        (Lora(rank=2), Lora(rank=2)),
    ],
    ids=str,
)
def test_adapters_are_a_name_or_a_mapping_with_one(value: Any, expected: Adapters) -> None:
    assert parse_named(value, ADAPTERS, key="adapters") == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kind": "lora"}, "give a name or a mapping with one: lora, lokr"),
        ("lorra", "unknown kind of adapters 'lorra': did you mean 'lora'"),
        ({"name": "lora", "r": 8}, "adapters lora: unknown key 'r': choose one of: alpha, rank, sites"),
        ({"name": "lora", "rank": 0}, "rank is 0"),
        ({"name": "lokr", "alpha": -1}, "alpha is -1"),
    ],
    ids=str,
)
def test_a_mistake_is_refused_with_the_remedy(value: Any, message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        parse_named(value, ADAPTERS, key="adapters")


@pytest.mark.parametrize("kind", [Lora, Lokr])
def test_peft_is_told_of_rank_alpha_and_targets(kind: type[Adapters]) -> None:
    pytest.importorskip("peft")
    config = kind(rank=4, alpha=6).config(r"\d+")
    assert (config.r, config.target_modules) == (4, r"\d+")
    assert getattr(config, "lora_alpha", getattr(config, "alpha", None)) == 6


def test_without_peft_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(KronpressError, match=r"adapters need peft: run `pip install peft` \(the extra `adapters`\)"):
        require_adaptable(tiny_llama(), Lora())
