"""The engine of every step that trains: objective, trainer, checkpoints and log."""

from kronpress.train.language_objective import Distillation
from kronpress.train.log import read_log
from kronpress.train.step import Material, TrainingStep

__all__ = ["Distillation", "Material", "TrainingStep", "read_log"]
