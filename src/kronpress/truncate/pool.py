"""The pool step of a recipe: a narrower model whose weights are averages of neighbors."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from kronpress.checkpoint import settle_ties
from kronpress.errors import KronpressError
from kronpress.families import family_of, layout
from kronpress.layers import is_transposed, stored_numbers, structured_layers
from kronpress.records import FactorizeRecord
from kronpress.step import STEPS, Needs, Step, Workbench


@STEPS.enroll
class Pool(Step):
    """Make the student narrower everywhere: each weight becomes the mean of neighbors in rows and columns.

    Stride-1 average pooling with windows of d - p + 1 of d numbers, of which p stay: the width initialization in the
    code of "A Short Study on Compressing Decoder-Based Language Models" (Li et al., 2021). It is a start for training,
    not a model that keeps what it knew. Feed-forward blocks shrink in the same ratio. Heads keep their size and become
    fewer where the ratio allows it, else all stay and become smaller. The shares of a fused matrix are pooled apart.

    Attributes:
        width: p, numbers in the vector of a token.
    """

    kind: ClassVar[str] = "pool"
    width: int = Field(ge=1)

    def needs(self) -> Needs:
        """Return that neither text nor teacher is read."""
        return Needs(teacher=False, text=False)

    def check(self, bench: Workbench) -> None:
        """Check that the model can have the width."""
        narrower(bench.student, self.width)

    def foreseen(self, student: PreTrainedModel) -> PreTrainedModel:
        """Return a model of the width without numbers in it."""
        kind: Any = type(student)
        with torch.device("meta"):
            narrow: PreTrainedModel = kind(narrower(student, self.width))
        return narrow

    def run(self, bench: Workbench) -> FactorizeRecord:
        """Put a narrower model in the student's place."""
        settle_ties(bench.student)
        before = int(bench.student.config.hidden_size)
        bench.student = pooled(bench.student, self.width)
        note = f"every token's vector has {self.width} numbers, means of neighbors among {before}"
        parameters = stored_numbers(bench.student)
        method = {"name": self.kind, "width": self.width}
        return FactorizeRecord(method=method, modules=(), notes=(note,), parameters=parameters)


def narrower(model: PreTrainedModel, width: int) -> PreTrainedConfig:
    """Return the config of a model with vectors of `width` numbers.

    Raises:
        KronpressError: it is no smaller width, or heads do not fit into it.
    """
    config, before = copy.deepcopy(model.config), int(model.config.hidden_size)
    if width >= before:
        raise KronpressError(f"width: {width} of {before} leaves out nothing; choose a smaller one")
    if structured_layers(model):
        raise KronpressError("the model has factors or codes already, which are not pooled; pool first")
    config.hidden_size = width
    if getattr(config, "word_embed_proj_dim", None) == before:  # OPT's tables, which are as wide but in one size
        config.word_embed_proj_dim = width
    family = family_of(model)
    inner = getattr(config, family.width_key)
    if inner is not None:  # GPT-2 takes four times the width
        family.set_width(config, round(inner * width / before))
    for key, value in _heads(config, before).items():
        setattr(config, key, value)
    return config


def _heads(config: PreTrainedConfig, before: int) -> dict[str, int]:
    """Return the fields of the heads for the new width of a config."""
    width, heads = int(config.hidden_size), int(config.num_attention_heads)
    shared = getattr(config, "num_key_value_heads", None)
    counts = {"num_attention_heads": heads} | ({} if shared is None else {"num_key_value_heads": int(shared)})
    if all(count * width % before == 0 for count in counts.values()):
        return {key: count * width // before for key, count in counts.items()}
    if width % heads or (width // heads) % 2:
        raise KronpressError(
            f"width: {width} does not divide among {heads} heads of an even size; choose a multiple of {2 * heads}"
        )
    return {"head_dim": width // heads} if getattr(config, "head_dim", None) else {}


@torch.no_grad()
def pooled(model: PreTrainedModel, width: int) -> PreTrainedModel:
    """Return a narrower model, in training mode or not as `model` is; that stays as it is."""
    kind: Any = type(model)
    narrow: PreTrainedModel = kind(narrower(model, width)).to(device=model.device, dtype=model.dtype)
    wide = dict(model.named_parameters())
    sites, fused = (
        {site.path: site.fusion for site in layout(side).sites if site.fusion is not None} for side in (model, narrow)
    )
    for name, parameter in narrow.named_parameters():
        path = name.rpartition(".")[0]
        if path not in fused:
            parameter.copy_(average(wide[name], parameter.shape))
            continue
        turned = is_transposed(narrow.get_submodule(path)) and parameter.dim() == 2
        before, after = (tensor.T if turned else tensor for tensor in (wide[name], parameter))
        shares = zip(sites[path].split(before), fused[path].split(after), strict=True)
        after.copy_(fused[path].join([average(old, new.shape) for old, new in shares]))
    if model.can_generate():
        narrow.generation_config = copy.deepcopy(model.generation_config)
    nn.Module.train(narrow, model.training)
    return narrow


def average(tensor: Float[Tensor, "*sizes"], shape: torch.Size) -> Float[Tensor, "*shape"]:
    """Return the means over windows that move by one, along every axis that is to be shorter.

    >>> average(torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.Size([2])).tolist()
    [2.0, 3.6666667461395264]
    """
    for axis, (before, after) in enumerate(zip(tensor.shape, shape, strict=True)):
        if before != after:
            last = tensor.transpose(axis, -1)
            rows = F.avg_pool1d(last.reshape(1, -1, before), before - after + 1, stride=1)
            tensor = rows.view(*last.shape[:-1], after).transpose(axis, -1)
    return tensor
