"""Where the parts of one model are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Int, Shaped
from torch import Tensor, nn

from kronpress.errors import KronpressError
from kronpress.families.family import ATTENTION_ROLES, FEED_FORWARD_ROLES, Family, family_of, head_size_of, heads_of
from kronpress.families.folds import Fold, folds_of
from kronpress.families.fusion import Fusion
from kronpress.families.signatures import PreTrainedConfig, PreTrainedModel

_WINDOW = 512  # tokens of text that are read at once, where nothing else is asked for


@dataclass(frozen=True)
class FeedForward:
    """One feed-forward block.

    Attributes:
        block: index of its block.
        up: full path of the matrix that produces the hidden neurons.
        down: full path of the matrix that reads them.
        gate: full path of the matrix whose activated outputs multiply those of `up`, None where there is none.
        fusion: how the rows of one matrix are shared, where that is both gate and up.
        closing_norm: full path of the norm over the sum of the block's input and its output, else None.
        branch_norm: full path of the norm over its output alone, else None.
    """

    block: int
    up: str
    down: str
    gate: str | None = None
    fusion: Fusion | None = None
    closing_norm: str | None = None
    branch_norm: str | None = None

    @property
    def adding(self) -> str:
        """The path of the matrix whose outputs are added to the stream."""
        return self.down

    @property
    def expanding(self) -> tuple[str, ...]:
        """The paths of the matrices that produce the hidden neurons."""
        return tuple(dict.fromkeys(path for path in (self.gate, self.up) if path is not None))

    def shares(self, path: str) -> tuple[str, ...]:
        """Return which of "gate" and "up" the expanding matrix at `path` is; both where it is fused."""
        if self.fusion is not None:
            return self.fusion.roles
        return ("up",) if path == self.up else ("gate",)

    def split(self, tensor: Shaped[Tensor, "rows *columns"]) -> list[Tensor]:
        """Return the rows of each share of an expanding matrix, or of its bias."""
        return [tensor] if self.fusion is None else self.fusion.split(tensor)

    def join(self, parts: Sequence[Shaped[Tensor, "_ *columns"]]) -> Shaped[Tensor, "rows *columns"]:
        """Return the rows of all shares in the order of their matrix: what `split` takes apart."""
        return parts[0] if self.fusion is None else self.fusion.join(parts)

    def narrow(
        self, tensor: Shaped[Tensor, "rows *columns"], kept: Int[Tensor, " keep"]
    ) -> Shaped[Tensor, "_ *columns"]:
        """Return the rows of the kept hidden neurons in an expanding matrix, or in its bias; both halves alike."""
        return self.join([part[kept] for part in self.split(tensor)])

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all matrices, in the order of the computation."""
        return (*self.expanding, self.down)


@dataclass(frozen=True)
class Attention:
    """The attention of one block.

    Attributes:
        block: index of its block.
        paths: the full paths of the matrices that make "query", "key" and "value"; one alike for all where it is fused.
        fusion: how the rows of one matrix are shared among the three, where it is fused.
        output: full path of the matrix that reads what the heads have gathered.
        heads: how many the queries have.
        groups: how many the keys and values have, each for heads ÷ groups heads that follow each other.
        size: numbers of each head's query, key and value.
        closing_norm: full path of the norm over the sum of the block's input and what the attention adds, else None.
        branch_norm: full path of the norm over its output alone, else None.
        query_norm: full path of the norm over the queries of a head, where the model has one.
        rotary: whether query and key are turned by their positions.
    """

    block: int
    paths: Mapping[str, str]
    fusion: Fusion | None
    output: str
    heads: int
    groups: int
    size: int
    closing_norm: str | None = None
    branch_norm: str | None = None
    query_norm: str | None = None
    rotary: bool = False

    @property
    def adding(self) -> str:
        """The path of the matrix whose outputs are added to the stream."""
        return self.output

    @property
    def per_group(self) -> int:
        """How many heads share a key and a value."""
        return self.heads // self.groups

    @property
    def matrices(self) -> tuple[str, ...]:
        """The paths of all matrices."""
        return (*dict.fromkeys(self.paths.values()), self.output)

    def rows(self, tensor: Shaped[Tensor, "rows *columns"], *, role: str) -> Shaped[Tensor, "_ *columns"]:
        """Return the rows that make queries, keys or values, of the matrix at the path of that role, or of its bias."""
        return tensor if self.fusion is None else self.fusion.split(tensor)[self.fusion.roles.index(role)]


@dataclass(frozen=True)
class Site:
    """A module that can be replaced.

    Attributes:
        path: full path of the module.
        role: what it computes.
        block: index of its block, None outside of the blocks.
        fusion: how the rows of a fused module are shared among the roles that it computes at once, else None.
        folded: the sides ("rows", "columns") that can be reordered together with sides of other modules.
    """

    path: str
    role: str
    block: int | None
    fusion: Fusion | None = None
    folded: frozenset[str] = frozenset()

    @property
    def shares(self) -> tuple[str, ...]:
        """The roles that a fused module computes at once; none where it is not fused."""
        return () if self.fusion is None else self.fusion.roles

    def split(self, tensor: Shaped[Tensor, "rows *columns"]) -> list[Tensor]:
        """Return the rows of each share of the weight, out × in, or of the bias; all of them where it is not fused."""
        return [tensor] if self.fusion is None else self.fusion.split(tensor)


@dataclass(frozen=True)
class Layout:
    """The sites of one model, its feed-forward blocks, its attentions and its folds.

    Attributes:
        sites: where factors can stand: what is in the blocks, the token table and the head.
        beside: what numbers on a grid can stand for as well (see `Family.beside`).
        attentions: none where the family names their roles nowhere.
    """

    family: Family
    sites: tuple[Site, ...]
    beside: tuple[Site, ...]
    feed_forwards: tuple[FeedForward, ...]
    attentions: tuple[Attention, ...]
    folds: tuple[Fold, ...]
    block_paths: tuple[str, ...]


def is_causal(model: PreTrainedModel) -> bool:
    """Tell whether the model is a decoder with a language-model head."""
    return bool(model.can_generate()) and not model.config.is_encoder_decoder


def position_limit(model: PreTrainedModel) -> int | None:
    """Return the longest input in tokens that the configuration allows, or None where it names none."""
    config = model.config.get_text_config()
    limit: int | None = getattr(config, "max_position_embeddings", None)
    if limit is not None and family_of(model).positions_after_padding:
        limit -= int(config.pad_token_id) + 1
    return limit


def window_of(model: PreTrainedModel, wanted: int | None = None, *, special: int = 0) -> int:
    """Return how many tokens of text to read at once: `wanted`, or by default 512 or as many as the model sees.

    Args:
        model: what reads them.
        wanted: the number that the user gave, if any.
        special: tokens that the model reads around those of the text.

    Raises:
        KronpressError: `wanted` is more than the model sees.
    """
    limit = position_limit(model)
    if wanted is None:
        return _WINDOW if limit is None else min(_WINDOW, limit - special)
    if limit is not None and wanted + special > limit:
        raise KronpressError(
            f"a window of {wanted} is too long for {type(model).__name__}, which sees {limit} tokens; "
            f"set window to {limit - special} or less"
        )
    return wanted


def vocabulary_size(model: PreTrainedModel) -> int:
    """Return how many token ids the model knows."""
    return int(model.config.get_text_config().vocab_size)


def base_prefix(model: PreTrainedModel) -> str:
    """Return the path prefix of the base model inside `model`: `model.` in a Llama with a head, else empty."""
    name = model.base_model_prefix
    return f"{name}." if name and hasattr(model, name) else ""


def layout(model: PreTrainedModel) -> Layout:
    """Return the replaceable sites of a model, in the order of the computation.

    Raises:
        KronpressError: the model type is not supported.
    """
    family, prefix = family_of(model), base_prefix(model)
    depth = int(getattr(model.config, family.depth_key))
    block_paths = tuple(f"{prefix}{family.blocks}.{i}" for i in range(depth))
    folds = tuple(fold for block in block_paths for fold in folds_of(family, block, model.config))
    sites = [Site(prefix + family.embedding, "embedding", None)]
    for i, block in enumerate(block_paths):
        for role, path in family.roles.items():
            fusion, whole = family.fusion(role, model.config), f"{block}.{path}"
            sites.append(Site(whole, role, i, fusion, _folded(whole, folds)))
    if has_module(model, family.head):
        sites.append(Site(family.head, "head", None))
    beside = (Site(prefix + path, role, None) for role, path in family.beside.items())
    present = tuple(site for site in beside if has_module(model, site.path))
    feed_forwards = tuple(_feed_forward(family, i, block, model.config) for i, block in enumerate(block_paths))
    named = enumerate(block_paths if family.has_attention else ())
    attentions = tuple(_attention(family, i, block, model) for i, block in named)
    return Layout(family, tuple(sites), present, feed_forwards, attentions, folds, block_paths)


def _folded(path: str, folds: tuple[Fold, ...]) -> frozenset[str]:
    return frozenset(side.axis for fold in folds for side in fold.sides if side.path == path)


def _feed_forward(family: Family, index: int, block: str, config: PreTrainedConfig) -> FeedForward:
    holders = {role: holder for role in FEED_FORWARD_ROLES if (holder := family.holder(role))}
    paths = {role: f"{block}.{family.roles[holder]}" for role, holder in holders.items()}
    closing, branch = (path and f"{block}.{path}" for path in (family.closing_norm, family.branch_norm))
    fusion = family.fusion(holders["up"], config)
    return FeedForward(index, **paths, fusion=fusion, closing_norm=closing, branch_norm=branch)


def _attention(family: Family, index: int, block: str, model: PreTrainedModel) -> Attention:
    config = model.config
    holders = {role: holder for role in ATTENTION_ROLES if (holder := family.holder(role))}
    paths = {role: f"{block}.{family.roles[holder]}" for role, holder in holders.items()}
    names = (family.attention_sum, family.attention_norm, family.query_norm)
    total, branch, query = (name and f"{block}.{name}" for name in names)
    heads, groups = heads_of(config)
    return Attention(
        index,
        {role: path for role, path in paths.items() if role != "output"},
        family.fusion(holders["query"], config),
        paths["output"],
        heads,
        groups,
        head_size_of(config),
        closing_norm=total,
        branch_norm=branch,
        query_norm=query if query and has_module(model, query) else None,
        rotary=family.rotary,
    )


def has_module(model: nn.Module, path: str) -> bool:
    """Say whether there is a module at `path`."""
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def replace_module(model: nn.Module, path: str, *, module: nn.Module) -> None:
    """Put `module` where `path` leads.

    Raises:
        KronpressError: nothing is there.
    """
    if not has_module(model, path):
        raise KronpressError(f"the model has no module '{path}'")
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
