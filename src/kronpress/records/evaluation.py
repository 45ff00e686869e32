"""What was measured of a model, alone or beside the dense one that it comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from kronpress.records.codec import Record
from kronpress.records.sizes import Footprint


@dataclass(frozen=True)
class Perplexity(Record):
    """A perplexity and all that must be said with it.

    `tokens` counts the predicted ones (the first of each window may be context only). Where a protocol normalizes by
    words or bytes, `words` counts those of the whole text and `tokens_per_word` is the text's ratio, the exponent from
    the perplexity per token to the one per word.
    """

    protocol: str
    text: str
    perplexity: float
    tokens: int
    windows: int
    seconds: float
    words: int | None = None
    tokens_per_word: float | None = None


@dataclass(frozen=True)
class PerplexityComparison(Record):
    """A perplexity of both models; `ratio` is student ÷ dense."""

    dense: Perplexity
    student: Perplexity
    ratio: float

    @classmethod
    def of(cls, dense: Perplexity, student: Perplexity) -> PerplexityComparison:
        """Compare two perplexities under one protocol."""
        return cls(dense, student, student.perplexity / dense.perplexity)


@dataclass(frozen=True)
class SetPerplexity(Record):
    """The perplexity on one text of a set; `digest` is the beginning of the SHA-256 of the text."""

    name: str
    digest: str
    perplexity: Perplexity


@dataclass(frozen=True)
class SetComparison(Record):
    """The perplexity of both models on one text of a set."""

    name: str
    digest: str
    perplexity: PerplexityComparison


@dataclass(frozen=True)
class TextSetScore(Record):
    """The perplexities of a model on the texts of a set."""

    name: str
    texts: tuple[SetPerplexity, ...]


@dataclass(frozen=True)
class TextSetComparison(Record):
    """The texts of a set under both models; `general` is the geometric mean of the ratios, student ÷ dense."""

    name: str
    texts: tuple[SetComparison, ...]
    general: float

    @classmethod
    def of(cls, dense: TextSetScore, student: TextSetScore) -> TextSetComparison:
        """Compare two models on the same texts."""
        texts = tuple(
            SetComparison(ours.name, ours.digest, PerplexityComparison.of(theirs.perplexity, ours.perplexity))
            for theirs, ours in zip(dense.texts, student.texts, strict=True)
        )
        return cls(student.name, texts, geometric_mean([text.perplexity.ratio for text in texts]))


def geometric_mean(ratios: Sequence[float]) -> float:
    """Return the geometric mean of numbers of which some may be zero, infinite or not a number.

    >>> round(geometric_mean([1.0, 2.0, 4.0]), 12), geometric_mean([1.0, math.inf])
    (2.0, inf)
    """
    return math.exp(sum(math.log(ratio) if ratio else -math.inf for ratio in ratios) / len(ratios))


@dataclass(frozen=True)
class LambadaScore(Record):
    """A score on LAMBADA and all that must be said with it.

    Attributes:
        perplexity: of a last word, however many tokens it has.
        accuracy: last words that greedy decoding would write, in percent.
        cut: passages whose beginning was cut off because the model does not see so many tokens.
    """

    protocol: str
    text: str
    perplexity: float
    accuracy: float
    passages: int
    cut: int
    seconds: float


@dataclass(frozen=True)
class LambadaComparison(Record):
    """LAMBADA of both models; `ratio` is the student's perplexity ÷ the dense model's."""

    dense: LambadaScore
    student: LambadaScore
    ratio: float

    @classmethod
    def of(cls, dense: LambadaScore, student: LambadaScore) -> LambadaComparison:
        """Compare two scores on the same passages."""
        return cls(dense, student, student.perplexity / dense.perplexity)


@dataclass(frozen=True)
class LmEvalScore(Record):
    """A metric of a task, in lm-eval's own words.

    Attributes:
        filter: what lm-eval did to the answers first, often 'none'.
        stderr: standard error of the value, where lm-eval gives one.
        examples: how many were asked; None for a group of tasks.
        version: of the task; `harness` is the version of lm-eval.
    """

    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    examples: int | None
    few_shot: int | None
    version: str
    harness: str

    @property
    def measured(self) -> str:
        """What was measured: the metric, and the filter where there is one."""
        return self.metric if self.filter == "none" else f"{self.metric}, {self.filter}"


@dataclass(frozen=True)
class LmEvalComparison(Record):
    """A metric of a task of lm-eval, of both models."""

    dense: LmEvalScore
    student: LmEvalScore


@dataclass(frozen=True)
class Fidelity(Record):
    """Cosine and relative error ‖s − t‖ / ‖t‖ of the outputs, over all tokens of the windows."""

    cosine: float
    relative_error: float
    windows: int


@dataclass(frozen=True)
class SpeedRow(Record):
    """One phase: median tokens per second of both, and the student's speed over the dense model's.

    `ratio` is the median of the ratios of neighboring runs, `ratio_min` and `ratio_max` their spread.
    """

    phase: str
    dense: float
    student: float
    ratio: float
    ratio_min: float
    ratio_max: float


@dataclass(frozen=True)
class SpeedComparison(Record):
    """Rows for 'prefill' and 'decode' (encoders: 'prefill' only), and what they were measured under."""

    rows: tuple[SpeedRow, ...]
    prompt_tokens: int
    new_tokens: int
    repeats: int
    threads: int
    device: str
    dense_dtype: str
    student_dtype: str


@dataclass(frozen=True)
class Sample(Record):
    """What the model wrote after `prompt` before and after compression."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class ModelEvaluation(Record):
    """What was measured of one model; a part that was not asked for is empty.

    `precision` is the number format of the matrix products.
    """

    precision: str
    perplexity: tuple[Perplexity, ...] = ()
    lambada: LambadaScore | None = None
    lm_eval: tuple[LmEvalScore, ...] = ()
    footprint: Footprint | None = None
    texts: TextSetScore | None = None


@dataclass(frozen=True)
class EvaluationRecord(Record):
    """What a step measured of the student beside the dense model; a part that was not asked for is empty.

    Attributes:
        stage: what the recipe calls this point of it.
        precision: number format of the matrix products.
        fidelity: how closely the outputs follow the dense model's, of models without a language-model loss.
    """

    kind: Literal["evaluation"] = field(default="evaluation", kw_only=True)
    stage: str
    precision: str
    perplexity: tuple[PerplexityComparison, ...] = ()
    lambada: LambadaComparison | None = None
    lm_eval: tuple[LmEvalComparison, ...] = ()
    fidelity: Fidelity | None = None
    speed: SpeedComparison | None = None
    samples: tuple[Sample, ...] = ()
    texts: TextSetComparison | None = None
