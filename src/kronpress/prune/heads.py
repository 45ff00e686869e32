"""What stays of the heads of a model's attentions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from kronpress.activations import Statistic
from kronpress.errors import KronpressError
from kronpress.families import Attention, Layout, set_heads
from kronpress.prune.attention import HeadStatistic, QueryKeyStatistic
from kronpress.prune.rows import count, require_dense
from kronpress.prune.surgeon import Surgeon
from kronpress.records import LayerChange

_EIGHTS = 64  # from so many numbers on, multiples of eight are kept: they are faster


@dataclass(frozen=True)
class Heads:
    """How many numbers of all heads of a block stay; None: all as they are.

    Attributes:
        query_key: of all keys together; those of the queries are in proportion.
        value_output: of all values together.
        groups: how many groups of heads that share a key stay, whole.
    """

    query_key: int | None = None
    value_output: int | None = None
    groups: int | None = None

    @classmethod
    def whole(cls, model: PreTrainedModel, plan: Layout, *, share: float) -> Heads:
        """Return how many whole heads a share comes to for a model, and check that it can have so many.

        Raises:
            KronpressError: the attention is unknown, has factors already, or cannot have so many heads.
        """
        first = _first(model, plan, fields="heads")
        kept = max(1, round(share * first.groups))
        if kept == first.groups:
            raise KronpressError(
                f"heads: {share} of {first.groups} groups of {first.per_group} heads is all of them; choose a smaller "
                "share, or leave heads out"
            )
        if first.fusion is not None:
            raise KronpressError(
                f"heads: {type(model).__name__} computes query, key and value by one matrix, which is not known here "
                "with fewer heads; value_output is possible"
            )
        norms = () if first.query_norm is None else model.get_submodule(first.query_norm).parameters()
        if any(len(scale) != first.size for scale in norms):
            raise KronpressError(
                f"heads: a norm over the queries of all heads follows ({first.query_norm}), which fewer heads would "
                "change; value_output is possible"
            )
        heads = cls(groups=kept)
        heads.tell(copy.deepcopy(model.config), first)
        return heads

    @classmethod
    def of(cls, model: PreTrainedModel, plan: Layout, *, query_key: float | None, value_output: float | None) -> Heads:
        """Return what two shares come to for a model.

        Raises:
            KronpressError: the attention is unknown, has factors already, or computes otherwise with fewer numbers.
        """
        first = _first(model, plan, fields="query_key and value_output")
        if query_key is not None:
            _require_scores(model, first)
        whole = first.groups * first.size
        unit = 2 if first.rotary else 1
        counts = (
            None if share is None else _part(share, whole=whole, unit=unit) for share in (query_key, value_output)
        )
        return cls(*counts)

    def tell(self, config: PreTrainedConfig, attention: Attention) -> None:
        """Let a config say how many heads there are, where whole ones go; see `set_heads`."""
        if self.groups is None:
            return
        try:
            set_heads(config, heads=self.groups * attention.per_group, groups=self.groups)
        except KronpressError as error:
            raise KronpressError(f"heads: {error}; choose another share, or value_output in its place") from None

    def statistics(
        self, model: PreTrainedModel, attention: Attention, *, curvature: Float[Tensor, "out out"] | None = None
    ) -> list[Statistic]:
        """Return what is to be gathered of an attention, given the curvature of the loss in what it adds."""
        first = [] if self.query_key is None else [QueryKeyStatistic(model, attention)]
        return [*first, HeadStatistic(model, attention, curvature=curvature)]

    def thin(self, model: PreTrainedModel, statistic: Statistic, fit: Surgeon) -> Iterator[LayerChange]:
        """Change the attention that a statistic was gathered of; yield the change when its last matrix has changed."""
        if isinstance(statistic, QueryKeyStatistic):
            assert self.query_key is not None
            statistic.thin(model, keep=self.query_key)
        elif isinstance(statistic, HeadStatistic):
            if self.groups is not None:
                error = statistic.drop(model, fit, keep=self.groups)
            elif self.value_output is not None:
                error = statistic.thin(model, fit, keep=self.value_output)
            else:
                error = statistic.repair(model, fit)
            yield self._change(model, statistic.attention, before=statistic.parameters, error=error)

    def _change(self, model: PreTrainedModel, attention: Attention, *, before: int, error: float) -> LayerChange:
        whole = attention.groups * attention.size
        parts = (("keys", self.query_key), ("values", self.value_output))
        kept = [f"{number} of {whole} numbers of {name}" for name, number in parts if number is not None]
        if self.groups is not None:
            heads = self.groups * attention.per_group
            kept = [f"{heads} of {attention.heads} heads"]
        return LayerChange(
            path=attention.output.rpartition(".")[0],
            role="attention",
            block=attention.block,
            parameters_before=before,
            parameters_after=count(model, attention.matrices),
            relative_error=error,
            layer=", ".join(kept),
        )


def _first(model: PreTrainedModel, plan: Layout, *, fields: str) -> Attention:
    """Return the attention of the first block; check that the attentions are known, and dense."""
    if not plan.attentions:
        raise KronpressError(f"{fields}: the attention of {type(model).__name__} is not known here; leave out {fields}")
    require_dense(model, (path for block in plan.attentions for path in block.matrices))
    return plan.attentions[0]


def _require_scores(model: PreTrainedModel, attention: Attention) -> None:
    """Check that the scores are products of what the matrices give, turned as a whole or not at all."""
    if attention.query_norm is not None:
        raise KronpressError(
            f"query_key: a norm over whole queries follows ({attention.query_norm}), which fewer numbers would change; "
            "leave query_key out, value_output is possible"
        )
    if attention.rotary and _turned_share(model) != 1.0:
        raise KronpressError(
            f"query_key: positions turn {_turned_share(model):g} of the numbers of each query in "
            f"{type(model).__name__}; this is for models that turn all or none; leave query_key out"
        )


def _turned_share(model: PreTrainedModel) -> float:
    """Return the share of each query's numbers that positions turn."""
    parameters = getattr(model.config, "rope_parameters", None) or {}
    return float(parameters.get("partial_rotary_factor") or getattr(model.config, "partial_rotary_factor", None) or 1.0)


def _part(share: float, *, whole: int, unit: int) -> int:
    """Return a whole number of units near to a share: at least one, at most all, and eights where there are many."""
    number = share * whole
    step = 8 if number >= _EIGHTS else unit
    return min(whole, max(unit, round(number / step) * step))
