"""What a run keeps of each finished step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pydantic import Field

from kronpress.records.codec import Record
from kronpress.records.evaluation import EvaluationRecord
from kronpress.records.layers import FactorizeRecord, ReconstructRecord, TruncateRecord
from kronpress.records.quantization import QuantizationRecord
from kronpress.records.tasks import FinetuneRecord
from kronpress.records.training import TrainingRecord

StepRecord: TypeAlias = (
    FactorizeRecord
    | TruncateRecord
    | ReconstructRecord
    | QuantizationRecord
    | TrainingRecord
    | FinetuneRecord
    | EvaluationRecord
)
"""What a step returns; its `kind` says in JSON which of them it is."""


@dataclass(frozen=True)
class StepReport(Record):
    """The content of a step's report.json.

    Attributes:
        step: its kind, as the recipe names it.
        seconds: that it took, since it began or went on.
        peak_rss_bytes: the most memory that the process has held until its end.
        record: what the step returned.
    """

    step: str
    seconds: float
    peak_rss_bytes: int
    record: Annotated[StepRecord, Field(discriminator="kind")]
