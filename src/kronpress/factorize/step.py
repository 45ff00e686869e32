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

_OF_ALL = {"sites", "blocks", "skip_blocks"}


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
        """Check that the sites exist, that their shapes divide, and that no field is without effect."""
        request = self._request()
        self.init.check(bench, request)
        request.require_effect(bench.student)

    def unread(self) -> dict[str, str]:
        """Return the fields of the request that the initialization takes no account of."""
        mine = self.init.reads | _OF_ALL
        remedy = f"init: {self.init.kind} takes {', '.join(sorted(self.init.reads)) or 'the fields of init alone'}"
        return {name: _remedy(name, remedy) for name in Request.model_fields if name not in mine}

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


def _remedy(name: str, reason: str) -> str:
    others = [other for other, method in INITIALIZATIONS.items() if name in method.reads]
    return f"{reason}: leave {name} out, or choose init: {', '.join(others)}"
