"""The factorize step of a recipe."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SerializeAsAny, field_validator
from tqdm import tqdm

from kronpress.checkpoint import adopt, notes_of, settle_ties
from kronpress.factorize.initialization import INITIALIZATIONS, Initialization
from kronpress.factorize.request import Request
from kronpress.step import STEPS, Step, Workbench
from kronpress.validation import parse_named


@STEPS.register("factorize")
class Factorize(Step, Request):
    """Replace dense modules of the student by layers with factors.

    Attributes:
        init: the initialization, by name or as a mapping with `name` and its fields.
    """

    kind: ClassVar[str] = "factorize"
    init: SerializeAsAny[Initialization]

    @field_validator("init", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Initialization:
        init: Initialization = parse_named(value, INITIALIZATIONS, key="init")
        return init

    def check(self, bench: Workbench) -> None:
        """Check that the sites exist and that their shapes divide."""
        self.init.check(bench, self._request())

    def _request(self) -> Request:
        return Request(**{name: getattr(self, name) for name in Request.model_fields})

    def run(self, bench: Workbench) -> dict[str, Any]:
        """Apply the initialization to the student, which saves and trains as a kronpress model from then on."""
        settle_ties(bench.student)
        before = len(notes_of(bench.student))
        modules = self.init.apply(bench, self._request())
        adopt(bench.student)
        notes = notes_of(bench.student)[before:]
        for text in notes:
            tqdm.write(f"note: {text}")
        return {
            "init": {"name": self.init.kind, **self.init.settings(bench.student)},
            "modules": modules,
            "notes": notes,
            "parameters": sum(parameter.numel() for parameter in bench.student.parameters()),
        }
