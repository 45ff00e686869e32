"""What steps did, as frozen, typed values that are written as JSON; reports only read them."""

from kronpress.records.cleaning import CleaningExample, CleaningReport, CleaningRow
from kronpress.records.codec import FORMAT_VERSION, Record, decode, encode
from kronpress.records.evaluation import (
    EvaluationRecord,
    Fidelity,
    LambadaComparison,
    LambadaScore,
    LmEvalComparison,
    LmEvalScore,
    ModelEvaluation,
    Perplexity,
    PerplexityComparison,
    Sample,
    SetComparison,
    SetPerplexity,
    SpeedComparison,
    SpeedRow,
    TextSetComparison,
    TextSetScore,
    geometric_mean,
)
from kronpress.records.layers import BlockMeasure, FactorizeRecord, LayerChange, RepairMeasure, TruncateRecord
from kronpress.records.quantization import (
    InputRange,
    NumberFormat,
    NumberFormats,
    QuantizationRecord,
    QuantizedLayer,
)
from kronpress.records.sizes import Footprint
from kronpress.records.steps import StepRecord, StepReport
from kronpress.records.tasks import FinetuneRecord, ModelScore, Score, SeedScore, TaskRecord
from kronpress.records.training import TeacherStorage, TrainingPoint, TrainingRecord

__all__ = [
    "FORMAT_VERSION",
    "BlockMeasure",
    "CleaningExample",
    "CleaningReport",
    "CleaningRow",
    "EvaluationRecord",
    "FactorizeRecord",
    "Fidelity",
    "FinetuneRecord",
    "Footprint",
    "InputRange",
    "LambadaComparison",
    "LambadaScore",
    "LayerChange",
    "LmEvalComparison",
    "LmEvalScore",
    "ModelEvaluation",
    "ModelScore",
    "NumberFormat",
    "NumberFormats",
    "Perplexity",
    "PerplexityComparison",
    "QuantizationRecord",
    "QuantizedLayer",
    "Record",
    "RepairMeasure",
    "Sample",
    "Score",
    "SeedScore",
    "SetComparison",
    "SetPerplexity",
    "SpeedComparison",
    "SpeedRow",
    "StepRecord",
    "StepReport",
    "TaskRecord",
    "TeacherStorage",
    "TextSetComparison",
    "TextSetScore",
    "TrainingPoint",
    "TrainingRecord",
    "TruncateRecord",
    "decode",
    "encode",
    "geometric_mean",
]
