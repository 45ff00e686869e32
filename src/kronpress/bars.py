"""The progress of long work: a bar on a terminal, else a line every half minute, for logs."""

from __future__ import annotations

import math
import sys
from typing import Any

from tqdm import tqdm

SECONDS = 30.0
"""Between two lines where there is no terminal."""

_LINE = "{desc}: {n_fmt} of {total_fmt} UNITS, {elapsed} gone, {remaining} left, {rate_fmt}{postfix}"


class Bar(tqdm):  # type: ignore[misc]
    """The progress of one loop; used as `tqdm` is.

    Without a terminal nothing is printed of what takes less than half a minute.

    Args:
        iterable: what the loop goes through; without it, call `update`.
        unit: what is counted, in the singular.
        hidden: print nothing at all.
        options: of `tqdm`: `total`, `initial`, `desc`, `leave`.
    """

    def __init__(self, iterable: Any = None, *, unit: str, hidden: bool = False, **options: Any) -> None:
        self.in_lines = not sys.stderr.isatty()
        if self.in_lines:
            line = _LINE.replace("UNITS", f"{unit}es" if unit.endswith("ch") else f"{unit}s")
            options |= {"bar_format": line, "delay": SECONDS, "mininterval": SECONDS, "miniters": 1}
        super().__init__(iterable, unit=unit, disable=hidden, **options)

    def set_postfix(self, ordered_dict: Any = None, refresh: bool = True, **values: Any) -> None:
        """Show values beside the bar, or on the next line."""
        super().set_postfix(ordered_dict, refresh and not self.in_lines, **values)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Print where the loop stands."""
        if not self.in_lines:
            return bool(super().display(msg, pos))
        print(str(self), file=sys.stderr, flush=True)
        return True

    def close(self) -> None:
        """End the bar; after lines comes a last one."""
        if self.in_lines and not self.disable:
            if self.last_print_t > self.start_t:
                self.display()
            self.delay = math.inf  # tqdm has nothing to clear
        super().close()
