"""Seeded mutations of values, bytes and files of tensors: what a wrong edit or a bad disk may leave."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

import torch
from torch import Tensor

STRANGE: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 7, 1.5, -0.0, 1e308, float("inf"), float("nan")),
    *(10**30, 2**63, -(2**40), 30_000_000),
    *(
        "",
        " ",
        "x",
        "null",
        "../x",
        "/",
        "a" * 400,
        "\x00",
        "é\u2028",
        "=",
        "1e-3",
        "nan",
        ".inf",
        "[",
        "{",
        "²",
        "auto",
    ),
    *([], {}, [[]], {"": {}}, {"name": None}, [1], [0, 0], [1, 2, 3]),
    *({"kind": "kronecker_linear"}, {"step": "distill"}),
)
LEAVES = ("weight", "left", "scales", "row_order", "bias", "added")
FRAGMENTS = (
    *(b"\x00", b"\xff\xfe", b"{", b"}", b'"', b"\\", b"\n", b"\t", b"\r", b",", b":", b"[" * 1200, b"\xed\xa0\x80"),
    *(b"null", b"NaN", b"1e999", b"-", b"&a *a", b"!!int y", b"!!timestamp ", b"2020-13-45", b"<<: ", b"9" * 5000),
)


def nested(depth: int, *, key: str | None = None) -> Any:
    """Lists inside of lists, or mappings under one key."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if key is None else {key: value}
    return value


def mutated_value(value: Any, random: Random) -> Any:
    """Return a copy of a JSON value with one to three of its parts changed, removed, renamed, doubled or exchanged."""
    root = [copy.deepcopy(value)]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        holder, key = random.choice(list(_places(root)))
        _change(holder, key, root, random)
        if not root:
            return random.choice(STRANGE)
    return root[0]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Go through the (container, key or index) of everything inside of a value."""
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _change(holder: Any, key: Any, root: list[Any], random: Random) -> None:
    action = random.randrange(8)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[random.choice((f"{key}s", str(key)[:-1], str(key).upper(), "", "name"))] = holder.pop(key)
    elif action == 2:
        other, place = random.choice(list(_places(root)))
        holder[key] = copy.deepcopy(other[place])
    elif action == 3:
        holder[key] = random.choice(([holder[key]], {"value": holder[key]}, {str(holder[key])[:40]: 1}))
    elif action == 4 and isinstance(holder[key], int | float):
        holder[key] = random.choice((-holder[key], holder[key] * 2, holder[key] + 1, holder[key] / 2, str(holder[key])))
    elif action == 5 and isinstance(holder[key], str):
        holder[key] = mutated_bytes(holder[key].encode(), random).decode("utf-8", "replace")
    elif action == 6 and random.random() < 0.2:
        holder[key] = nested(random.choice((20, 150)), key=random.choice((None, "inner", "table")))
    else:
        holder[key] = copy.deepcopy(random.choice(STRANGE))


def mutated_bytes(content: bytes, random: Random) -> bytes:
    """Return a text or file with bits flipped, spans cut out or doubled, its end missing, or fragments put in."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        start = random.randrange(len(changed) + 1)
        span = random.choice((1, 2, 8, 64))
        action = random.randrange(5)
        if action == 0 and start < len(changed):
            changed[start] ^= 1 << random.randrange(8)
        elif action == 1:
            del changed[start : start + span]
        elif action == 2:
            changed[start:start] = changed[start : start + span]
        elif action == 3:
            changed[start:start] = random.choice(FRAGMENTS)
        elif random.random() < 0.5:
            del changed[start:]
    return bytes(changed)


def mutated_tensors(tensors: dict[str, Tensor], random: Random) -> dict[str, Tensor]:
    """Return tensors of which one is missing, renamed, of another shape, or put in without being called for."""
    changed = dict(tensors)
    name = random.choice(sorted(changed))
    stem, _, leaf = name.rpartition(".")
    action = random.choice(("drop", "rename", "reshape", "extra"))
    if action == "drop":
        del changed[name]
    elif action == "rename":
        other = random.choice((f"{stem}.{leaf}_", f"{stem}_.{leaf}", leaf, f"{stem}.{leaf.upper()}"))
        changed[other] = changed.pop(name)
    elif action == "reshape":
        changed[name] = random.choice(_reshaped(changed[name])).clone()
    else:
        changed[f"{stem}.{random.choice(LEAVES)}"] = torch.ones(2, 3)
    return changed


def _reshaped(value: Tensor) -> list[Tensor]:
    shapes = [
        value[:-1],
        value.reshape(-1),
        value[None],
        value.repeat(*[2] * value.dim()),
        value.transpose(0, -1).contiguous(),
    ]
    return [other for other in shapes if other.shape != value.shape]
