"""Acting right after another package is imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from kronpress.imports import lazily, when_imported

NAME = "kronpress_made_up"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that is not imported yet, and the finders as they were afterwards."""
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "__init__.py").write_text("VALUE = 1\n")
    (tmp_path / NAME / "data.txt").write_text("data")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield tmp_path / NAME / "__init__.py"
    sys.modules.pop(NAME, None)


def test_the_action_follows_the_first_import_alone(package: Path) -> None:
    finders, seen = list(sys.meta_path), []
    when_imported(NAME, lambda: seen.append(sys.modules[NAME].VALUE))
    assert importlib.util.find_spec(NAME) is not None
    assert seen == [], "to look for the package is not to import it"
    module = importlib.import_module(NAME)
    assert seen == [1] and sys.meta_path == finders
    assert type(module.__loader__) is type(module.__spec__.loader) is SourceFileLoader
    importlib.reload(module)
    assert seen == [1]
    when_imported(NAME, lambda: seen.append(2))
    assert seen == [1, 2], "what is imported already is acted on at once"


def test_several_actions_and_other_hooks_live_side_by_side(package: Path) -> None:
    class Other:
        """Looks through all other finders, as import hooks do."""

        inside = False

        def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            if name != NAME or self.inside:
                return None
            self.inside = True
            try:
                return importlib.util.find_spec(name)
            finally:
                self.inside = False

    seen: list[int] = []
    sys.meta_path.insert(0, Other())
    when_imported(NAME, lambda: seen.append(1))
    when_imported(NAME, lambda: seen.append(2))
    sys.meta_path.insert(0, Other())
    importlib.import_module(NAME)
    assert seen == [1, 2]


def test_a_package_that_does_not_load_may_be_tried_again(package: Path) -> None:
    seen: list[int] = []
    when_imported(NAME, lambda: seen.append(1))
    package.write_text("raise OSError('no disk')\n")
    for _ in range(2):
        with pytest.raises(OSError, match="no disk"):
            importlib.import_module(NAME)
    package.write_text("VALUE = 123\n")
    importlib.invalidate_caches()
    assert importlib.import_module(NAME).VALUE == 123
    assert seen == [1]


def test_an_action_that_fails_fails_the_import(package: Path) -> None:
    def fail() -> None:
        raise ImportError("an old version")

    when_imported(NAME, fail)
    for _ in range(2):
        with pytest.raises(ImportError, match="an old version"):
            importlib.import_module(NAME)


def test_the_loader_stands_for_the_one_it_wraps(package: Path) -> None:
    when_imported(NAME, lambda: None)
    spec, plain = importlib.util.find_spec(NAME), PathFinder.find_spec(NAME)
    assert spec is not None and plain is not None and spec.loader is not None
    assert (spec.origin, spec.submodule_search_locations) == (plain.origin, plain.submodule_search_locations)
    assert getattr(spec.loader, "get_source")(NAME) == "VALUE = 1\n"  # noqa: B009
    assert importlib.util.find_spec("kronpress_not_there") is None


def test_a_module_comes_when_it_is_asked_for(package: Path) -> None:
    later = lazily(NAME)
    assert not hasattr(later, "__wrapped__") and NAME not in sys.modules
    assert later.VALUE == 1
    with pytest.raises(AttributeError, match="missing"):
        later.missing  # noqa: B018
