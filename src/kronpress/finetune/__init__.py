"""Fine-tune student and teacher on tasks, the student by distillation."""

from kronpress.finetune.step import Finetune

__all__ = ["Finetune"]
