"""Which number format to compute in: measured, since not all that can multiply in bfloat16 is faster at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

Precision: TypeAlias = Literal["auto", "bf16", "fp32"]
"""The number format of matrix products: the one that is faster on the device, or one that the user wants."""

_TOKENS, _INPUTS, _OUTPUTS, _ROUNDS = 1024, 512, 512, 9  # of the layer that is measured: milliseconds a round
_SHORT = 256  # positions of an attention


@dataclass(frozen=True)
class NumberFormat:
    """The number format of matrix products, and why it is that one."""

    name: Literal["bf16", "fp32"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


_current: ContextVar[NumberFormat | None] = ContextVar("number format", default=None)


def choose(precision: Precision, device: torch.device) -> NumberFormat:
    """Return the number format that the user wants, or the one that is faster on the device."""
    if precision != "auto":
        return NumberFormat(precision, "as asked for")
    if not has_bfloat16(device):
        return NumberFormat("fp32", f"this {device.type} does not multiply in bf16")
    if device.type == "cuda":
        return NumberFormat("bf16", "this GPU multiplies in bf16")
    speedup = bfloat16_speedup(device)
    return NumberFormat("bf16" if speedup > 1 else "fp32", f"bf16 is {speedup:.2f} × as fast as fp32 here")


@contextmanager
def computing_in(chosen: NumberFormat) -> Iterator[None]:
    """Let all that computes inside of the block do so in this number format."""
    token = _current.set(chosen)
    try:
        yield
    finally:
        _current.reset(token)


def number_format(device: torch.device) -> NumberFormat:
    """Return the number format that was chosen for the block, or else the faster one."""
    return _current.get() or choose("auto", device)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Say whether matrix products are to run in bfloat16."""
    return number_format(device).name == "bf16"


@contextmanager
def mixed_precision(device: torch.device, *, cached: bool = True) -> Iterator[None]:
    """Compute products in bfloat16 where they are to run in it; on a CPU, short attentions in training stay float32.

    Args:
        device: where.
        cached: keep weights that were cast until the end, for those that are used again; they take memory.
    """
    if not computes_in_bfloat16(device):
        yield
        return
    autocast = torch.autocast(device.type, torch.bfloat16, cache_enabled=cached)
    with autocast, _WideAttention() if device.type == "cpu" else nullcontext():
        yield


class _WideAttention(TorchFunctionMode):
    """Computes short attentions with a gradient in float32.

    The gradient takes many small products, and torch starts one in bfloat16 more slowly than it multiplies: up to ten
    times as slow at 16 positions, equal at 400.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if function is not F.scaled_dot_product_attention:
            return function(*args, **named)
        query: Tensor = args[0] if args else named["query"]
        if not query.requires_grad or query.shape[-2] > _SHORT:
            return function(*args, **named)
        with torch.autocast(query.device.type, enabled=False):
            wide_args, wide_named = tree_map_only(Tensor, _wide, (args, named))
            return function(*wide_args, **wide_named).to(query.dtype)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def has_bfloat16(device: torch.device) -> bool:
    """Say whether the device has instructions for matrix products in bfloat16, be they fast or not."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile", "bf16"))
    return False


def bfloat16_speedup(device: torch.device) -> float:
    """Return how many times as fast a linear layer is trained in bfloat16 as in float32, measured once per process."""
    return _measured(device, torch.get_num_threads())


@cache
def _measured(device: torch.device, threads: int) -> float:
    """Time both formats by turns, after a warm-up; return the ratio of the shortest times: others were disturbed."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        draw = torch.Generator().manual_seed(0)
        shapes = ((_TOKENS, _INPUTS), (_OUTPUTS, _INPUTS), (_TOKENS, _OUTPUTS))
        inputs, weight, upper = (torch.rand(shape, generator=draw).to(device) for shape in shapes)
        both = [_seconds(inputs, weight, upper, fast) for _ in range(_ROUNDS + 1) for fast in (False, True)]
    return min(both[2::2]) / min(both[3::2])


def _seconds(inputs: torch.Tensor, weight: torch.Tensor, upper: torch.Tensor, fast: bool) -> float:
    """Return how long a linear layer takes forwards and backwards, in bfloat16 where `fast`."""
    inputs, weight = inputs.detach().requires_grad_(), weight.detach().requires_grad_()
    start = time.perf_counter()
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=fast):
        output = F.linear(inputs, weight)
    output.backward(upper.to(output.dtype))
    return time.perf_counter() - start


@contextmanager
def exact_bfloat16_products() -> Iterator[None]:
    """Multiply float32 matrices that hold bfloat16 numbers as such, twice as fast; sums stay in float32.

    For other float32 matrices the products would be rounded. Where torch has no such setting, nothing changes.
    """
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    before = getattr(matmul, "fp32_precision", None)
    if before is None:
        yield
        return
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
