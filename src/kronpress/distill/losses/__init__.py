"""The shelf of distillation losses."""

from kronpress.distill.losses.attention import AttentionDistance
from kronpress.distill.losses.contrastive import TokenContrast
from kronpress.distill.losses.cross_entropy import CrossEntropy
from kronpress.distill.losses.directions import DirectionMatching
from kronpress.distill.losses.divergence import LogitDistillation
from kronpress.distill.losses.embedding import EmbeddingDistance
from kronpress.distill.losses.hidden import HiddenDistance
from kronpress.distill.losses.loss import IGNORED, LOSSES, LayerLoss, LogitLoss, Loss
from kronpress.distill.losses.minilm import MiniLM
from kronpress.distill.losses.pkd import PatientDistillation
from kronpress.distill.losses.predictions import Predictions, Teacher, Top
from kronpress.distill.losses.rail import RandomLayers

__all__ = [
    "IGNORED",
    "LOSSES",
    "AttentionDistance",
    "CrossEntropy",
    "DirectionMatching",
    "EmbeddingDistance",
    "HiddenDistance",
    "LayerLoss",
    "LogitDistillation",
    "LogitLoss",
    "Loss",
    "MiniLM",
    "PatientDistillation",
    "Predictions",
    "RandomLayers",
    "Teacher",
    "TokenContrast",
    "Top",
]
