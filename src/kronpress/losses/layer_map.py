"""Which block of the student learns from which of the teacher."""

from __future__ import annotations

from typing import Literal, TypeAlias

from kronpress.errors import KronpressError

LayerMap: TypeAlias = Literal["same", "uniform", "last"] | tuple[int, ...] | tuple[tuple[int, int], ...]
"""`same` block for block, `uniform` to evenly spread blocks of a deeper teacher, `last` only the last of both; or the
teacher's block of each of the student's, or pairs (student, teacher), counted from 0."""


def pairs_of(layers: LayerMap, student: int, teacher: int, *, loss: str) -> list[tuple[int, int]]:
    """Return the pairs (student block, teacher block) of two depths; `loss` is what a message calls the owner.

    >>> pairs_of("uniform", 3, 12, loss="hidden")
    [(0, 3), (1, 7), (2, 11)]

    Raises:
        KronpressError: the map does not fit the depths.
    """
    if layers == "last":
        return [(student - 1, teacher - 1)]
    if layers == "uniform":
        return [(block, -(-(block + 1) * teacher // student) - 1) for block in range(student)]
    if layers == "same":
        if student != teacher:
            raise KronpressError(
                f"layers of the loss '{loss}' is 'same', but the student has {student} blocks and the teacher "
                f"{teacher}; set layers to uniform, last, or the teacher's block of each of the student's"
            )
        return [(block, block) for block in range(student)]
    pairs = _as_pairs(layers, student, loss=loss)
    for ours, theirs in pairs:
        for whose, block, depth in (("student", ours, student), ("teacher", theirs, teacher)):
            if not 0 <= block < depth:
                raise KronpressError(
                    f"layers of the loss '{loss}' names block {block} of the {whose}, which has {depth}; "
                    f"choose from 0 to {depth - 1}"
                )
    return pairs


def _as_pairs(
    layers: tuple[int, ...] | tuple[tuple[int, int], ...], student: int, *, loss: str
) -> list[tuple[int, int]]:
    pairs = [item for item in layers if isinstance(item, tuple)]
    if pairs:
        return pairs
    blocks = [item for item in layers if isinstance(item, int)]
    if len(blocks) != student:
        raise KronpressError(
            f"layers of the loss '{loss}' names {len(blocks)} blocks of the teacher, but the student has {student}; "
            f"give one for each of them, or pairs (student, teacher)"
        )
    return list(enumerate(blocks))
