"""Train the student back: losses, what they see of the models, the trainer and the step."""

from kronpress.distill.distillation import Distillation
from kronpress.distill.finetune import Finetune
from kronpress.distill.log import read_log
from kronpress.distill.losses import (
    LOSSES,
    CrossEntropy,
    LayerLoss,
    LogitDistillation,
    LogitLoss,
    Loss,
)
from kronpress.distill.step import Distill
from kronpress.distill.training import TrainingStep

__all__ = [
    "LOSSES",
    "CrossEntropy",
    "Distill",
    "Distillation",
    "Finetune",
    "LayerLoss",
    "LogitDistillation",
    "LogitLoss",
    "Loss",
    "TrainingStep",
    "read_log",
]
