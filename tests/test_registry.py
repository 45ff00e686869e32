from __future__ import annotations

from typing import ClassVar

import pytest

from kronpress.errors import KronpressError
from kronpress.registry import Shelf


class Method:
    kind: ClassVar[str]


def test_a_class_is_found_by_its_own_kind() -> None:
    shelf = Shelf[type[Method]]("method")

    @shelf.enroll
    class Nearest(Method):
        kind = "nearest"

    assert shelf["nearest"] is Nearest
    assert list(shelf) == ["nearest"]
    with pytest.raises(KronpressError, match="unknown method 'nearst': did you mean 'nearest'"):
        shelf["nearst"]


def test_a_class_must_have_a_kind_that_is_its_own_and_new() -> None:
    shelf = Shelf[type[Method]]("method")

    class Nearest(Method):
        kind = "nearest"

    class Heir(Nearest):
        pass

    class Other(Method):
        kind = "nearest"

    shelf.enroll(Nearest)
    with pytest.raises(KeyError, match="kind"):
        shelf.enroll(Heir)
    with pytest.raises(AssertionError, match="registered twice"):
        shelf.enroll(Other)
