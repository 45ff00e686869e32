"""The engine of every step that trains: objective, trainer, checkpoints and log."""

from kronpress.train.language_objective import Distillation
from kronpress.train.log import read_log
from kronpress.train.settings import TrainingSettings
from kronpress.train.step import TrainingStep
from kronpress.train.training import Material, train

__all__ = ["Distillation", "Material", "TrainingSettings", "TrainingStep", "read_log", "train"]
