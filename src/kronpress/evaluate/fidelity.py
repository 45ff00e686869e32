"""How closely a student's outputs follow its teacher's, for models without a language-model loss."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.bars import Bar
from kronpress.evaluate.model_checks import evaluating
from kronpress.precision import mixed_precision
from kronpress.records import Fidelity


@torch.inference_mode()
def fidelity(teacher: PreTrainedModel, student: PreTrainedModel, windows: Int[Tensor, "windows tokens"]) -> Fidelity:
    """Compare the first outputs (logits or last hidden states) of two models on the same windows."""
    cosines: list[Tensor] = []
    lost = whole = 0.0
    with evaluating(teacher), evaluating(student), mixed_precision(teacher.device):
        for batch in Bar(windows.to(teacher.device).split(4), desc="outputs", unit="batch"):
            wanted, found = teacher(input_ids=batch)[0].float(), student(input_ids=batch)[0].float()
            cosines.append(torch.cosine_similarity(wanted, found, dim=-1).flatten())
            lost += float((wanted - found).square().sum())
            whole += float(wanted.square().sum())
    return Fidelity(float(torch.cat(cosines).mean()), (lost / whole) ** 0.5, len(windows))
