"""What every initialization has in common: from a dense model to one with factors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.factorize.request import Request
from kronpress.families import Site, base_prefix, family_of, has_module, replace_module, select_sites
from kronpress.layers import KroneckerEmbedding, StructuredLayer, bias_of, weight_of
from kronpress.registry import Shelf
from kronpress.step import Workbench


class Initialization(BaseModel, ABC):
    """A way to choose factors; its fields are its hyperparameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str]

    def check(self, bench: Workbench, request: Request) -> None:
        """Look for mistakes in the request that the model alone shows.

        Raises:
            KronpressError: no such sites, or shapes that do not divide.
        """
        select_sites(bench.student, request.sites, skip_blocks=request.skip_blocks)

    @abstractmethod
    def apply(self, bench: Workbench, request: Request) -> list[dict[str, Any]]:
        """Replace what `request` names in the student; return one report per replaced module.

        A report holds the path, role, block, parameters before and after, and the relative error.
        """


class MatrixInitialization(Initialization):
    """An initialization that looks at one weight matrix at a time and needs no text."""

    @abstractmethod
    def fit(
        self, weight: Float[Tensor, "out in"], *, site: Site, request: Request, layer: nn.Module
    ) -> tuple[StructuredLayer, float]:
        """Return the structured layer that takes the place of `layer`, and ‖weight − its weight‖."""

    def apply(self, bench: Workbench, request: Request) -> list[dict[str, Any]]:
        """Replace each selected site; a tied head follows its embedding."""
        model = bench.student
        sites = select_sites(model, request.sites, skip_blocks=request.skip_blocks)
        tied = model.config.tie_word_embeddings and any(site.role == "embedding" for site in sites)
        reports = []
        for site in tqdm(sites, desc=f"factorize ({self.kind})", unit="matrix", disable=None):
            if site.role == "head" and tied:
                continue
            reports.append(self._replace(model, site, request))
        if tied:
            _tie_head(model)
        return reports

    @torch.no_grad()
    def _replace(self, model: PreTrainedModel, site: Site, request: Request) -> dict[str, Any]:
        layer = model.get_submodule(site.path)
        if isinstance(layer, StructuredLayer):
            raise KronpressError(f"{site.path} has been factorized already; choose other sites")
        weight = weight_of(layer)
        structured, error = self.fit(weight, site=site, request=request, layer=layer)
        replace_module(model, site.path, module=structured)
        return {
            "path": site.path,
            "role": site.role,
            "block": site.block,
            "parameters_before": sum(p.numel() for p in layer.parameters()),
            "parameters_after": structured.parameter_count,
            "relative_error": error / max(float(torch.linalg.vector_norm(weight.double())), 1e-30),
            "layer": structured.extra_repr(),
        }


def _tie_head(model: PreTrainedModel) -> None:
    family = family_of(model)
    if not has_module(model, family.head):
        return
    embedding = model.get_submodule(base_prefix(model) + family.embedding)
    if isinstance(embedding, KroneckerEmbedding):
        head = embedding.as_head(bias=bias_of(model.get_submodule(family.head)))
        replace_module(model, family.head, module=head)


INITIALIZATIONS: Shelf[type[Initialization]] = Shelf("initialization")
