"""Shelves of interchangeable methods, found by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from kronpress.errors import KronpressError, did_you_mean, shown

T = TypeVar("T")


class Shelf(Generic[T]):
    """A named collection of interchangeable things; recipes and conformance tests read it.

    >>> shelf = Shelf[int]("size")
    >>> shelf.add("small", 1)
    1
    >>> shelf["small"]
    1
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Put `item` on the shelf under `name` and return it."""
        assert name not in self._items, f"{self.what} '{name}' is registered twice"
        self._items[name] = item
        return item

    def enroll(self, item: T) -> T:
        """Put a class on the shelf under its own `kind` and return it; to be used as a decorator."""
        return self.add(vars(item)["kind"], item)

    def __getitem__(self, name: object) -> T:
        if not isinstance(name, str) or name not in self._items:  # a recipe may hold anything in place of a name
            raise KronpressError(f"unknown {self.what} {shown(name)}: {did_you_mean(name, self._items)}")
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def items(self) -> Iterator[tuple[str, T]]:
        """Iterate over the (name, thing) pairs in the order they were added."""
        return iter(self._items.items())
