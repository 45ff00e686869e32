"""Read SQuAD's questions: its own JSON format, and its data sets on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kronpress.data import parse_json, read_utf8, require_characters
from kronpress.errors import KronpressError, did_you_mean, shown
from kronpress.tasks.rows import hub_records

T = TypeVar("T")

_NOT_GIVEN = object()
_KINDS = {list: "a list", dict: "an object", str: "a text", int: "a whole number", bool: "true or false"}


@dataclass(frozen=True)
class Question:
    """A question on a context.

    Attributes:
        answers: accepted texts and where in the context they start, in characters; none where not known.
        impossible: whether the context does not answer the question.
    """

    id: str
    context: str
    question: str
    answers: tuple[tuple[str, int], ...]
    impossible: bool = False


def questions_in(source: Path, split: str, version: str) -> Iterator[tuple[Question, str]]:
    """Yield each question of a file, or of a split's file in a folder, with its place for error messages.

    Raises:
        KronpressError: missing or malformed, or an answer does not stand where it should.
    """
    path = _find(source, split, version)
    whole = parse_json(read_utf8(path), place=str(path), remedy="give a file in SQuAD's own format")
    for i, article in enumerate(_get(whole, "data", list, place=str(path)), start=1):
        for j, paragraph in enumerate(_get(article, "paragraphs", list, place=f"{path}, article {i}"), start=1):
            place = f"{path}, article {i}, paragraph {j}"
            context = _get(paragraph, "context", str, place=place)
            for k, item in enumerate(_get(paragraph, "qas", list, place=place), start=1):
                id_ = _get(item, "id", str, place=f"{place}, question {k}")
                where = f"{place}, question {shown(id_)}"
                yield _question(item, id_, context, place=where), where


def hub_questions(source: str, split: str, own: tuple[str, ...]) -> Iterator[tuple[Question, str]]:
    """Yield each question of a data set on the hub with its place, see `hub_records`; one without answers has none.

    Raises:
        KronpressError: missing or malformed, or an answer does not stand where it should.
    """
    for row, record in hub_records(source, ("dev", "validation") if split == "dev" else (split,), own):
        id_ = _get(record, "id", str, place=row)
        place = f"{row}, question {shown(id_)}"
        given = _get(record, "answers", dict, place=place)
        texts, starts = (_get(given, key, list, place=place) for key in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise KronpressError(f"{place}: {len(texts)} texts of answers and {len(starts)} starts; mend the row")
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
        item = {**record, "answers": answers, "is_impossible": not answers}
        yield _question(item, id_, _get(record, "context", str, place=place), place=place), place


def _find(source: Path, split: str, version: str) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise KronpressError(f"there is no SQuAD data at '{source}'; name a folder or a .json file")
    exact = [source / f"{split}.json", source / f"{split}-v{version}.json"]
    found = [path for path in exact if path.is_file()] or sorted(source.glob(f"{split}*.json"))
    if not found:
        names = [path.name for path in source.glob("*.json")]
        remedy = did_you_mean(f"{split}.json", names) if names else "it holds no .json file; name another folder"
        raise KronpressError(f"'{source}' has no '{split}.json' and no '{split}-v{version}.json': {remedy}")
    if len(found) > 1 and found[0] not in exact:
        names = [path.name for path in found]
        raise KronpressError(f"'{source}' has several files for '{split}', {', '.join(names)}; name one of them")
    return found[0]


def _question(item: object, id_: str, context: str, *, place: str) -> Question:
    impossible = _get(item, "is_impossible", bool, place=place, default=False)
    given = _get(item, "answers", list, place=place, default=[])
    if impossible and given:
        raise KronpressError(f"{place}: impossible and yet with an answer; mend 'is_impossible' or 'answers'")
    answers = tuple(_answer(each, context, f"{place}, answer {number}") for number, each in enumerate(given, start=1))
    return Question(id_, context, _get(item, "question", str, place=place), answers, impossible)


def _answer(item: object, context: str, place: str) -> tuple[str, int]:
    text, start = _get(item, "text", str, place=place), _get(item, "answer_start", int, place=place)
    if not text.strip():
        raise KronpressError(f"{place}: its text is blank; name a span of the context")
    if start < 0 or not context.startswith(text, start):
        there = context[max(start, 0) : max(start, 0) + len(text)]
        elsewhere = context.find(text)
        remedy = f"it stands at {elsewhere}" if elsewhere >= 0 else "the context does not hold it"
        raise KronpressError(
            f"{place}: {shown(text)} does not stand at answer_start {start}, but {shown(there)} does; {remedy}"
        )
    return text, start


def _get(item: object, key: str, kind: type[T], *, place: str, default: object = _NOT_GIVEN) -> T:
    """Return what an object has under `key`, of one kind."""
    value = item.get(key, default) if isinstance(item, dict) else _NOT_GIVEN
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        found = "not there" if value is _NOT_GIVEN else f"of type {type(value).__name__}"
        raise KronpressError(f"{place}: '{key}' is {found}; SQuAD's format has {_KINDS[kind]} under it")
    if isinstance(value, str):
        require_characters(value, place=f"{place}, '{key}'")
    return value
