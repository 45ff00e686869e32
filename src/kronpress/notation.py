"""Read and write the YAML of recipes: bounded in size, every key once, and no value that is not what it looks like.

Numbers, booleans and strings are told apart as in YAML 1.2: 2020-01-01, 1:30, yes and no are strings, and 1e-3 is a
number. So is 1_000.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from kronpress.errors import KronpressError, shown

_LONGEST = 2**18  # characters of a file
_LARGEST = 2**18  # characters and values, when all aliases are written out
_DEEPEST = 40  # lists and mappings inside of each other
_DIGITS = 40

_TAG = "tag:yaml.org,2002:"
_PLAIN = {  # how a scalar without quotes is told from a string, and its first character
    "bool": (re.compile("true|True|TRUE|false|False|FALSE"), "tTfF"),
    "int": (re.compile("[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+"), "-+0123456789"),
    "float": (
        re.compile(
            r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
        ),
        "-+.0123456789",
    ),
    "null": (re.compile("~|null|Null|NULL|"), ["~", "n", "N", ""]),
    "merge": (re.compile("<<"), "<"),
}


class NotYamlError(KronpressError):
    """The text is no YAML."""


class _Loader(yaml.SafeLoader):
    """Composes the nodes of a text; what values they have is not its work."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Count how deep the node is."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise KronpressError(f"lists and mappings are nested more than {_DEEPEST} deep; write them flatter")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes every string that this or another reader of YAML would take for something else."""

    yaml_implicit_resolvers: Any = {  # noqa: RUF012
        key: list(rules) for key, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


for _name, (_pattern, _first) in _PLAIN.items():
    for _user in (_Loader, _Dumper):
        _user.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern.pattern})$"), list(_first))


def read_yaml(text: str, *, place: str) -> Any:
    """Return what a text of YAML says: dictionaries with strings as keys, lists, strings, numbers, booleans and None.

    `place` is what error messages call the text.

    Raises:
        NotYamlError: it is not YAML.
        KronpressError: it is too long or too deep, has a key twice, or a tag.
    """
    if len(text) > _LONGEST:
        raise KronpressError(f"{place} has {len(text):,} characters; at most {_LONGEST:,} are read")
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise NotYamlError(f"{place} is not valid YAML: {_problem(error)}") from None
    except KronpressError as error:
        raise KronpressError(f"{place}: {error}") from None
    return None if node is None else _Values(place).of(node)


def write_yaml(value: Any) -> str:
    """Return YAML that `read_yaml` and other readers read as `value`, in its order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    words = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"{words[:120]}{f' in line {mark.line + 1}' if mark else ''}"


@dataclass
class _Values:
    """Turns nodes into values; aliases are written out, as far as there is room."""

    place: str
    room: int = _LARGEST

    def of(self, node: yaml.Node, depth: int = 0) -> Any:
        self._count(node, depth)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode):
            self._require_tag(node, "seq")
            return [self.of(child, depth + 1) for child in node.value]
        self._require_tag(node, "map")
        return self._mapping(node, depth)

    def _count(self, node: yaml.Node, depth: int) -> None:
        self.room -= 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
        if self.room < 0 or depth > _DEEPEST:
            raise KronpressError(f"{self.place}: its aliases stand for too much, or for themselves; write less of them")

    def _mapping(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, child in node.value:
            self._count(key, depth)
            if not isinstance(key, yaml.ScalarNode):
                raise self._fault(key, "a key is a list or a mapping; give a word")
            if key.tag == f"{_TAG}merge":
                merged |= self._merged(child, depth)
            elif key.value in own:
                raise self._fault(key, f"the key {shown(key.value)} is given twice; remove one of the two")
            else:
                own[key.value] = self.of(child, depth + 1)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        value = self.of(node, depth + 1)
        mappings = value if isinstance(value, list) else [value]
        found: dict[str, Any] = {}
        for mapping in mappings:
            if not isinstance(mapping, dict):
                raise self._fault(node, "<< takes mappings")
            found = {**mapping, **found}
        return found

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind, text = node.tag.removeprefix(_TAG), node.value
        if kind in ("str", "merge", ""):
            return text
        if kind not in ("bool", "int", "float", "null"):
            raise self._fault(
                node, f"the tag {shown(node.tag)} is not read; leave it out, or put quotes around the text"
            )
        if not _PLAIN[kind][0].fullmatch(text):
            raise self._fault(node, f"{shown(text)} is no value of the tag !!{kind}; leave the tag out")
        if kind == "null":
            return None
        return text.lower() == "true" if kind == "bool" else self._number(node, kind)

    def _number(self, node: yaml.ScalarNode, kind: str) -> int | float:
        digits = node.value.replace("_", "").lower()
        if len(digits) > _DIGITS:
            raise self._fault(node, f"a number of {len(digits):,} characters; give one of at most {_DIGITS}")
        if kind == "float":
            return float(digits.replace(".inf", "inf").replace(".nan", "nan"))
        return int(digits, {"0x": 16, "0o": 8}.get(digits[:2], 10))

    def _require_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != _TAG + kind:
            raise self._fault(node, f"the tag {shown(node.tag)} is not read; leave it out")

    def _fault(self, node: yaml.Node, words: str) -> KronpressError:
        return KronpressError(f"{self.place}, line {node.start_mark.line + 1}: {words}")
