"""A tenth of a training set, held out to select epochs and seeds on in place of the dev set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

from kronpress.errors import KronpressError
from kronpress.tasks import Example, SentenceTask, Task

SHARE = 0.1
_ENOUGH = 0.5  # of the share: what larger groups of examples must leave to be held out

ExampleT = TypeVar("ExampleT")


def divided(task: Task[Any, Any], examples: Sequence[ExampleT], *, seed: int) -> tuple[list[ExampleT], list[ExampleT]]:
    """Return what is left to train on, and what is held out: a tenth, of each class where the task has classes.

    No text stands on both sides. Where texts link too many examples for that, as those of sts-b do, no pair of texts
    does. For spans the text is the context.

    Args:
        task: says what classes there are.
        examples: the training set.
        seed: of the draw.

    Raises:
        KronpressError: there are too few examples.
    """
    strata = [_stratum(task, example) for example in examples]
    texts = [_texts(example) for example in examples]
    wanted = {stratum: _share(count) for stratum, count in Counter(strata).items()}
    for groups in (_linked(texts), _alike(texts)):
        chosen = _drawn(groups, strata, wanted, seed=seed)
        if len(chosen) >= _ENOUGH * sum(wanted.values()):
            break
    if not chosen:
        raise KronpressError(
            f"select_on: the {len(examples)} examples of '{task.name}' are too few to hold a tenth out; select on dev"
        )
    kept = [example for index, example in enumerate(examples) if index not in chosen]
    return kept, [example for index, example in enumerate(examples) if index in chosen]


def _share(count: int) -> int:
    """Return how many of the examples of a class are held out, never all."""
    return max(min(1, count - 1), round(SHARE * count))


def _stratum(task: Task[Any, Any], example: Any) -> float | None:
    return example.label if isinstance(task, SentenceTask) and task.head == "classification" else None


def _texts(example: Any) -> tuple[Hashable, ...]:
    """Return what must not stand on both sides, by its letters and digits."""
    texts = (example.first, example.second or "") if isinstance(example, Example) else (example.context,)
    return tuple("".join(filter(str.isalnum, text.casefold())) for text in texts)


def _linked(texts: Sequence[tuple[Hashable, ...]]) -> list[list[int]]:
    """Return groups of examples of which no two share a text, however many examples stand between them."""
    leader = list(range(len(texts)))

    def leading(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    first: dict[Hashable, int] = {}
    for index, several in enumerate(texts):
        for text in filter(None, several):
            leader[leading(index)] = leading(first.setdefault(text, index))
    return _gathered([leading(index) for index in range(len(texts))])


def _alike(texts: Sequence[tuple[Hashable, ...]]) -> list[list[int]]:
    """Return groups of examples with the same texts, in any order."""
    return _gathered([frozenset(several) for several in texts])


def _gathered(keys: Sequence[Hashable]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _drawn(
    groups: Sequence[Sequence[int]], strata: Sequence[float | None], wanted: dict[float | None, int], *, seed: int
) -> set[int]:
    """Return the examples of groups in random order, without those groups that would make a class too many."""
    left, chosen = Counter(wanted), set[int]()
    for place in np.random.default_rng(seed).permutation(len(groups)):
        group = groups[place]
        counts = Counter(strata[index] for index in group)
        if all(count <= left[stratum] for stratum, count in counts.items()):
            left -= counts
            chosen.update(group)
    return chosen
