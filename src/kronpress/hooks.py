"""Load the plug-in for transformers when it is first needed: `import kronpress` costs next to nothing then.

Transformers loads its parts as they are asked for. Once one of those that the plug-in changes has been loaded, the
plug-in is loaded too, before the statement that asked for it goes on.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_PLUGINS = {
    "transformers.models.auto.configuration_auto": "kronpress.checkpoint.plugin",
    "transformers.modeling_utils": "kronpress.checkpoint.plugin",
    "transformers.trainer": "kronpress.checkpoint.trainer",
}


class _Watcher(MetaPathFinder):
    """Sees each module of transformers come and go: half-loaded ones cannot be used yet."""

    loading = 0

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module of transformers as Python does, and notice when it has been loaded."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname.startswith("transformers.") else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            self.loading += 1
            try:
                execute(module)
            finally:
                self.loading -= 1
            self.catch_up()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def catch_up(self) -> None:
        """Load the plug-ins of what has been loaded, unless a module of transformers is in the middle of it."""
        for module, plugin in _PLUGINS.items():
            if self.loading == 0 and module in sys.modules and plugin not in sys.modules:
                importlib.import_module(plugin)


def watch() -> None:
    """Teach transformers to open kronpress checkpoints, at once or as soon as it is used."""
    if not any(isinstance(finder, _Watcher) for finder in sys.meta_path):
        watcher = _Watcher()
        sys.meta_path.insert(0, watcher)
        watcher.catch_up()
