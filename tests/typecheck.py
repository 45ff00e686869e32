"""How annotations are checked while tests run: as mypy does, an int is a float."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import jaxtyping
import transformers.trainer  # noqa: F401  (what is first imported under the hook is compiled anew)
from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_jaxtyped = jaxtyping.jaxtyped


def check(package: str) -> None:
    """Check every call of the functions of a package, before its first import."""
    jaxtyping.jaxtyped = _quick  # what the hook decorates with
    jaxtyping.install_import_hook(package, f"{__name__}.checked")


def _quick(function: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """Decorate as `jaxtyped` does. A function that names no shapes needs no memory of them, which costs most."""
    if function is None:
        return functools.partial(_quick, typechecker=typechecker)
    if not inspect.isfunction(function):
        return _jaxtyped(function, typechecker=typechecker)
    hints = {name: _resolved(hint, function.__globals__) for name, hint in function.__annotations__.items()}
    if any(map(_has_shape, hints.values())):
        return _jaxtyped(function, typechecker=typechecker)
    function.__annotations__ = hints
    return typechecker(function)


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    """Return what an annotation names, or Any where that is imported for mypy alone."""
    named = type("", (), {"__annotations__": {"hint": hint}})
    try:
        return get_type_hints(named, names, include_extras=True)["hint"]
    except Exception:  # as jaxtyping does
        return Any


def _has_shape(hint: Any) -> bool:
    return (inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)) or any(map(_has_shape, get_args(hint)))
