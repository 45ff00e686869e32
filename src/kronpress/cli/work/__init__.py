"""What the commands do; each module here is imported when a command first needs it.

So help and mistakes in the options are answered before torch is imported. The files above, which hold the options, must
import neither torch nor what imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kronpress.imports import lazily

if TYPE_CHECKING:
    from kronpress.cli.work import clean, evaluate, export, look, run, trim, use
else:
    clean, evaluate, export, look, run, trim, use = (
        lazily(f"{__name__}.{name}") for name in ("clean", "evaluate", "export", "look", "run", "trim", "use")
    )

__all__ = ["clean", "evaluate", "export", "look", "run", "trim", "use"]
