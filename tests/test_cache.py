from __future__ import annotations

from pathlib import Path

import pytest

from kronpress.cache import cache_folder
from kronpress.errors import KronpressError


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KRONPRESS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "kronpress"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/kronpress")
    monkeypatch.setenv("KRONPRESS_CACHE", "~/mine")
    assert cache_folder() == Path.home() / "mine"


def test_a_home_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONPRESS_CACHE", "~no-such-user/x")
    with pytest.raises(KronpressError, match=r"the folder of the cache, ~no-such-user/x, is no path .*KRONPRESS_CACHE"):
        cache_folder()
