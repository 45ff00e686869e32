"""Train the student back: losses, the trainer and the step."""

from kronpress.distill.logits import LogitDistillation
from kronpress.distill.loss import LOSSES, Loss
from kronpress.distill.step import Distill
from kronpress.distill.trainer import DistillationTrainer, read_log

__all__ = ["LOSSES", "Distill", "DistillationTrainer", "LogitDistillation", "Loss", "read_log"]
