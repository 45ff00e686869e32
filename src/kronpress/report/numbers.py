"""How numbers read in every form of report."""

from __future__ import annotations

import math

from kronpress.records import NumberFormat, NumberFormats
from kronpress.report.sizes import Quantity

MISSING = "–"


def significant(value: float, *, digits: int = 3) -> str:
    """Return `value` with at least `digits` significant digits, powers of ten from a million on.

    >>> significant(30.119), significant(1234.5), significant(2.7e7)
    ('30.1', '1,234', '2.70e7')
    """
    if not math.isfinite(value):
        return "not finite"
    if abs(value) >= 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, min(digits - 1 - magnitude, 6))}f}"


def abbreviated(value: float) -> str:
    """Return a count with K, M, G or T.

    >>> abbreviated(134_515_008), abbreviated(500)
    ('134.5 M', '500')
    """
    for letter, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.1f} {letter}"
    return f"{value:,.4g}"


def byte_size(value: float) -> str:
    """Return a number of bytes in binary units.

    >>> byte_size(269_000_000)
    '256.5 MiB'
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"


def bit_widths(formats: NumberFormats) -> str:
    """Return the bits of weights, tables and inputs, as papers write them.

    >>> bit_widths(NumberFormats(NumberFormat(1.58), NumberFormat(2), NumberFormat(8)))
    '1.58–2–8'
    """
    inputs = NumberFormat(32) if formats.inputs is None else formats.inputs
    return "–".join(f"{numbers.bits:g}" for numbers in (formats.weights, formats.tables, inputs))


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units.

    >>> duration(4.21), duration(192), duration(7500)
    ('4.2 s', '3 min 12 s', '2 h 05 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def quantity(value: Quantity | None) -> str:
    """Return a quantity in the notation of its unit, a dash for none.

    >>> quantity(Quantity(2**20, "bytes")), quantity(Quantity(3, "layers")), quantity(None)
    ('1.0 MiB', '3 layers', '–')
    """
    if value is None:
        return MISSING
    if value.unit == "bytes":
        return byte_size(value.value)
    if value.unit in ("parameters", "FLOPs"):
        return abbreviated(value.value)
    return f"{significant(value.value) if value.value % 1 else format(value.value, ',.0f')} {value.unit}".strip()


def ratio(value: float) -> str:
    """Return a ratio with the multiplication sign.

    >>> ratio(1.3412), ratio(250.0)
    ('1.34×', '250×')
    """
    return f"{significant(value)}×"


def percent(value: float, *, deviation: float | None = None) -> str:
    """Return a number of percent with two decimals, and its deviation if there is one.

    >>> percent(84.2), percent(84.2, deviation=0.604), percent(-1.5)
    ('84.20', '84.20 ± 0.60', '−1.50')
    """
    if not math.isfinite(value):
        return "not finite"
    digits = f"{abs(value):.2f}"
    sign = "−" if value < 0 and float(digits) else ""
    return f"{sign}{digits}" + (f" ± {percent(deviation)}" if deviation is not None else "")


def change(before: Quantity | None, *, after: Quantity | None) -> str:
    """Return the change from `before` to `after` in percent of `before`.

    >>> change(Quantity(200, "bytes"), after=Quantity(150, "bytes"))
    '−25.0 %'
    """
    if before is None or after is None or not before.value:
        return MISSING
    percent = 100 * (after.value / before.value - 1)
    return f"{'−' if percent < 0 else '+'}{abs(percent):.1f} %" if abs(percent) >= 0.05 else "0 %"
