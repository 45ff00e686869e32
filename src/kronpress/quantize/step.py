"""The quantize step of a recipe."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import SerializeAsAny, field_validator, model_validator
from torch import Tensor, nn
from transformers import PreTrainedModel

from kronpress.activations import InputMoments, WalkProgress, walk
from kronpress.activations.head import head_moment
from kronpress.bars import Bar
from kronpress.checkpoint import adopt, bytes_of, settle_ties
from kronpress.errors import KronpressError
from kronpress.families import layout, window_of
from kronpress.layers import (
    FLOAT32,
    LayerSpec,
    QuantizedEmbedding,
    QuantizedLinear,
    StructuredLayer,
    TensorFormat,
    packed,
    spec_of,
)
from kronpress.linalg import energy
from kronpress.quantize.compensated import compensated
from kronpress.quantize.fits import QUANTIZE_FITS, Compensated, Nearest, QuantizeFit
from kronpress.quantizers import (
    QUANTIZERS,
    TABLES,
    Scheme,
    Target,
    input_ranges,
    number_formats,
    round_inputs,
    rounded_sites,
)
from kronpress.records import QuantizationRecord, QuantizedLayer
from kronpress.step import STEPS, Needs, Step, Workbench
from kronpress.validation import parse_named

_EXAMPLES = 8  # windows of text that give the ranges of inputs

Moment = Float[Tensor, "n n"] | None


@STEPS.enroll
class Quantize(Scheme, Step):
    """Put the numbers of the student on grids of a few bits.

    Steps after this one train latent numbers of full precision, which go to the grid at every use; the finished model
    holds codes. A step of fewer bits goes on from the latent numbers.

    Attributes:
        fit: how codes are found: `nearest`, or `compensated` for the inputs of the training text.
    """

    kind: ClassVar[str] = "quantize"
    fit: SerializeAsAny[QuantizeFit] = Nearest()

    @field_validator("fit", mode="before")
    @classmethod
    def _named_fit(cls, value: Any) -> QuantizeFit:
        fit: QuantizeFit = parse_named(value, QUANTIZE_FITS, key="fit", default=Compensated.kind)
        return fit

    @model_validator(mode="after")
    def _kept(self) -> Quantize:
        quantizer = self.weights.quantizer
        if isinstance(self.fit, Compensated) and not self.weights.leaves:
            levels = self.weights.grid().levels
            able = [name for name, other in QUANTIZERS.items() if levels in other.keeps]
            if levels not in quantizer.keeps:
                raise KronpressError(
                    f"fit: compensated finds codes that {quantizer.kind} would not keep; take {' or '.join(able)} as "
                    "the quantizer of weights, or fit: nearest"
                )
        return self

    def needs(self) -> Needs:
        """Return whether text is read: by the fit, or for the ranges of rounded inputs."""
        kept = 2 if isinstance(self.fit, Compensated) else 0  # finished blocks: latent numbers, and codes
        return Needs(teacher=False, text=self.fit.reads_text or self._rounds_inputs, copies=kept)

    def check(self, bench: Workbench) -> None:
        """Check that grids fit the shapes, and that the text has a window."""
        self.require(bench.student)
        if self.needs().text:
            size = self._window(bench.student)
            bench.training_windows(size=size, tokens=size)

    def run(self, bench: Workbench) -> QuantizationRecord:
        """Quantize each layer of the student."""
        model = bench.student
        settle_ties(model)
        before = {target.site.path: _form(model, target) for target in self.targets(model)}
        parts_before = _parts(model, bench.dtype)
        targets = [target for target in self.targets(model) if not target.storage.leaves]
        if isinstance(self.fit, Compensated):
            layers = self._by_block(bench, targets, before, fit=self.fit)
        else:
            every = Bar(targets, desc="quantize", unit="layer")
            layers = tuple(self._quantized(bench, target, None, before=before[target.site.path]) for target in every)
        examples = self._round_inputs(bench)
        adopt(model)
        fit = {"name": self.fit.kind, **self.fit.model_dump(mode="json")}
        scheme = self.model_dump(mode="json", exclude={"fit"})
        parts = _parts(model, bench.dtype)
        return QuantizationRecord(
            scheme=scheme,
            fit=fit,
            layers=layers,
            bytes=sum(parts.values()),
            parts=parts,
            parts_before=parts_before,
            formats=number_formats(model),
            inputs=input_ranges(model, rounded_sites(model, self), examples),
        )

    @property
    def _rounds_inputs(self) -> bool:
        return self.inputs is not None and not self.inputs.leaves

    def _window(self, model: PreTrainedModel) -> int:
        return window_of(model, self.fit.window if isinstance(self.fit, Compensated) else None)

    def _by_block(
        self, bench: Workbench, targets: Sequence[Target], before: Mapping[str, LayerSpec], *, fit: Compensated
    ) -> tuple[QuantizedLayer, ...]:
        """Quantize tables and then block after block, with the second moments of the inputs; a stopped walk goes on."""
        model = bench.student
        by_block: dict[int | None, list[Target]] = defaultdict(list)
        for target in targets:
            by_block[target.site.block].append(target)
        windows = bench.training_windows(size=self._window(model), tokens=fit.tokens)
        facts = self.model_dump(mode="json")
        progress = WalkProgress.of(bench.unfinished, model, windows, facts=facts, kind=QuantizedLayer)

        def quantized(target: Target, moment: Moment) -> QuantizedLayer:
            return self._quantized(bench, target, moment, before=before[target.site.path])

        fitted = [target for target in by_block[None] if _is_fitted_to_head(target, model)]
        head = head_moment(model, windows) if fitted else None
        beside = [quantized(target, _of_table(head, model) if target in fitted else None) for target in by_block[None]]

        def wanted(block: int) -> list[InputMoments]:
            layers = {target.site.path: model.get_submodule(target.site.path) for target in by_block[block]}
            return [InputMoments(path, layer=layer) for path, layer in layers.items() if not _has_factors(layer)]

        for stop in walk(model, windows, wanted=wanted, progress=progress, description="quantize (compensated)"):
            inputs = {statistic.path: statistic for statistic in stop.statistics}
            for target in by_block[stop.block]:
                seen = inputs.get(target.site.path)
                stop.changes.append(quantized(target, None if seen is None else seen.second_moment()))
        return (*beside, *progress.finish())

    def _quantized(self, bench: Workbench, target: Target, moment: Moment, *, before: LayerSpec) -> QuantizedLayer:
        """Put the matrices of a layer on their grid."""
        layer, numbers = target.layer(bench.student), TensorFormat.of(bench.dtype)
        dense = None if moment is None else layer.weight.detach().clone()
        errors, sizes = [], []
        for matrix in target.matrices(layer):
            coded = None
            if dense is not None and moment is not None and isinstance(self.fit, Compensated):
                grid, fit = target.storage.grid(), self.fit
                coded = compensated(matrix.latent, grid, moment, rounds=fit.rounds, ridge=fit.ridge)
            sizes.append(float(matrix.latent.norm()))
            errors.append(target.put(matrix, coded=coded) * sizes[-1])
        after = layer.spec
        return QuantizedLayer(
            path=target.site.path,
            role=target.site.role,
            block=target.site.block,
            bits=_bits(after),
            bytes_before=before.bytes(numbers),
            bytes_after=after.bytes(numbers),
            relative_error=math.hypot(*errors) / max(math.hypot(*sizes), 1e-30),
            output_error=None if dense is None else _output_error(dense, layer.weight.detach(), moment),
        )

    def _round_inputs(self, bench: Workbench) -> Mapping[str, Tensor]:
        """Round the inputs of the layers that are to have such; return what those are given for some text, by path."""
        if not self._rounds_inputs:
            return {}
        size = self._window(bench.student)
        windows = bench.training_windows(size=size, tokens=_EXAMPLES * size)
        return round_inputs(bench.student, self.targets(bench.student), {"input_ids": windows})


def _form(model: PreTrainedModel, target: Target) -> LayerSpec:
    form = spec_of(model.get_submodule(target.site.path))
    assert form is not None, f"{target.site.path} is no layer"
    return form


def _has_factors(layer: nn.Module) -> bool:
    return isinstance(layer, StructuredLayer) and not isinstance(layer, QuantizedLinear | QuantizedEmbedding)


def _is_fitted_to_head(target: Target, model: PreTrainedModel) -> bool:
    """Say whether a target is the table of the output head, with a quantizer that keeps codes that were found."""
    role = "embedding" if model.config.tie_word_embeddings else "head"
    storage, layer = target.storage, model.get_submodule(target.site.path)
    return target.site.role == role and storage.grid().levels in storage.quantizer.keeps and not _has_factors(layer)


def _of_table(head: Moment, model: PreTrainedModel) -> Moment:
    """Return the second moment that errors of the output head's table are weighed by.

    The rows of a tied table are what enters the model as well: errors in all directions count as much there.
    """
    if head is None or not model.config.tie_word_embeddings:
        return head
    return head / head.diagonal().mean() + torch.eye(len(head), dtype=head.dtype, device=head.device)


def _bits(form: LayerSpec) -> float:
    """Return the bits stored for each number of the matrices of a layer."""
    stored = [tensor for name, tensor in form.tensors.items() if not name.startswith("inputs.")]
    matrices = [tensor for tensor in stored if len(tensor.shape) > 1 and tensor.parameters]
    return 8 * sum(tensor.bytes(FLOAT32) for tensor in matrices) / sum(tensor.parameters for tensor in matrices)


def _output_error(dense: Tensor, weight: Tensor, moment: Moment) -> float:
    """Return √(E‖(W − W')x‖² / E‖Wx‖²)."""
    assert moment is not None
    energies = [float(energy(matrix.double(), moment.double())) for matrix in (dense - weight, dense)]
    return math.sqrt(max(0.0, energies[0]) / max(energies[1], 1e-30))


def _parts(model: PreTrainedModel, dtype: torch.dtype) -> Mapping[str, int]:
    """Return the bytes of the weights, of the tables and of all else as they are stored, parameters in `dtype`."""
    parts = {"weights": 0, "tables": 0}
    tied = bool(model.config.tie_word_embeddings)
    with packed(model):
        total, numbers, plan = bytes_of(model, dtype=dtype), TensorFormat.of(dtype), layout(model)
        for site in (*plan.beside, *plan.sites):
            form = spec_of(model.get_submodule(site.path))
            if form is not None and not (tied and site.role == "head"):
                parts["tables" if site.role in TABLES else "weights"] += form.bytes(numbers)
    return {**parts, "other": total - sum(parts.values())}
