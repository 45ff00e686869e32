"""How tokens relate to each other in the last attention."""

from __future__ import annotations

import math
from typing import ClassVar

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from kronpress.activations.attention import Attention
from kronpress.activations.trace import Sizes
from kronpress.errors import KronpressError
from kronpress.losses.layer_map import LayerMap, pairs_of
from kronpress.losses.loss import LOSSES
from kronpress.losses.relations import AttentionLoss, both_see, divergence, of_each_head, scores_of


@LOSSES.enroll
class MiniLM(AttentionLoss):
    """KL(teacher ‖ student) of the attention and of softmax(v vᵀ/√d), of the last layer by default.

    L_AT + L_VR of MiniLM (Wang et al., 2020, equations 5 to 8): the mean over heads, queries and pairs of layers, over
    visible keys only. Each model's relations are divided by the root of its own d, and softmax is applied once.

    With `relation_heads` the vectors of all heads of a token are put together and cut anew into so many, for models
    that differ in heads or width (as MiniLMv2, Wang et al., 2021, whose relations are those of queries, of keys and of
    values among themselves; here they stay those of queries with keys and of values).

    Attributes:
        relation_heads: how many relations are compared; that of the heads by default.
    """

    kind: ClassVar[str] = "minilm"
    layers: LayerMap = "last"
    relation_heads: int | None = Field(default=None, ge=1)

    def projection(self, student: Sizes, teacher: Sizes) -> nn.Module | None:
        """Return None: nothing is learned along.

        Raises:
            KronpressError: other depths than the layers are for, or heads that cannot be compared.
        """
        if self.relation_heads is None:
            return super().projection(student, teacher)
        pairs_of(self.layers, student.depth, teacher.depth, loss=self.kind)
        ours, theirs = (sizes.heads * sizes.head for sizes in (student, teacher))
        if math.gcd(ours, theirs) % self.relation_heads:
            raise KronpressError(
                f"relation_heads of the loss 'minilm' is {self.relation_heads}, but the heads of the student are "
                f"{ours} wide together and those of the teacher {theirs}; choose a divisor of {math.gcd(ours, theirs)}"
            )
        return None

    def between(
        self, student: Attention, teacher: Attention, *, seen: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, ""]:
        """Return the sum of both divergences between two layers."""
        visible = both_see(student, teacher)
        ours, theirs = self._regrouped(student), self._regrouped(teacher)
        attention = divergence(scores_of(ours), scores_of(theirs), visible=visible, seen=seen)
        return attention + divergence(_values(ours), _values(theirs), visible=visible, seen=seen)

    def _regrouped(self, attention: Attention) -> Attention:
        """Return what each head works on, of as many heads as are compared."""
        heads, scaling = attention.query.shape[1], attention.scaling
        states = [of_each_head(given, heads) for given in (attention.query, attention.key, attention.value)]
        if self.relation_heads is not None:
            states = [_cut(whole, heads=self.relation_heads) for whole in states]
            scaling = states[0].shape[-1] ** -0.5
        query, key, value = states
        return Attention(query, key, value, scaling, attention.visible)


def _cut(states: Float[Tensor, "batch old tokens d"], *, heads: int) -> Float[Tensor, "batch {heads} tokens e"]:
    anew: Tensor = states.transpose(1, 2).flatten(2).unflatten(2, (heads, -1)).transpose(1, 2)
    return anew


def _values(attention: Attention) -> Float[Tensor, "batch heads tokens tokens"]:
    value = attention.value
    products: Tensor = value @ value.transpose(2, 3)
    return products * float(value.shape[-1] ** -0.5)
