"""Which tensors of a model go on which grids, and how its layers come to hold them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.errors import KronpressError
from kronpress.families import (
    Site,
    base_prefix,
    family_of,
    has_module,
    is_causal,
    layout,
    replace_module,
    select_sites,
)
from kronpress.layers import (
    Coded,
    FactoredHead,
    Matrix,
    QuantizedEmbedding,
    QuantizedLinear,
    QuantizedTensor,
    RoundedInputs,
    StructuredLayer,
    bias_of,
    matrices_of,
    scale_of,
    weight_of,
)
from kronpress.quantizers.examples import input_examples
from kronpress.quantizers.storage import Rounding, Storage
from kronpress.validation import Checked

TABLES = ("embedding", "head", "positions", "types")
"""The roles of tables; all others are those of weights."""


class Scheme(Checked):
    """Which tensors go on which grids; a bit width alone stands for `{bits: …}`.

    Attributes:
        weights: of the linear layers in the blocks, and of a pooler; of layers with factors the factors.
        tables: of tokens, positions and token types, and of the output head; by default as `weights`.
        inputs: of the linear layers in the blocks, and of a pooler; by default they are as they are.
        skip: sites that are left as they are: a role, a glob or `re:` expression, several with commas; of a tied head
            and token table both, if either is named.
    """

    weights: Storage
    tables: Storage
    inputs: Rounding | None = None
    skip: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _alike(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and "weights" in fields and fields.get("tables") is None:
            return {**fields, "tables": fields["weights"]}
        return fields

    def targets(self, model: PreTrainedModel) -> list[Target]:
        """Return what the scheme names in a model, in the order of the computation.

        Raises:
            KronpressError: `skip` names nothing, or inputs in a decoder have one scale for all tokens of a batch.
        """
        plan = layout(model)
        skipped = set() if self.skip is None else {site.path for site in select_sites(model, self.skip)}
        sites = [site for site in (*plan.beside, *plan.sites) if site.path not in skipped]
        if model.config.tie_word_embeddings:  # head and table are one, and left if either is to be
            one = [site for site in (*plan.beside, *plan.sites) if site.role in ("embedding", "head")]
            left = {"embedding", "head"} if any(site.path in skipped for site in one) else {"head"}
            sites = [site for site in sites if site.role not in left]
        leaves = self.inputs is None or self.inputs.leaves
        rounding = None if self.inputs is None or leaves else self.inputs.settled(causal=is_causal(model))
        targets = [
            Target(site, self.tables, None) if site.role in TABLES else Target(site, self.weights, rounding)
            for site in sites
        ]
        return [target for target in targets if not (target.storage.leaves and target.rounding is None)]

    def require(self, model: PreTrainedModel) -> None:
        """Check that the grids fit the shapes of the model.

        Raises:
            KronpressError: they do not; the message names the layer.
        """
        for target in self.targets(model):
            if target.storage.leaves:
                continue
            layer = model.get_submodule(target.site.path)
            factored = isinstance(layer, StructuredLayer)
            shapes = [matrix.shape for matrix in target.matrices(layer)] if factored else [weight_of(layer).shape]
            for shape in shapes:
                with _named(target.site.path):
                    target.storage.grid().require(shape)


@dataclass(frozen=True)
class Target:
    """A site whose tensors go on a grid.

    Attributes:
        site: where.
        storage: how its matrices are stored.
        rounding: how its inputs are rounded, if they are.
    """

    site: Site
    storage: Storage
    rounding: Rounding | None

    def layer(self, model: PreTrainedModel) -> StructuredLayer:
        """Return the layer of ours at the site, which takes the place of a dense one."""
        path = self.site.path
        there = model.get_submodule(path)
        if not isinstance(there, StructuredLayer):
            replace_module(model, path, module=_of_ours(there))
            if self.site.role == "embedding":
                _share_table(model)
        layer = model.get_submodule(path)
        assert isinstance(layer, StructuredLayer)
        return layer

    @property
    def needs_inputs(self) -> bool:
        """Whether the rounding of its inputs begins from examples of them."""
        return self.rounding is not None and not self.rounding.grid().dynamic

    def matrices(self, layer: nn.Module) -> list[Matrix]:
        """Return the matrices and factors of the site's layer that go on the grid."""
        if self.storage.leaves:
            return []
        matrices = list(matrices_of(layer))
        large = [matrix for matrix in matrices if math.prod(matrix.shape) >= self.storage.least]
        return matrices if len(matrices) == 1 else large

    def holds(self, matrix: Matrix) -> bool:
        """Say whether a matrix learns on this grid already, by the same quantizer."""
        tensor = matrix.quantized
        return tensor is not None and (tensor.grid, tensor.rule) == (self.storage.grid(), self.storage.quantizer)

    def rounds(self, layer: StructuredLayer) -> bool:
        """Say whether a layer's inputs are rounded in this way already."""
        wanted, there = self.rounding, layer.rounding
        if wanted is None or there is None:
            return False
        return (there.grid, there.rule) == (wanted.grid(), wanted.quantizer)

    def put(self, matrix: Matrix, *, coded: Coded | None = None) -> float:
        """Put a matrix on the grid, where it learns from now on; return ‖W − W'‖ / ‖W‖.

        Args:
            matrix: of the site's layer.
            coded: codes that were found by other means; by default those that the quantizer gives to the numbers as
                they are, or to the latent ones of an earlier grid. Latent numbers stay as near to those before as the
                codes allow, where the quantizer is steady; with others they begin from the numbers of the codes.
        """
        grid, quantizer, before = self.storage.grid(), self.storage.quantizer, matrix.latent
        with _named(self.site.path):
            grid.require(before.shape)
            tensor = QuantizedTensor.of(
                quantizer.coded(before, grid) if coded is None else coded,
                grid,
                before.shape,
                dtype=matrix.tensor.dtype,
            )
            tensor.learn(quantizer, latent=before if coded is None else self._latent(before, coded))
        matrix.store(tensor)
        return float((tensor().detach() - before).norm() / before.norm().clamp_min(1e-30))

    def _latent(self, before: Tensor, coded: Coded) -> Tensor | None:
        """Return latent numbers for codes that were found by other means; None stands for the numbers of the codes."""
        if not self.storage.quantizer.steady:
            return None
        grid = self.storage.grid()
        scale, shift = (None if part is None else grid.rounded(part) for part in (coded.scale, coded.shift))
        assert scale is not None
        return grid.nearest_with(coded.codes, grid.groups(before.float()), scale, shift=shift).view(before.shape)

    def round_inputs(self, layer: StructuredLayer, *, example: Tensor | None) -> None:
        """Round the inputs of the site's layer; `example` is what it was given for some text.

        Raises:
            KronpressError: the example is missing where the quantizer needs one, or has numbers that no grid has.
        """
        if self.rounding is None:
            return
        inputs = RoundedInputs(self.rounding.grid())
        with _named(self.site.path):
            if example is None and self.needs_inputs:
                raise KronpressError(f"{self.rounding.quantizer.kind} begins from inputs of a text; give one")
            seen = torch.zeros(1, 1) if example is None else example
            inputs.learn(self.rounding.quantizer, example=seen)
        layer.round_inputs(inputs)


def round_inputs(model: PreTrainedModel, targets: Sequence[Target], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round the inputs of layers that are to have such; what is rounded in this way already goes on learning.

    Args:
        model: with the targets.
        targets: of a scheme.
        batch: from what the model makes of it, the ranges begin.

    Returns:
        What each of these layers is given for the batch, by path: examples, or the smallest and the largest number.
    """
    layers = {target.site.path: target.layer(model) for target in targets if target.rounding is not None}
    if not layers:
        return {}
    examples = input_examples(
        model, batch, list(layers), whole={target.site.path for target in targets if target.needs_inputs}
    )
    for target in targets:
        path = target.site.path
        if path in layers and not target.rounds(layers[path]):
            target.round_inputs(layers[path], example=examples.get(path))
    return examples


def _of_ours(there: nn.Module) -> StructuredLayer:
    """Return the layer of ours that computes as a dense one, with a copy of its numbers."""
    if not isinstance(there, nn.Embedding):
        return QuantizedLinear.of(weight_of(there), bias=bias_of(there))
    table = QuantizedEmbedding.of(there.weight, padding_idx=there.padding_idx)
    table.scale = scale_of(there)
    return table


def _share_table(model: PreTrainedModel) -> None:
    """Let a head that is tied to the token table read the same codes."""
    family = family_of(model)
    table = model.get_submodule(base_prefix(model) + family.embedding)
    assert isinstance(table, QuantizedEmbedding)
    if has_module(model, family.head) and model.config.tie_word_embeddings:
        bias = bias_of(model.get_submodule(family.head))
        replace_module(model, family.head, module=FactoredHead.of(table, bias=bias))


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Say in an error which module it is about."""
    try:
        yield
    except KronpressError as error:
        raise KronpressError(f"{path}: {error}") from error
