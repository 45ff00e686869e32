from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from kronpress.errors import KronpressError
from kronpress.layers import Grid, InputGrid
from kronpress.quantizers import Rounding, Scheme, Storage
from kronpress.validation import parse


@pytest.mark.parametrize(
    ("value", "grid"),
    [
        (8, Grid(levels="int8")),
        ({"bits": 4, "group": 64}, Grid(levels="int4", group=64)),
        ({"bits": 2, "quantizer": "minmax", "scale": "float32"}, Grid(levels="uint2", shift=True, scale="float32")),
        (1.58, Grid(levels="ternary")),
        ({"bits": 2, "quantizer": {"name": "twn", "threshold": 0.5}, "group": "tensor"},
         Grid(levels="ternary", group="tensor")),
        (1, Grid(levels="binary")),
    ],
)  # fmt: skip
def test_bits_stand_for_a_grid(value: Any, grid: Grid) -> None:
    assert Storage.model_validate(value).grid() == grid


@pytest.mark.parametrize(
    ("value", "grid"),
    [
        (8, InputGrid(levels="uint8", shift=True)),
        (4, InputGrid(levels="int4", dynamic=False)),
        (1, InputGrid(levels="binary", dynamic=False)),
    ],
)
def test_bits_stand_for_a_grid_of_inputs(value: Any, grid: InputGrid) -> None:
    assert Rounding.model_validate(value).grid() == grid


def test_tables_are_as_weights_unless_they_are_named() -> None:
    alike = Scheme.model_validate({"weights": {"bits": 4, "group": 64}})
    assert alike.tables == alike.weights
    other = Scheme.model_validate({"weights": 2, "tables": 8})
    assert (other.weights.bits, other.tables.bits) == (2, 8)
    assert Scheme.model_validate({"weights": 32}).weights.leaves


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": 5}, r"mse can not do 5.0 bits without a shift; set bits to 1 or 1.58 or 2 or 3 or 4 or 8"),
        ({"weights": {"bits": 4, "quantizer": "bwn"}}, "bwn can not do 4.0 bits"),
        ({"weights": {"bits": 4, "quantizer": "lqs"}}, "unknown quantizer 'lqs'.*lsq"),
        ({"weights": {"bits": 4, "groups": 3}}, "unknown key 'weights.groups'.*group"),
        ({"weights": {"group": 64}}, "the key 'weights.bits' is missing"),
        ({"weights": "four"}, "weights is 'four'"),
        ({"weights": True}, "weights.bits is True"),
        ({"weights": {"bits": 4, "group": 0}}, "group"),
        ({"weights": 4, "inputs": {"bits": 4, "quantizer": "twn"}}, "twn is for weights"),
    ],
)
def test_what_is_not_understood_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(KronpressError, match=message):
        parse(Scheme, fields, place="the scheme")


def test_a_scheme_comes_back_from_what_it_dumps() -> None:
    scheme = Scheme.model_validate({"weights": {"bits": 2, "quantizer": "lsq"}, "inputs": 4, "skip": "pooler"})
    with pytest.raises(ValidationError):
        Scheme.model_validate({"tables": 4})
    assert Scheme.model_validate(scheme).weights.quantizer.kind == "lsq"
