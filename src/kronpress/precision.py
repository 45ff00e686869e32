"""Which number format to compute in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Say whether matrix products in bfloat16 are faster than in float32 on this device."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile", "bf16"))
    return False


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return an autocast context in bfloat16 where that is faster, else one that does nothing."""
    return torch.autocast(device.type, torch.bfloat16) if has_fast_bfloat16(device) else nullcontext()


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
