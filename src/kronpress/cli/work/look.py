"""Look at a model."""

from __future__ import annotations

from collections import defaultdict

from rich.console import Console
from rich.table import Column, Table
from transformers import PreTrainedModel

from kronpress.checkpoint import load
from kronpress.cli.work.opening import tell_notes
from kronpress.evaluate import footprint
from kronpress.families import Site, layout
from kronpress.layers import LayerSpec, StructuredLayer, StructuredSpec, spec_of
from kronpress.linalg import KroneckerShape, divisors


def inspect(name: str, *, shapes: int) -> None:
    """Print a model's family, its sites, and so many Kronecker shapes for each matrix."""
    opened = load(name)
    tell_notes(opened)
    parts = layout(opened)
    size = footprint(opened)
    console = Console()
    console.print(
        f"{type(opened).__name__}: {', '.join(parts.family.model_types)} family, {len(parts.block_paths)} blocks, "
        f"{size.parameters:,} parameters (untied {size.parameters_untied:,}, "
        f"without head {size.parameters_without_head:,}), {size.flops_per_token:,} FLOPs per token",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_sites(opened, parts.sites))
    console.print(_shapes(opened, parts.sites, shapes))


def _sites(model: PreTrainedModel, sites: tuple[Site, ...]) -> Table:
    groups: dict[tuple[str, str], list[Site]] = defaultdict(list)
    for site in sites:
        groups[(site.role, _describe(model, site))].append(site)
    layer, first = Column("layer", overflow="fold"), Column("first path", overflow="fold")
    table = Table("role", layer, "count", "parameters", first)
    for (role, description), members in groups.items():
        total = sum(_form(model, site).parameters for site in members)
        table.add_row(role, description, str(len(members)), f"{total:,}", members[0].path)
    return table


def _describe(model: PreTrainedModel, site: Site) -> str:
    layer = model.get_submodule(site.path)
    if isinstance(layer, StructuredLayer):
        levels = sorted({grid.levels for part in _parts(layer) for grid in part.spec.stored.values()})
        return f"{layer.spec.kind}: {layer.extra_repr()}" + (f", {' and '.join(levels)}" if levels else "")
    rows, columns = _form(model, site).matrix
    return f"{type(layer).__name__} {rows} × {columns}"


def _parts(layer: StructuredLayer) -> list[StructuredLayer]:
    return [part for part in layer.modules() if isinstance(part, StructuredLayer)]


def _form(model: PreTrainedModel, site: Site) -> LayerSpec:
    form = spec_of(model.get_submodule(site.path))
    assert form is not None, f"{site.path} is no layer"
    return form


def _shapes(model: PreTrainedModel, sites: tuple[Site, ...], count: int) -> Table:
    caption = (
        "right: (m2, n2) as a recipe takes it, which swaps it for down; share: parameters of one term, and its FLOPs "
        "contracting right or left first (KroneckerBERT, eq. 7), relative to the dense matrix; exact: so many terms "
        "represent any matrix; a fused module is split into its shares"
    )
    headings = ("role", "matrix", "right", "parameters", "share", "right first", "left first", "exact")
    table = Table(*headings, caption=caption)
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for site in sites:
        form = _form(model, site)
        if isinstance(form, StructuredSpec) or (site.role, form.matrix) in seen:
            continue
        rows, columns = form.matrix
        seen.add((site.role, form.matrix))
        for shape in _choices((rows // max(1, len(site.shares)), columns), count):
            table.add_row(site.role, *_cells(shape, site))
    return table


def _cells(shape: KroneckerShape, site: Site) -> tuple[str, ...]:
    rows, columns = shape.matrix
    pair = (shape.n2, shape.m2) if site.role == "down" else (shape.m2, shape.n2)  # as a recipe has it
    orders = [shape.flops(right_first=first) / ((2 * columns - 1) * rows) for first in (True, False)]
    shares = [f"{share:.2%}" for share in (shape.parameters / (rows * columns), *orders)]
    right = f"[{pair[0]}, {pair[1]}]"
    return f"{rows} × {columns}", right, f"{shape.parameters:,}", *shares, str(shape.max_terms)


def _choices(matrix: tuple[int, int], count: int) -> list[KroneckerShape]:
    """Return shapes spread over the possible sizes, the largest first."""
    every = [
        KroneckerShape.of_right(matrix, right=(m2, n2))
        for m2 in divisors(matrix[0])
        for n2 in divisors(matrix[1])
        if m2 * n2 > 1
    ]
    by_size: dict[int, KroneckerShape] = {}
    for shape in sorted(every, key=lambda shape: (shape.flops(right_first=shape.right_first), shape.max_terms)):
        by_size.setdefault(shape.parameters, shape)
    ordered = [by_size[size] for size in sorted(by_size, reverse=True) if size < matrix[0] * matrix[1]]
    return ordered[:: max(1, len(ordered) // count)][:count]
