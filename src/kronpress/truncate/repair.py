"""Let the blocks that stay make up for those that are gone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.activations import BlockStream, Moments
from kronpress.bars import Bar
from kronpress.errors import KronpressError
from kronpress.families import FeedForward, layout, replace_module
from kronpress.layers import StructuredLayer, bias_of, narrowed, weight_of
from kronpress.linalg import positive_definite, refit
from kronpress.validation import Checked


class Repair(Checked):
    """Re-solve the down-projection of every block that stays, by ridge regression towards its own weight.

    The text streams through the whole model and the shortened one together. A block's new weight predicts what must be
    added for the shortened stream to come out as the whole model's does after the blocks that are gone behind it.

    Attributes:
        tokens: of windows from all over the training text.
        ridge: regularization, relative to the mean second moment of a hidden neuron.
    """

    tokens: int = Field(default=32768, ge=1)
    ridge: float = Field(default=1e-2, gt=0)

    def require_possible(self, model: PreTrainedModel) -> None:
        """Check that blocks add to a stream, and that their weights are plain.

        Raises:
            KronpressError: it is not so.
        """
        for block in layout(model).feed_forwards:
            if block.closing_norm or block.branch_norm:
                raise KronpressError(
                    f"repair is for blocks that add what their feed-forward gives; those of {type(model).__name__} "
                    "have a norm behind it; leave repair out"
                )
            if isinstance(model.get_submodule(block.down), StructuredLayer):
                raise KronpressError(f"{block.down} has factors or codes already; truncate first, or leave repair out")

    def apply(
        self, model: PreTrainedModel, whole: PreTrainedModel, kept: Sequence[int], *, windows: Int[Tensor, "windows n"]
    ) -> None:
        """Change the down-projections of a model that is shortened to the blocks `kept` of the `whole` one."""
        target, stream = BlockStream.begin(whole, windows), BlockStream.begin(model, windows)
        depth = len(target.layout.block_paths)
        spans = list(enumerate(pairwise([*kept, depth])))
        for skipped in range(kept[0]):
            target.advance(whole, block=skipped)
        for number, (block, following) in Bar(spans, desc="repair", unit="block"):
            for passed in range(block, following):
                target.advance(whole, block=passed)
            self._refit(model, stream, target.hidden, feed_forward=stream.layout.feed_forwards[number])
            stream.advance(model, block=number)

    @torch.no_grad()
    def _refit(
        self,
        model: PreTrainedModel,
        stream: BlockStream,
        wanted: Sequence[Float[Tensor, "windows tokens dim"]],
        *,
        feed_forward: FeedForward,
    ) -> None:
        down = model.get_submodule(feed_forward.down)
        dense = weight_of(down)
        moments = _moments(model, stream, wanted, feed_forward=feed_forward)
        moment, cross = moments.normal_equations()
        regularized, strength = positive_definite(moment, ridge=self.ridge)
        every = torch.arange(len(moment), device=moment.device)
        weight = refit(regularized, cross + strength * dense.double(), kept=every)
        bias = moments.intercept(weight, kept=every).to(dense.dtype) if moments.centered else None
        replace_module(model, feed_forward.down, module=narrowed(down, weight.to(dense.dtype), bias=bias))


def _moments(
    model: PreTrainedModel,
    stream: BlockStream,
    wanted: Sequence[Float[Tensor, "windows tokens dim"]],
    *,
    feed_forward: FeedForward,
) -> Moments:
    """Return the moments of a block's hidden neurons and of what must be added, but for first tokens.

    Those of a window have residuals a hundred times as large as the others', which would decide everything.
    """
    down, last = model.get_submodule(feed_forward.down), dict[str, Tensor]()
    dense = weight_of(down)
    moments = Moments(dense.shape[1], dense.shape[0], centered=bias_of(down) is not None, device=dense.device)
    handle = down.register_forward_hook(lambda _, args, out: last.update(neurons=args[0], added=out))
    try:
        for index, output in stream.outputs(model, block=feed_forward.block):
            neurons, added = (last[name].view(*output.shape[:-1], -1) for name in ("neurons", "added"))
            target = wanted[index] - (output.float() - added.float())
            moments.add(neurons[:, 1:].flatten(0, 1), target[:, 1:].flatten(0, 1))
    finally:
        handle.remove()
    return moments
