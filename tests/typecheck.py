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
    """Decorate as `jaxtyped` does, which looks at every argument twice and binds them, for better messages.

    A function that names no shapes needs no memory of them, either.
    """
    if function is None:
        return functools.partial(_quick, typechecker=typechecker)
    if not inspect.isfunction(function):
        return _jaxtyped(function, typechecker=typechecker)
    hints = {name: _resolved(hint, function.__globals__) for name, hint in function.__annotations__.items()}
    shapes = [shape for hint in hints.values() for shape in _shapes(hint)]
    if shapes and inspect.isgeneratorfunction(function):
        return _generator(_jaxtyped(function, typechecker=typechecker))
    if any("{" in shape for shape in shapes):  # the value of an argument
        return _jaxtyped(function, typechecker=typechecker)
    function.__annotations__ = hints
    return _remembering(typechecker(function)) if shapes else typechecker(function)


def _remembering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let all sizes of one name be the same during a call."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        with _jaxtyped("context"):
            return function(*args, **options)

    return call


def _generator(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make what `jaxtyped` returns a generator again: `torch.no_grad` treats a generator in its own way."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return (yield from function(*args, **options))

    return call


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    """Return what an annotation names, or Any where that is imported for mypy alone."""
    named = type("", (), {"__annotations__": {"hint": hint}})
    try:
        return get_type_hints(named, names, include_extras=True)["hint"]
    except Exception:  # as jaxtyping does
        return Any


def _shapes(hint: Any) -> list[str]:
    """Return the shapes that an annotation names."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return [hint.dim_str]
    return [shape for part in get_args(hint) for shape in _shapes(part)]
