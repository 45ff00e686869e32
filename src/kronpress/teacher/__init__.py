"""Teachers: models that a student learns from, run at every step or asked once and stored."""

from kronpress.teacher.choice import Storage, task_teacher, text_teacher
from kronpress.teacher.live import LiveTeacher, TextHead, frozen_copy, task_live, text_live
from kronpress.teacher.task_outputs import StoredTask
from kronpress.teacher.teacher import STORED, Offer, StoredTeacher, Teacher, model_inputs
from kronpress.teacher.text_outputs import StoredText

__all__ = [
    "STORED",
    "LiveTeacher",
    "Offer",
    "Storage",
    "StoredTask",
    "StoredTeacher",
    "StoredText",
    "Teacher",
    "TextHead",
    "frozen_copy",
    "model_inputs",
    "task_live",
    "task_teacher",
    "text_live",
    "text_teacher",
]
