"""The adapters that a recipe can name: what each is, and how peft is told of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import Field

from kronpress.adapters.package import peft_package
from kronpress.registry import Shelf
from kronpress.validation import Checked


class Adapters(Checked, ABC):
    """Small matrices that learn in place of a model's own numbers: W becomes W + alpha / rank · update.

    Attributes:
        kind: what a recipe calls them.
        beside: whether a dense layer applies the update to its inputs, rather than add it to its weight first.
        sites: the layers that take them: roles, groups, globs or `re:`, as in a factorize step; no token tables.
        rank: inner size of the update.
        alpha: scale of the update, by default the rank, which scales by 1.
    """

    kind: ClassVar[str]
    beside: ClassVar[bool]

    sites: str = "all"
    rank: int = Field(default=8, ge=1)
    alpha: float | None = Field(default=None, gt=0)

    @property
    def strength(self) -> float:
        """The `alpha` that is taken where none is given."""
        return self.rank if self.alpha is None else self.alpha

    @abstractmethod
    def config(self, targets: str) -> Any:
        """Return peft's configuration of such adapters on the modules whose paths match an expression.

        Raises:
            KronpressError: peft is not installed.
        """


ADAPTERS: Shelf[type[Adapters]] = Shelf("kind of adapters")


@ADAPTERS.enroll
class Lora(Adapters):
    """An update by two thin matrices, B · A (Hu et al., arXiv 2106.09685); it begins as zero."""

    kind: ClassVar[str] = "lora"
    beside: ClassVar[bool] = True

    def config(self, targets: str) -> Any:
        """Return a `LoraConfig`."""
        return peft_package().LoraConfig(r=self.rank, lora_alpha=self.strength, target_modules=targets)


@ADAPTERS.enroll
class Lokr(Adapters):
    """An update by a Kronecker product whose right factor is of low rank; it begins as zero.

    Sides are split near their square roots. From a rank of half the right factor's longer side on that factor is whole,
    and the update is KronA's (Edalati et al., arXiv 2212.10650).
    """

    kind: ClassVar[str] = "lokr"
    beside: ClassVar[bool] = False

    def config(self, targets: str) -> Any:
        """Return a `LoKrConfig`."""
        return peft_package().LoKrConfig(r=self.rank, alpha=self.strength, target_modules=targets)
