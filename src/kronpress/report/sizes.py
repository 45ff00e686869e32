"""A footprint as labeled quantities, which every form of report shows alike."""

from __future__ import annotations

from dataclasses import dataclass

from kronpress.records import Footprint

PARAMETERS = "parameters"
PARAMETERS_UNTIED = "parameters, untied"
PARAMETERS_WITHOUT_HEAD = "parameters, without head"
PARAMETERS_EFFECTIVE = "parameters, multiplied out"
FLOPS = "FLOPs per token"
BLOCK_FLOPS = "FLOPs per token, blocks (eq. 7)"
DISK = "size on disk"


@dataclass(frozen=True)
class Quantity:
    """A number with its unit: `parameters`, `bytes`, `FLOPs` are abbreviated, any other unit is printed as given."""

    value: float
    unit: str


def quantities(size: Footprint | None) -> dict[str, Quantity]:
    """Return what is known of a size, by the labels above."""
    if size is None:
        return {}
    rows = (
        (PARAMETERS, size.parameters, "parameters"),
        (PARAMETERS_UNTIED, size.parameters_untied, "parameters"),
        (PARAMETERS_WITHOUT_HEAD, size.parameters_without_head, "parameters"),
        (PARAMETERS_EFFECTIVE, size.parameters_effective, "parameters"),
        (FLOPS, size.flops_per_token, "FLOPs"),
        (BLOCK_FLOPS, size.block_flops_per_token, "FLOPs"),
        (DISK, size.bytes_on_disk, "bytes"),
    )
    return {label: Quantity(value, unit) for label, value, unit in rows if value}
