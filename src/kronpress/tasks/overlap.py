"""Examples of one task that stand in the data of another, as pairs of MRPC do in STS-B."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kronpress.tasks.sentences import Example


def without(examples: Sequence[Example], held_out: Iterable[Example]) -> list[Example]:
    """Leave out the examples whose texts are those of a held out one, in any order, by their letters and digits."""
    known = {_texts(example) for example in held_out}
    return [example for example in examples if _texts(example) not in known]


def _texts(example: Example) -> frozenset[str]:
    texts = (example.first, example.second or "")
    return frozenset("".join(filter(str.isalnum, text.casefold())) for text in texts)
