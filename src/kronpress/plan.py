"""Which layer stands at which module path: the description of a compressed architecture."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator
from torch import nn

from kronpress.errors import KronpressError, shown
from kronpress.layers import LayerSpec, parse_spec, structured_layers
from kronpress.notation import read_yaml, write_yaml
from kronpress.validation import parse

Width = Annotated[int, Field(strict=True, ge=1)]


class Plan(BaseModel):
    """What a compressed model is, beside the config of the dense one: it can be written, priced and searched.

    Paths are those of the compressed model, in which the blocks that are kept are numbered from 0.

    Attributes:
        modules: path → what stands there; the other modules are those of the dense model.
        blocks: the numbers of the blocks that are kept, in ascending order; None keeps all.
        widths: the hidden neurons of the feed-forward blocks, one number for all or one for each block that is kept;
            None keeps those of the config.

    >>> Plan.parse({"modules": {"lm_head": {"kind": "dense_linear", "in_features": 4, "out_features": 9}}})
    Plan(modules={'lm_head': DenseLinearSpec(in_features=4, out_features=9)})
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    modules: Mapping[str, SerializeAsAny[LayerSpec]] = Field(default={})
    blocks: Annotated[tuple[Annotated[int, Field(strict=True, ge=0)], ...], Field(min_length=1)] | None = None
    widths: Width | tuple[Width, ...] | None = None

    @model_validator(mode="after")
    def _has_blocks_once(self) -> Plan:
        if any(block >= following for block, following in pairwise(self.blocks or ())):
            raise KronpressError(f"blocks: {shown(list(self.blocks or ()))} must ascend, each block named once")
        return self

    @classmethod
    def of(cls, model: nn.Module) -> Plan:
        """Return the plan of a model, which says where it has structured layers.

        Blocks and widths are left out: a model's own config says how many it has.
        """
        return cls(modules={path: layer.spec for path, layer in structured_layers(model).items()})

    @classmethod
    def parse(cls, value: Any, *, place: str = "the plan") -> Plan:
        """Return the plan that a mapping describes, as JSON or YAML has it; `place` is what messages call it.

        Raises:
            KronpressError: an unknown key, or a value that is not understood.
        """
        modules = value.get("modules", {}) if isinstance(value, dict) else None
        if not isinstance(modules, dict):
            raise KronpressError(f"{place} is {shown(value)}; give a mapping with modules: module path → layer")
        specs = {path: _parsed(spec, place=f"{place}: modules['{str(path)[:120]}']") for path, spec in modules.items()}
        return parse(cls, {**value, "modules": specs}, place=place)

    @classmethod
    def from_yaml(cls, text: str, *, place: str = "the plan") -> Plan:
        """Return the plan that a text of YAML or JSON describes."""
        return cls.parse(read_yaml(text, place=place), place=place)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as values that JSON knows."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_yaml(self) -> str:
        """Return the plan as YAML, which `from_yaml` reads."""
        return write_yaml(self.to_json())

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Return the fields that are not at their default."""
        fields = ((name, getattr(self, name)) for name in type(self).model_fields)
        return [(name, value) for name, value in fields if value]


def _parsed(spec: Any, *, place: str) -> LayerSpec:
    return spec if isinstance(spec, LayerSpec) else parse_spec(spec, LayerSpec, place=place, remedy="correct the plan")
