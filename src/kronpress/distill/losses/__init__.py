"""The shelf of distillation losses."""

from kronpress.distill.losses.cross_entropy import CrossEntropy
from kronpress.distill.losses.divergence import LogitDistillation
from kronpress.distill.losses.loss import IGNORED, LOSSES, LayerLoss, LogitLoss, Loss
from kronpress.distill.losses.predictions import Predictions, Teacher, Top

__all__ = [
    "IGNORED",
    "LOSSES",
    "CrossEntropy",
    "LayerLoss",
    "LogitDistillation",
    "LogitLoss",
    "Loss",
    "Predictions",
    "Teacher",
    "Top",
]
