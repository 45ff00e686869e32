"""The evaluate step of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from kronpress.checkpoint import files
from kronpress.data import read_text
from kronpress.evaluate.lm_eval import LmEvalTasks
from kronpress.evaluate.measure import Evaluation, LambadaFile
from kronpress.evaluate.perplexity import PROTOCOLS
from kronpress.evaluate.perplexity_text import PerplexityText
from kronpress.evaluate.text_set import TextSet
from kronpress.precision import NumberFormat, Precision, choose, computing_in, number_format
from kronpress.records import EvaluationRecord
from kronpress.step import STEPS, Needs, Step, Workbench


@STEPS.enroll
class Evaluate(Step):
    """Measure the student against the teacher on held-out text; changes nothing.

    Attributes:
        stage: what the report calls this point of the recipe.
        protocols: names of perplexity protocols (`kronpress evaluate --help` lists them); by default tokens-512, or
            tokens-N with the N tokens that the model sees.
        text: another text than the recipe's held-out one.
        max_windows: measure the first windows only.
        texts: the YAML file of a set of texts, on each of which both models are measured too.
        lambada: a .jsonl file of LAMBADA, measured as `lambada-openai`; both models must be decoders.
        max_passages: measure the first passages of LAMBADA only.
        lm_eval: tasks, groups or tags of lm-evaluation-harness, which needs the extra lm-eval; both models must be
            decoders.
        lm_eval_include: a folder with task files (YAML) of your own.
        max_examples: measure the first examples of each of these tasks only; such numbers are for trying out.
        precision: number format of matrix products in both models, `bf16` or `fp32`; `auto` is the run's.
        speed: compare prefill and decode, alternating.
        prompts: texts that both models continue greedily.
    """

    kind: ClassVar[str] = "evaluate"
    changes_student: ClassVar[bool] = False
    stage: str = "student"
    protocols: tuple[str, ...] | None = None
    text: str | None = None
    max_windows: int | None = Field(default=None, ge=1)
    texts: str | None = None
    lambada: str | None = None
    max_passages: int | None = Field(default=None, ge=1)
    lm_eval: tuple[str, ...] = ()
    lm_eval_include: str | None = None
    max_examples: int | None = Field(default=None, ge=1)
    precision: Precision = "auto"
    speed: bool = False
    prompts: tuple[str, ...] = ()

    def unread(self) -> dict[str, str]:
        """Return what belongs to LAMBADA or lm-eval where there is none."""
        lambada, tasks = (
            "name LAMBADA's file under lambada, or leave it out",
            "name tasks under lm_eval, or leave it out",
        )
        idle = {} if self.lambada is not None else {"max_passages": lambada}
        return idle if self.lm_eval else idle | {"lm_eval_include": tasks, "max_examples": tasks}

    @field_validator("protocols")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(PROTOCOLS[name].name for name in names)

    def needs(self) -> Needs:
        """Return that the dense model is measured too, on the recipe's text unless the step has its own."""
        return Needs(text=self.text is None)

    def check(self, bench: Workbench) -> None:
        """Check text, protocols, LAMBADA's first passage, tasks of lm-eval and prompts on the dense model."""
        self._evaluation(bench).check(bench.teacher, bench.tokenizer)

    def sources(self) -> dict[str, str]:
        """Return the digests of a text of its own, of a set of texts, of LAMBADA and of task files of its own."""
        digests = {} if self.text is None else {f"the text '{self.text}'": read_text(self.text).fingerprint}
        if self.texts is not None:
            digests[f"the set of texts '{self.texts}'"] = TextSet.read(self.texts).fingerprint
        if self.lambada is not None:
            passages = LambadaFile.read(self.lambada, limit=self.max_passages)
            digests[f"LAMBADA in '{self.lambada}'"] = passages.fingerprint
        if self.lm_eval_include is not None:
            digests[f"the folder '{self.lm_eval_include}'"] = files.digest(Path(self.lm_eval_include))
        return digests

    def run(self, bench: Workbench) -> EvaluationRecord:
        """Measure what the fields ask for and the model can do."""
        evaluation = self._evaluation(bench)
        with computing_in(self._format(bench)):
            return evaluation.compare(
                bench.teacher, bench.student, bench.tokenizer, stage=self.stage, recall=bench.remember
            )

    def _format(self, bench: Workbench) -> NumberFormat:
        device = bench.student.device
        return number_format(device) if self.precision == "auto" else choose(self.precision, device)

    def _evaluation(self, bench: Workbench) -> Evaluation:
        corpus = bench.held_out if self.text is None else read_text(self.text)
        protocols = None if self.protocols is None else tuple(PROTOCOLS[name] for name in self.protocols)
        return Evaluation(
            text=PerplexityText(corpus, protocols, self.max_windows),
            texts=None if self.texts is None else TextSet.read(self.texts),
            lambada=None if self.lambada is None else LambadaFile.read(self.lambada, limit=self.max_passages),
            lm_eval=LmEvalTasks(self.lm_eval, self.lm_eval_include, self.max_examples) if self.lm_eval else None,
            prompts=self.prompts,
            speed=self.speed,
            seed=bench.seed,
        )
