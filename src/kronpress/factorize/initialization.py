"""What every initialization has in common: from a dense model to one with factors."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.bars import Bar
from kronpress.checkpoint import note
from kronpress.errors import KronpressError
from kronpress.factorize.request import Request
from kronpress.families import Site, base_prefix, family_of, has_module, replace_module
from kronpress.layers import (
    FactoredEmbedding,
    FactoredHead,
    FusedLinear,
    StructuredLayer,
    bias_of,
    linear,
    weight_of,
)
from kronpress.registry import Shelf
from kronpress.step import Workbench
from kronpress.validation import Checked


class Initialization(Checked, ABC):
    """A way to choose factors; its fields are its hyperparameters.

    Attributes:
        reads: the fields of the request that it takes account of, beside those that choose sites.
    """

    kind: ClassVar[str]
    reads: ClassVar[frozenset[str]] = frozenset()

    def check(self, bench: Workbench, request: Request) -> None:
        """Look for mistakes in the request that the model alone shows.

        Raises:
            KronpressError: no such sites, or shapes that do not divide.
        """
        request.sites_of(bench.student)

    def settings(self, model: PreTrainedModel) -> dict[str, Any]:
        """Return its fields for the report, with what they come to for this model where they leave that open."""
        return self.model_dump(mode="json")

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

    def prepare(self, model: PreTrainedModel, sites: list[Site], request: Request) -> None:
        """Change the dense weights where that leaves the function of the model and helps what follows."""

    def apply(self, bench: Workbench, request: Request) -> list[dict[str, Any]]:
        """Replace each selected site; the head of a tied model becomes what the request says."""
        model = bench.student
        sites = without_tied_head(model, request)
        self.prepare(model, sites, request)
        progress = Bar(sites, desc=f"factorize ({self.kind})", unit="site")
        reports = [replace_site(model, site, partial(self._fitted, site=site, request=request)) for site in progress]
        settle_head(model, mode=request.head)
        return reports

    def _fitted(self, layer: nn.Module, *, site: Site, request: Request) -> Fitted:
        weight = weight_of(layer)
        structured, error = self.fit(weight, site=site, request=request, layer=layer)
        return structured, error, float(torch.linalg.vector_norm(weight.double()))


Fitted: TypeAlias = tuple[StructuredLayer, float, float]
"""A structured layer, the norm of its error, and the norm of what it stands for."""


@torch.no_grad()
def replace_site(model: PreTrainedModel, site: Site, fit: Callable[[nn.Module], Fitted]) -> dict[str, Any]:
    """Put what `fit` makes of a dense layer, or of each share of a fused one, in its place; return the report.

    Raises:
        KronpressError: the site has been factorized already.
    """
    layer = dense_at(model, site)
    fits = [fit(share) for share in shares_of(layer, site)]
    parts = [part for part, _, _ in fits]
    structured = FusedLinear.of(parts, bias=bias_of(layer)) if site.shares else parts[0]
    error, norm = (math.hypot(*column) for column in ([each[1] for each in fits], [each[2] for each in fits]))
    replace_module(model, site.path, module=structured)
    return {
        "path": site.path,
        "role": site.role,
        "block": site.block,
        "parameters_before": sum(p.numel() for p in layer.parameters()),
        "parameters_after": structured.parameter_count,
        "relative_error": error / max(norm, 1e-30),
        "layer": structured.extra_repr() or repr(structured),
    }


def dense_at(model: PreTrainedModel, site: Site) -> nn.Module:
    """Return the dense layer at a site.

    Raises:
        KronpressError: the site has been factorized already.
    """
    layer = model.get_submodule(site.path)
    if isinstance(layer, StructuredLayer):
        raise KronpressError(f"{site.path} has been factorized already; choose other sites")
    return layer


def shares_of(layer: nn.Module, site: Site) -> list[nn.Module]:
    """Return the dense layers that a module stands for: itself, or one without bias for each share of a fused one."""
    if not site.shares:
        return [layer]
    return [linear(share) for share in weight_of(layer).chunk(len(site.shares))]


def dense_shares(model: PreTrainedModel, site: Site) -> list[nn.Module]:
    """Return `shares_of` the layer at a site, none where it has been factorized already."""
    layer = model.get_submodule(site.path)
    return [] if isinstance(layer, StructuredLayer) else shares_of(layer, site)


def without_tied_head(model: PreTrainedModel, request: Request) -> list[Site]:
    """Return the sites of a request without an output head that shares its matrix with a token table among them."""
    sites = request.sites_of(model)
    tied = model.config.tie_word_embeddings or request.head == "tied"
    shared = tied and any(site.role == "embedding" for site in sites)
    return [site for site in sites if not (shared and site.role == "head")]


def settle_head(model: PreTrainedModel, *, mode: str | None) -> None:
    """Give a model whose embedding has just been factorized the head of the `mode` of `Request.head`.

    Raises:
        KronpressError: a head of its own is to be tied to an embedding of another size.
    """
    family = family_of(model)
    embedding = model.get_submodule(base_prefix(model) + family.embedding)
    if not (has_module(model, family.head) and isinstance(embedding, FactoredEmbedding)):
        return
    head = model.get_submodule(family.head)
    if isinstance(head, StructuredLayer):  # settled by an earlier step
        return
    if not model.config.tie_word_embeddings:
        if mode == "tied":
            _drop_head(model, head, embedding)
        return
    if mode in ("tied", None):
        replace_module(model, family.head, module=FactoredHead.of(embedding, bias=bias_of(head)))
        return
    model.config.tie_word_embeddings = False
    own = copy.deepcopy(head)  # BERT shares the bias of its head with another module
    if mode == "untied":
        own = FactoredHead.of(copy.deepcopy(embedding), bias=bias_of(own))
    replace_module(model, family.head, module=own)


def _drop_head(model: PreTrainedModel, head: nn.Module, embedding: FactoredEmbedding) -> None:
    """Tie a head that has weights of its own to the factors of the embedding, and say so."""
    path, weight = family_of(model).head, weight_of(head)
    if weight.shape != embedding.matrix:
        raise KronpressError(
            f"{path} is {tuple(weight.shape)} and the embedding {embedding.matrix}, so that they cannot be tied; "
            "leave out head: tied"
        )
    replace_module(model, path, module=FactoredHead.of(embedding, bias=bias_of(head)))
    model.config.tie_word_embeddings = True
    note(
        model,
        f"head: tied dropped the trained weights of the output head {path} ({weight.numel():,} numbers, other than "
        "those of the embedding); without head: tied they are kept",
    )


INITIALIZATIONS: Shelf[type[Initialization]] = Shelf("initialization")
