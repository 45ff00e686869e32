"""Write a model as a GGUF file."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from kronpress.bars import Bar
from kronpress.checkpoint import files
from kronpress.errors import KronpressError
from kronpress.export.exporter import EXPORTERS, Exporter
from kronpress.export.gguf.architectures import Architecture, architecture_of
from kronpress.export.gguf.header import add_sizes, add_types, add_vocabulary
from kronpress.export.gguf.tensors import TABLE, GgufTensor, gguf_tensors
from kronpress.export.gguf.types import GgufType, gguf_type
from kronpress.export.gguf.vocabulary import Vocabulary, vocabulary_of
from kronpress.export.plain import base_config
from kronpress.layers import RoundedInputs, rounded_inputs

_OWN_TYPES = {torch.float64: "f32", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
_HEADER_BYTES = 2**25  # tokens and merges
_BYTE = 256  # levels of 8 bits, whose rounding changes little


@dataclass(frozen=True)
class GgufExport:
    """A GGUF file that was written.

    Attributes:
        file: where.
        done: what was done to the layers.
        parameters: the numbers stored, a tied head once.
        tensor_bytes: what they take.
        error: what rounding to the type changed: the root mean square of it, relative to that of the rounded weights.
        notes: what the file does not hold of the model.
    """

    file: Path
    done: str
    parameters: int
    tensor_bytes: int
    error: float
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """The size of the file."""
        return self.file.stat().st_size

    def proof(self, *, tolerance: float) -> str:
        """Say how large the file is, and how near its weights are to those of the model."""
        size = f"size:   {self.bytes / 1e6:,.1f} MB, {8 * self.tensor_bytes / self.parameters:.2f} bits per weight"
        change = (
            f"weights: rounding changed them by {self.error:.2%}"
            if self.error
            else "weights: those of the model, exactly"
        )
        return "\n".join([size, change, *(f"note:   {text}" for text in self.notes)])


@EXPORTERS.enroll
@dataclass(frozen=True)
class GgufExporter(Exporter):
    """A file for llama.cpp and what else reads GGUF.

    Attributes:
        type: the number type for matrices that lie on no grid; the number format of the model if None.
    """

    kind: ClassVar[str] = "gguf"
    type: str | None = None

    def require(self, folder: Path) -> None:
        """Check that there is no such file yet, and that the library is there."""
        files.require_absent(folder)
        _library()
        if self.type is not None:
            gguf_type(self.type)

    def write(self, model: PreTrainedModel, folder: str | Path, *, tokenizer: Any = None) -> GgufExport:
        """Write a plain model, or one with layers on grids, into the file `folder`.

        Layers on grids are written with their own codes and scales. Norms, biases and tables of positions stay in
        float32.

        Raises:
            KronpressError: GGUF has no architecture for the model, no place for one of its tensors, no type that holds
                one, or no way to say that inputs are rounded below 8 bits; or the file cannot be written.
        """
        path, library = Path(folder), _library()
        self.require(path)
        _require_inputs(model)
        config = base_config(model)
        architecture = architecture_of(config)
        kind = gguf_type(self.type or _OWN_TYPES[model.dtype])
        names = library.get_tensor_name_map(_number_of(architecture, library), architecture.sizes(config).blocks)
        tensors = gguf_tensors(model, architecture, names, config=config, kind=kind)
        vocabulary = None if tokenizer is None else vocabulary_of(tokenizer, size=_rows(tensors))
        writer = library.GGUFWriter(None, architecture.name)
        writer.add_name(path.stem.replace("-", " ").title())  # transformers takes the name "mistral" for another family
        add_sizes(writer, architecture.sizes(config), architecture, vocabulary=_rows(tensors))
        add_vocabulary(writer, vocabulary)
        add_types(writer, tensors)
        tensor_bytes = sum(tensor.bytes for tensor in tensors)
        with files.new_file(path, needed=tensor_bytes + _HEADER_BYTES) as partial:
            error = _write(writer, partial, tensors)
        notes = tuple(_notes(model, architecture, vocabulary))
        return GgufExport(path, _done(tensors, kind), _count(tensors), tensor_bytes, error, notes)


def _require_inputs(model: PreTrainedModel) -> None:
    """Refuse a model that computes something else without the rounding of its inputs."""
    for path, module in model.named_modules():
        if isinstance(module, RoundedInputs) and module.grid.base < _BYTE:
            raise KronpressError(
                f"{path.removesuffix('.inputs')} rounds its inputs to {module.grid.levels}, which a GGUF file cannot "
                "say; export a model whose inputs have 8 bits, or are not rounded"
            )


def _library() -> Any:
    """Return the `gguf` library.

    Raises:
        KronpressError: it is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise KronpressError("writing a GGUF file needs a package: run `pip install gguf` and try again")
    return importlib.import_module("gguf")


def _number_of(architecture: Architecture, library: Any) -> Any:
    return next(number for number, name in library.MODEL_ARCH_NAMES.items() if name == architecture.name)


def _write(writer: Any, path: Path, tensors: Sequence[GgufTensor]) -> float:
    """Write a file whose header is complete, a tensor at a time, and return the relative change by rounding."""
    error = energy = 0.0
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with Bar(total=sum(tensor.bytes for tensor in tensors), desc="write", unit="byte", leave=False) as bar:
            for tensor in tensors:
                stored = tensor.write()
                writer.write_tensor_data(stored.data)
                error, energy = error + stored.error, energy + stored.energy
                bar.update(tensor.bytes)
    finally:
        writer.close()
    return sqrt(error / energy) if energy else 0.0


def _rows(tensors: Sequence[GgufTensor]) -> int:
    """Return how many tokens the model knows."""
    return next(tensor.shape[0] for tensor in tensors if tensor.name == TABLE)


def _count(tensors: Sequence[GgufTensor]) -> int:
    return sum(prod(tensor.shape) for tensor in tensors)


def _done(tensors: Sequence[GgufTensor], kind: GgufType) -> str:
    kinds = sorted({tensor.kind.name for tensor in tensors if tensor.on_grid})
    if kinds:
        return f"layers on grids as {', '.join(kinds)} with their own codes, others as {kind.name}"
    return f"a model without grids, as {kind.name}"


def _notes(model: PreTrainedModel, architecture: Architecture, vocabulary: Vocabulary | None) -> list[str]:
    notes = []
    if vocabulary is None:
        notes.append("the model came without a tokenizer, so the file holds none")
    elif vocabulary.pre == "default" and vocabulary.model == "gpt2":
        notes.append(
            "GGUF has no name for how this tokenizer splits text, so other programs may find other tokens; compare some"
        )
    if not architecture.causal:
        notes.append("the file holds the encoder; pooler and heads are left out")
    if next(rounded_inputs(model), None) is not None:
        notes.append("the model rounds the inputs of its layers, and a GGUF file does not say so")
    return notes
