"""YAML says what it looks like, and is bounded."""

from __future__ import annotations

import math
import time

import pytest
import yaml

from kronpress.errors import KronpressError
from kronpress.notation import read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2020-01-01", "2020-01-01"),
        ("2020-13-45", "2020-13-45"),
        ("2020-01-01 10:00:00", "2020-01-01 10:00:00"),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("off", "off"),
        ("TRUE", True),
        ("1e-3", 0.001),
        ("1e6", 1e6),
        ("-.5", -0.5),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("-.inf", -math.inf),
        ("~", None),
        ("", None),
        ("=", "="),
        ("'1'", "1"),
        ("!!str 12", "12"),
        ("!!float 1", 1.0),
        ("{no: 1, 2: b, null: c}", {"no": 1, "2": "b", "null": "c"}),
        ("[&a {b: 1, c: 2}, {<<: *a, c: 3}]", [{"b": 1, "c": 2}, {"b": 1, "c": 3}]),
        ("[&a {b: 1}, &c {b: 2, d: 3}, {<<: [*a, *c]}]", [{"b": 1}, {"b": 2, "d": 3}, {"b": 1, "d": 3}]),
        ("\ufeffa: \U0001f600", {"a": "\U0001f600"}),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, value: object) -> None:
    found = read_yaml(text, place="it")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!int y", "it, line 1: 'y' is no value of the tag !!int; leave the tag out"),
        ("!!bool y", "tag !!bool"),
        ("!!null y", "tag !!null"),
        ("!!timestamp y", "timestamp' is not read; leave it out"),
        ("!!binary aGk=", "binary' is not read"),
        ("!!set {a}", "set' is not read"),
        ("!!python/object/apply:os.system [ls]", "os.system' is not read"),
        ("!!map []", "map' is not read"),
        ("a: 1\nb: 2\na: 3", "it, line 3: the key 'a' is given twice; remove one of the two"),
        ("{a: 1, 'a': 2}", "the key 'a' is given twice"),
        ("? [a]\n: 1", "a key is a list or a mapping"),
        ("<<: 3", "<< takes mappings"),
        ("a: [", "it is not valid YAML: .* in line 1"),
        ("a: \0", "it is not valid YAML: .*#x0000"),
        ("9" * 5000, "a number of 5,000 characters; give one of at most 40"),
        ("[" * 1200, "nested more than 40 deep"),
        ("{a: " * 1200, "nested more than 40 deep"),
        ("\n".join(" " * depth + "a:" for depth in range(50)), "nested more than 40 deep"),
        ("&a [*a]", "its aliases stand for too much, or for themselves"),
        ("&a {<<: *a}", "its aliases stand for too much, or for themselves"),
        ("#" * 2**18 + "\na: 1", "has 262,149 characters; at most 262,144 are read"),
        ("*" + "a" * 10_000, "undefined alias"),
        ("a" * 1000 + ": 1\n" + "a" * 1000 + ": 1", "is given twice"),
        ("!!" + "a" * 10_000 + " 1", "is not read"),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_not_read_is_said_in_a_line_or_two(text: str, message: str) -> None:
    with pytest.raises(KronpressError, match=message) as caught:
        read_yaml(text, place="it")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("inner", ["[{}]", "{{<<: [{}]}}"])
def test_a_bomb_of_aliases_is_cheap(inner: str) -> None:
    lines = ["&a0 {k: '" + "x" * 100 + "'}"]
    lines += [f"&a{i} {inner.format(', '.join([f'*a{i - 1}'] * 10))}" for i in range(1, 12)]
    started = time.process_time()
    with pytest.raises(KronpressError, match="aliases stand for too much"):
        read_yaml("".join(f"- {line}\n" for line in lines), place="it")
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "value", ["1e-3", "no", "2020-01-01", "1:30", "~", "", "017", "a: b", "- x", "é", "<<", "null", "1_0", ".5", "0o7"]
)
def test_a_string_is_written_so_that_it_is_read_again(value: str) -> None:
    written = write_yaml({"key": value, "list": [value]})
    assert read_yaml(written, place="it") == yaml.safe_load(written) == {"key": value, "list": [value]}
    assert read_yaml(write_yaml([1e-3, 1e6, 5, True, None]), place="it") == [1e-3, 1e6, 5, True, None]
