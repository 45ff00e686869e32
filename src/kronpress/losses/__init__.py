"""The shelf of losses: of the text, and between a student and its teacher."""

from kronpress.losses.attention_distance import AttentionDistance
from kronpress.losses.contrastive import TokenContrast
from kronpress.losses.contrastive_bank import TokenBankContrast
from kronpress.losses.cross_entropy import CrossEntropy
from kronpress.losses.directions import DirectionMatching
from kronpress.losses.divergence import LogitDistillation
from kronpress.losses.embedding import EmbeddingDistance
from kronpress.losses.hidden import HiddenDistance
from kronpress.losses.loss import (
    IGNORED,
    LOSSES,
    LayerLoss,
    LogitLoss,
    Loss,
    compares,
    readings_of,
    readings_of_student,
)
from kronpress.losses.minilm import MiniLM
from kronpress.losses.parsing import parse_losses
from kronpress.losses.pkd import PatientDistillation
from kronpress.losses.predictions import Predictions, TeacherPredictions, Top
from kronpress.losses.rail import RandomLayers

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
    "TeacherPredictions",
    "TokenBankContrast",
    "TokenContrast",
    "Top",
    "compares",
    "parse_losses",
    "readings_of",
    "readings_of_student",
]
