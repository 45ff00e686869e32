"""Tensor trains from the weights alone: of whole matrices, and of each row of a token table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.factorize.initialization import INITIALIZATIONS, MatrixInitialization, dense_shares, without_tied_head
from kronpress.factorize.request import Request
from kronpress.families import Site
from kronpress.layers import StructuredLayer, TensorTrainEmbedding, TensorTrainLinear, bias_of, weight_of
from kronpress.linalg import (
    Modes,
    balanced_modes,
    check_modes,
    paired_modes,
    tensor_train_matrix,
    tensor_train_rows,
)
from kronpress.step import Workbench


@INITIALIZATIONS.register("tensor_train")
class TensorTrain(MatrixInitialization):
    """A tensor-train matrix by TT-SVD, in the shapes of TTM-R (Chekalina et al., 2023, arXiv 2306.02697).

    Attributes:
        rank: the largest rank between two cores.
        modes: (m, n) of each core, for matrices as out × in; swapped for `down`, whose matrix has the transposed
            shape. By default those of the paper, with at least `rank` numbers per rank in each core but the last.
        redundant: fill each rank up to `rank`, also where the modes can not use it, as the published counts of
            TTM-32, TTM-64 and TTM-80 do; the function stays the same.
        bias: keep the layer's bias. The published counts of TTM-16, TTM-32 and TTM-64 leave those of the
            feed-forward blocks out; dropping them changes the function, which the reported error does not show.
    """

    kind: ClassVar[str] = "tensor_train"
    rank: int = Field(ge=1)
    modes: Modes | None = Field(default=None, min_length=1)
    redundant: bool = False
    bias: bool = True

    def check(self, bench: Workbench, request: Request) -> None:
        """Check sites and modes."""
        for site in request.sites_of(bench.student):
            for share in dense_shares(bench.student, site):
                self._modes_at(site, layer=share)

    def fit(
        self, weight: Float[Tensor, "out in"], *, site: Site, request: Request, layer: nn.Module
    ) -> tuple[StructuredLayer, float]:
        """Decompose the weight and build the layer."""
        modes = self._modes_at(site, layer=layer)
        value = tensor_train_matrix(weight, modes=modes, rank=self.rank, redundant=self.redundant)
        return TensorTrainLinear.of(value, bias=bias_of(layer) if self.bias else None), value.error

    def _modes_at(self, site: Site, *, layer: nn.Module) -> Modes:
        if isinstance(layer, nn.Embedding):
            raise KronpressError(
                f"tensor_train makes linear layers, not the table {site.path}; leave it out of sites, "
                "or factorize it in a step of its own with init: tensor_train_rows"
            )
        rows, columns = weight_of(layer).shape
        if self.modes is None:
            return paired_modes((rows, columns), at_least=self.rank)
        modes = tuple((n, m) for m, n in self.modes) if site.role == "down" else self.modes
        with _naming(f"{site.path} ({rows} × {columns})"):
            check_modes(tuple(m for m, _ in modes), size=rows, axis="row")
            check_modes(tuple(n for _, n in modes), size=columns, axis="column")
        return modes


@INITIALIZATIONS.register("tensor_train_rows")
class TensorTrainRows(MatrixInitialization):
    """A tensor train for each row of a token table, all rows independent (TensorGPT, arXiv 2307.00526).

    Attributes:
        rank: the largest rank between two cores.
        modes: how a row is folded; by default into three modes as equal as its length allows.
    """

    kind: ClassVar[str] = "tensor_train_rows"
    reads: ClassVar[frozenset[str]] = frozenset({"head"})
    rank: int = Field(ge=1)
    modes: tuple[int, ...] | None = Field(default=None, min_length=1)

    def check(self, bench: Workbench, request: Request) -> None:
        """Check sites and modes."""
        for site in without_tied_head(bench.student, request):
            layer = bench.student.get_submodule(site.path)
            if not isinstance(layer, StructuredLayer):
                self._modes_at(site, layer=layer)

    def fit(
        self, weight: Float[Tensor, "out in"], *, site: Site, request: Request, layer: nn.Module
    ) -> tuple[StructuredLayer, float]:
        """Decompose the rows and build the table."""
        value = tensor_train_rows(weight, modes=self._modes_at(site, layer=layer), rank=self.rank)
        padding_idx = layer.padding_idx if isinstance(layer, nn.Embedding) else None
        return TensorTrainEmbedding.of(value, padding_idx=padding_idx), value.error

    def _modes_at(self, site: Site, *, layer: nn.Module) -> tuple[int, ...]:
        if not isinstance(layer, nn.Embedding):
            raise KronpressError(
                f"tensor_train_rows makes token tables, not the linear layer {site.path}; set sites: embedding, "
                "or init: tensor_train for linear layers"
            )
        if self.modes is None:
            return balanced_modes(layer.embedding_dim)
        with _naming(f"{site.path} ({layer.num_embeddings} × {layer.embedding_dim})"):
            check_modes(self.modes, size=layer.embedding_dim, axis="column")
        return self.modes


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Say in an error where it is."""
    try:
        yield
    except KronpressError as error:
        raise KronpressError(f"{place}: {error}") from error
