"""What is measured of one model, or of a dense one and its student: the recipe's step and the command ask here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedModel

from kronpress.data import Corpus
from kronpress.evaluate.fidelity import fidelity
from kronpress.evaluate.lambada import LAMBADA, Passage, read_lambada
from kronpress.evaluate.lm_eval import LmEvalTasks
from kronpress.evaluate.model_checks import require_causal
from kronpress.evaluate.perplexity_text import PerplexityText, Recall
from kronpress.evaluate.samples import generate_samples
from kronpress.evaluate.speed import compare_speed
from kronpress.evaluate.text_set import TextSet
from kronpress.families import is_causal
from kronpress.precision import mixed_precision, number_format
from kronpress.records import (
    EvaluationRecord,
    LambadaComparison,
    LambadaScore,
    LmEvalComparison,
    LmEvalScore,
    ModelEvaluation,
    PerplexityComparison,
    Record,
    Sample,
    TextSetComparison,
)

R = TypeVar("R", bound=Record)


def _anew(_: str, __: type[R], measure: Callable[[], R]) -> R:
    return measure()


@dataclass(frozen=True)
class LambadaFile:
    """The passages of a file of LAMBADA, or the first of them."""

    path: str
    passages: Sequence[Passage]

    @classmethod
    def read(cls, path: str, *, limit: int | None) -> LambadaFile:
        """Read the first `limit` passages, or all.

        Raises:
            KronpressError: the file is missing, malformed or empty.
        """
        return cls(path, read_lambada(path, limit=limit))

    @property
    def fingerprint(self) -> str:
        """What tells these passages from others."""
        return Corpus(self.path, "\n".join(passage.text for passage in self.passages)).fingerprint

    def measure(self, model: PreTrainedModel, tokenizer: Any, *, recall: Recall) -> LambadaScore:
        """Measure a model; the result names the file without its folders."""

        def measured() -> LambadaScore:
            score = LAMBADA.measure(model, tokenizer, self.passages, name=self.path)
            return replace(score, text=Path(self.path).name)

        return recall(f"{LAMBADA.name}/{self.fingerprint}/{number_format(model.device).name}", LambadaScore, measured)

    def check(self, model: PreTrainedModel, tokenizer: Any) -> None:
        """Measure the first passage.

        Raises:
            KronpressError: model, tokenizer and passage do not fit together.
        """
        LAMBADA.measure(model, tokenizer, self.passages[:1], name=self.path, progress=False)


@dataclass(frozen=True)
class Evaluation:
    """All that is to be measured; what is None or empty is not.

    Attributes:
        texts: a set of them, each with its own protocol.
        prompts: texts that both models continue greedily.
        speed: whether prefill and decode are compared, alternating.
        seed: of the prompt whose speed is measured.
    """

    text: PerplexityText | None = None
    texts: TextSet | None = None
    lambada: LambadaFile | None = None
    lm_eval: LmEvalTasks | None = None
    prompts: tuple[str, ...] = ()
    speed: bool = False
    seed: int = 0

    def fitting(self, *models: PreTrainedModel) -> Evaluation:
        """Return the evaluation with protocols of perplexity that suit all models, where none are named."""
        return self if self.text is None else replace(self, text=self.text.fitting(*models))

    def check(self, model: PreTrainedModel, tokenizer: Any) -> None:
        """Measure a little of everything on the dense model, before hours are spent on its student.

        Raises:
            KronpressError: something does not suit the model, or is not installed.
        """
        if self.texts is not None:
            self.texts.check(model, tokenizer)
        if self.lambada is not None:
            self.lambada.check(model, tokenizer)
        if self.lm_eval is not None:
            replace(self.lm_eval, limit=1).measure(model, tokenizer)
        if self.text is not None and not is_causal(model):
            self.text.fidelity_windows(model, tokenizer)
            return
        if self.text is not None:
            self.text.check(model, tokenizer)
        if self.prompts:
            generate_samples(model, tokenizer, self.prompts, max_new_tokens=1)

    def measure(self, model: PreTrainedModel, tokenizer: Any, *, recall: Recall = _anew) -> ModelEvaluation:
        """Measure one model that predicts the next token, in the number format that holds here.

        Args:
            model: runs as it is: its device, its dtype.
            tokenizer: its own.
            recall: looks up what was measured of the model before.

        Raises:
            KronpressError: model, tokenizer, texts and protocols do not fit together.
        """
        require_causal(model, what="an evaluation")
        text, precision = self.fitting(model).text, number_format(model.device).name
        with mixed_precision(model.device):
            perplexities = [] if text is None else text.measure(model, tokenizer, recall=recall)
            texts = None if self.texts is None else self.texts.measure(model, tokenizer, recall=recall)
            lambada = None if self.lambada is None else self.lambada.measure(model, tokenizer, recall=recall)
            lm_eval = () if self.lm_eval is None else _lm_eval(self.lm_eval, model, tokenizer, recall)
        return ModelEvaluation(precision, tuple(perplexities), lambada, lm_eval, texts=texts)

    def compare(
        self,
        dense: PreTrainedModel,
        student: PreTrainedModel,
        tokenizer: Any,
        *,
        stage: str,
        recall: Recall = _anew,
    ) -> EvaluationRecord:
        """Measure the student beside the dense model, in the number format that holds here.

        Of models that do not predict the next token, the outputs are compared instead.

        Args:
            dense: where the student comes from.
            student: with the same vocabulary.
            tokenizer: of both.
            stage: what the record calls the student.
            recall: looks up what was measured of the dense model before.

        Raises:
            KronpressError: as `measure`.
        """
        record = EvaluationRecord(stage, number_format(student.device).name)
        if is_causal(student):
            asked = self.fitting(dense)
            before = asked.measure(dense, tokenizer, recall=recall)
            record = _compared(record, before, asked.measure(student, tokenizer))
            record = replace(record, samples=self._samples(dense, student, tokenizer))
        elif self.text is not None:
            windows = self.text.fidelity_windows(student, tokenizer)
            record = replace(record, fidelity=fidelity(dense, student, windows))
        return replace(record, speed=compare_speed(dense, student, seed=self.seed)) if self.speed else record

    def _samples(self, dense: PreTrainedModel, student: PreTrainedModel, tokenizer: Any) -> tuple[Sample, ...]:
        if not self.prompts:
            return ()
        before, after = (generate_samples(model, tokenizer, self.prompts) for model in (dense, student))
        return tuple(Sample(*texts) for texts in zip(self.prompts, before, after, strict=True))


def _lm_eval(tasks: LmEvalTasks, model: PreTrainedModel, tokenizer: Any, recall: Recall) -> tuple[LmEvalScore, ...]:
    precision = number_format(model.device).name

    def measure() -> ModelEvaluation:
        return ModelEvaluation(precision, lm_eval=tasks.measure(model, tokenizer))

    return recall(f"{tasks!r}/{precision}", ModelEvaluation, measure).lm_eval


def _compared(record: EvaluationRecord, dense: ModelEvaluation, student: ModelEvaluation) -> EvaluationRecord:
    """Return the record with the measurements of both models side by side."""
    return replace(
        record,
        perplexity=tuple(map(PerplexityComparison.of, dense.perplexity, student.perplexity)),
        lambada=LambadaComparison.of(dense.lambada, student.lambada) if dense.lambada and student.lambada else None,
        lm_eval=tuple(map(LmEvalComparison, dense.lm_eval, student.lm_eval)),
        texts=TextSetComparison.of(dense.texts, student.texts) if dense.texts and student.texts else None,
    )
