"""The output head, a few tokens at a time: logits of all tokens would be the largest tensors of a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Score: TypeAlias = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""(logits of some tokens, which tokens) → (losses, the gradient of losses[0] with respect to the logits)."""

_CHUNK_ELEMENTS = 2**25


def through_head(
    hidden: Float[Tensor, "tokens dim"], head: nn.Module, score: Score, *, vocabulary: int
) -> Float[Tensor, " losses"]:
    """Return the sum of what `score` says of the head's logits, chunk by chunk.

    The gradient is formed with it; only that of the first loss flows back, to `hidden` and the head's parameters.
    """
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    chunks = -(-len(hidden) * vocabulary // _CHUNK_ELEMENTS)
    size = max(1, -(-len(hidden) // max(1, chunks)))  # all chunks alike, so that their memory is used again
    apply: Any = _Chunked.apply
    losses: Tensor = apply((head, score, size, torch.is_grad_enabled()), hidden, *parameters)
    return losses


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, how: tuple[nn.Module, Score, int, bool], hidden: Tensor, *parameters: Tensor) -> Tensor:
        head, score, size, learns = how
        upper = torch.empty_like(hidden)
        gradients: list[Tensor] = []
        totals: Tensor | None = None
        for start in range(0, max(1, len(hidden)), size):  # once without tokens, too
            rows = slice(start, min(start + size, len(hidden)))
            some = hidden[rows].detach().requires_grad_()
            with torch.enable_grad():
                logits = head(some)
            losses, slope = score(logits.detach(), rows)
            totals = losses if totals is None else totals + losses
            if learns:
                first, *others = torch.autograd.grad(logits, (some, *parameters), slope)
                upper[rows] = first
                for mine, more in zip(gradients, others, strict=False):
                    mine += more
                gradients = gradients or others
                del others, first
            del logits, slope
        ctx.save_for_backward(*([upper, *gradients] if learns else []))
        assert totals is not None
        return totals

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upper: Tensor) -> tuple[Tensor | None, ...]:
        scale = upper[0][0]
        unchanged = not scale.is_cuda and scale == 1  # asking a GPU would wait for it
        return None, *(slope if unchanged else slope * scale for slope in ctx.saved_tensors)
