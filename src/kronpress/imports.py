"""Import our own modules when they are first needed, and act right after another package is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from itertools import dropwhile
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:  # which import half of the standard library
    Loader = MetaPathFinder = object


def lazily(name: str) -> ModuleType:
    """Return a stand-in for one of our modules, which is imported when first asked for something in it.

    Import it under TYPE_CHECKING as well, so that its types are known.
    """
    return _Later(name)


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what inspection asks of any object
            raise AttributeError(f"'{self.__name__}' is not imported yet and has no '{name}'")
        return getattr(import_module(self.__name__), name)


def when_imported(name: str, action: Callable[[], object]) -> None:
    """Call `action` at once where the package `name` is imported already, else once, right after its first import.

    What `action` raises fails that import, which may then be tried again.
    """
    if sys.modules.get(name) is not None:
        action()
    else:
        sys.meta_path.insert(0, _Finder(name, action))


class _Finder(MetaPathFinder):
    """Lets the finders after it find the package, which may be hooks as well; only loading it acts."""

    def __init__(self, name: str, action: Callable[[], object]) -> None:
        self.name, self.action = name, action

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        for finder in list(dropwhile(lambda finder: finder is not self, list(sys.meta_path)))[1:]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                spec.loader = _Loader(spec.loader, self) if spec.loader else None
                return spec
        return None


class _Loader(Loader):
    """Loads as the loader it stands for, which the loaded module names as its own; then acts."""

    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:  # else a loader inside of this one has acted
            self._finder.action()
            sys.meta_path.remove(self._finder)
