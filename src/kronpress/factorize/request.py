"""Which modules to factorize, and into what shapes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from transformers import PreTrainedModel

from kronpress.errors import KronpressError, shown
from kronpress.families import Blocks, Site, layout, select_sites
from kronpress.linalg import KroneckerShape
from kronpress.validation import Checked

Pair = tuple[int, int]


class Request(Checked):
    """The part of a factorize step that is the same for each initialization, which says what it reads of it.

    Attributes:
        sites: a role, a group of roles, a glob or `re:` expression (see `kronpress inspect`).
        blocks: `all`, `odd` (1, 3, 5, …), `even` or a list of numbers from 0.
        skip_blocks: blocks left dense all the same.
        left: (m1, n1) of the left factors, for matrices as out × in; swapped for `down`, whose matrix
            has the transposed shape (KroneckerBERT and Krony-PT name their shapes so).
        right: (m2, n2) of the right factors, swapped likewise; give either this or `left`.
        terms: Kronecker products in the sum.
        scales: keep a learnable scale per term apart from the factors.
        levels: how often a table's left factor is factorized again, the first time included (TQCompressor: 2).
        permute: `folded` searches orders of the hidden neurons, which cost nothing later; `all` also orders of
            the other rows and columns, which the layers keep and apply (TQCompressor's permutations).
        head: what becomes of the output head where the embedding is factorized: `tied` to the factors, `untied` with
            factors of its own, or `dense` with the full matrix; by default a tied head is tied to the factors, and
            one that has weights of its own keeps them (`tied` drops those, which the report tells).
        ratio: parameters to keep, as a fraction, for low-rank factors.
    """

    sites: str = "feed_forward"
    blocks: Blocks = "all"
    skip_blocks: tuple[int, ...] = ()
    left: Pair | None = None
    right: Pair | None = None
    terms: int = Field(default=1, ge=1)
    scales: bool = False
    levels: int = Field(default=1, ge=1)
    permute: Literal["none", "folded", "all"] = "none"
    head: Literal["tied", "untied", "dense"] | None = None
    ratio: float = Field(default=0.5, gt=0, lt=1)

    def sites_of(self, model: PreTrainedModel) -> list[Site]:
        """Return the sites of the model that this request names.

        Raises:
            KronpressError: none, or the pattern is not understood.
        """
        return select_sites(model, self.sites, blocks=self.blocks, skip_blocks=self.skip_blocks)

    def shape(self, matrix: Pair, *, site: Site) -> KroneckerShape:
        """Return the factors' shapes for the matrix (out, in) at `site`.

        Raises:
            KronpressError: no shape is given, it does not divide the matrix, or it takes fewer terms.
        """
        if (self.left is None) == (self.right is None):
            raise KronpressError(
                "a Kronecker factorization needs either left: [m1, n1] or right: [m2, n2], for instance "
                "right: [1, 2], which halves a matrix; `kronpress inspect MODEL` lists the shapes"
            )
        try:
            if self.left is not None:
                shape = KroneckerShape.of_left(matrix, left=_oriented(self.left, site))
            else:
                assert self.right is not None
                shape = KroneckerShape.of_right(matrix, right=_oriented(self.right, site))
            shape.require_terms(self.terms)
            return shape
        except KronpressError as error:
            raise KronpressError(f"{site.path} ({matrix[0]} × {matrix[1]}): {error}") from error

    def require_effect(self, model: PreTrainedModel) -> None:
        """Check that the model has what `permute` and `head` speak of.

        Raises:
            KronpressError: it has not.
        """
        sites = self.sites_of(model)
        paths, roles = {site.path for site in sites}, {site.role for site in sites}
        if self.permute == "folded" and not any(
            side.path in paths for fold in layout(model).folds for side in fold.sides
        ):
            raise KronpressError(
                f"permute: folded finds no order that folds into neighbors of {self.sites}; leave it out"
            )
        if self.head in (None, "tied"):
            return
        if "embedding" not in roles:
            raise KronpressError(
                f"head: {self.head} says what becomes of the output head when the embedding is factorized, and sites "
                f"is {shown(self.sites)}; leave it out, or add embedding to sites"
            )
        if model.config.tie_word_embeddings:
            return
        if (self.head == "dense") == ("head" in roles):
            remedy = "leave it out of sites" if self.head == "dense" else "add head to sites"
            raise KronpressError(f"head: {self.head}, but the model's head has its own matrix; {remedy}")

    def rank(self, matrix: Pair) -> int:
        """Return the rank whose two factors hold `ratio` of the numbers of the matrix."""
        return max(1, int(self.ratio * matrix[0] * matrix[1] / sum(matrix)))


def _oriented(pair: Pair, site: Site) -> Pair:
    return (pair[1], pair[0]) if site.role == "down" else pair
