"""Tasks: their data, what a model reads of it, and how its answers are scored."""

from kronpress.tasks.task import TASKS, Feature, Head, Outputs, Task

__all__ = ["TASKS", "Feature", "Head", "Outputs", "Task"]
