"""The size of a model."""

from __future__ import annotations

from dataclasses import dataclass

from kronpress.records.codec import Record


@dataclass(frozen=True)
class Footprint(Record):
    """The size of a model.

    `parameters` counts what is stored, a tied head once; `parameters_untied` counts the head as a matrix of its own,
    as some papers do; `parameters_without_head` leaves an untied head out (a tied one is the embedding, which stays).
    `bytes_in_memory` covers parameters and buffers, `bytes_on_disk` the safetensors files, written or planned; it is
    None for a model without a folder.
    `parameters_effective` counts the dense matrices that factors stand for: what the model computes with, not stores.
    `flops_per_token` is 2 for each multiply-add of the linear and structured layers, the head included; the attention
    scores, which grow with the length of the text, and element-wise work are left out. `block_flops_per_token`
    covers the blocks alone, as papers count: an inner product of length n is 2n − 1 (KroneckerBERT, eq. 7).
    """

    parameters: int
    parameters_untied: int
    parameters_without_head: int
    parameters_effective: int
    bytes_in_memory: int
    bytes_on_disk: int | None
    flops_per_token: int
    block_flops_per_token: int
