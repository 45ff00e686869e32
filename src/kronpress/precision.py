"""Which number format to compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Say whether matrix products in bfloat16 are faster than in float32 on this device."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type == "cpu":
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile", "bf16"))
    return False


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return an autocast context in bfloat16 where that is faster, else one that does nothing."""
    return torch.autocast(device.type, torch.bfloat16) if has_fast_bfloat16(device) else nullcontext()
