"""The evaluate step of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Int
from pydantic import Field, field_validator
from torch import Tensor
from transformers import PreTrainedModel

from kronpress.data import Corpus, read_text, require_known, tokenize, windows
from kronpress.evaluate.fidelity import fidelity
from kronpress.evaluate.lambada import LAMBADA, read_lambada
from kronpress.evaluate.perplexity import PROTOCOLS, longest_protocol
from kronpress.evaluate.samples import generate_samples
from kronpress.evaluate.speed import compare_speed
from kronpress.families import is_causal, position_limit
from kronpress.precision import NumberFormat, Precision, choose, computing_in, mixed_precision, number_format
from kronpress.step import STEPS, Step, Workbench

_FIDELITY_WINDOWS, _FIDELITY_SIZE = 64, 128


@STEPS.register("evaluate")
class Evaluate(Step):
    """Measure the student against the teacher on held-out text; changes nothing.

    Attributes:
        stage: what the report calls this point of the recipe.
        protocols: names of perplexity protocols (`kronpress evaluate --help` lists them); by default tokens-512, or
            tokens-N with the N tokens that the model sees.
        text: another text than the recipe's held-out one.
        max_windows: measure the first windows only.
        lambada: a .jsonl file of LAMBADA, measured as `lambada-openai`; both models must be decoders.
        max_passages: measure the first passages of LAMBADA only.
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
    lambada: str | None = None
    max_passages: int | None = Field(default=None, ge=1)
    precision: Precision = "auto"
    speed: bool = False
    prompts: tuple[str, ...] = ()

    def unread(self) -> dict[str, str]:
        """Return what belongs to LAMBADA where there is none."""
        return (
            {} if self.lambada is not None else {"max_passages": "name LAMBADA's file under lambada, or leave it out"}
        )

    @field_validator("protocols")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(PROTOCOLS[name].name for name in names)

    def check(self, bench: Workbench) -> None:
        """Check text, protocols, LAMBADA's first passage and prompts on the dense model."""
        corpus = self._corpus(bench)
        if self.lambada is not None:
            first = read_lambada(self.lambada, limit=self.max_passages)[:1]
            LAMBADA.measure(bench.teacher, bench.tokenizer, first, name=self.lambada, progress=False)
        if not is_causal(bench.teacher):
            self._windows(bench, corpus)
            return
        for name in self._names(bench):
            PROTOCOLS[name].measure(
                bench.teacher, bench.tokenizer, corpus.text, name=corpus.name, max_windows=1, progress=False
            )
        if self.prompts:
            generate_samples(bench.teacher, bench.tokenizer, self.prompts, max_new_tokens=1)

    def sources(self) -> dict[str, str]:
        """Return the digests of a text of its own and of LAMBADA."""
        found = {} if self.text is None else {f"the text '{self.text}'": read_text(self.text).fingerprint}
        if self.lambada is not None:
            content = "\n".join(passage.text for passage in read_lambada(self.lambada, limit=self.max_passages))
            found[f"LAMBADA in '{self.lambada}'"] = Corpus(self.lambada, content).fingerprint
        return found

    def run(self, bench: Workbench) -> dict[str, Any]:
        """Measure what the fields ask for and the model can do."""
        with computing_in(self._format(bench)):
            return self._report(bench)

    def _format(self, bench: Workbench) -> NumberFormat:
        device = bench.student.device
        return number_format(device) if self.precision == "auto" else choose(self.precision, device)

    def _report(self, bench: Workbench) -> dict[str, Any]:
        report: dict[str, Any] = {"stage": self.stage, "perplexity": [], "samples": []}
        corpus = self._corpus(bench)
        if is_causal(bench.student):
            report["perplexity"] = [self._perplexity(bench, corpus, name) for name in self._names(bench)]
            if self.lambada is not None:
                report["perplexity"].append(self._lambada(bench, self.lambada))
            report["samples"] = self._samples(bench)
        else:
            report["fidelity"] = self._fidelity(bench, corpus)
        if self.speed:
            report["speed"] = asdict(compare_speed(bench.teacher, bench.student, seed=bench.seed))
        return report

    def _names(self, bench: Workbench) -> tuple[str, ...]:
        return (longest_protocol(bench.teacher),) if self.protocols is None else self.protocols

    def _corpus(self, bench: Workbench) -> Corpus:
        return bench.held_out if self.text is None else read_text(self.text)

    def _perplexity(self, bench: Workbench, corpus: Corpus, name: str) -> dict[str, Any]:
        def measure(model: PreTrainedModel) -> dict[str, Any]:
            text = Path(corpus.name).name
            protocol = PROTOCOLS[name]
            return asdict(
                protocol.measure(model, bench.tokenizer, corpus.text, name=text, max_windows=self.max_windows)
            )

        return self._both(bench, measure, key=f"{name}/{corpus.fingerprint}/{self.max_windows}")

    def _lambada(self, bench: Workbench, path: str) -> dict[str, Any]:
        passages = read_lambada(path, limit=self.max_passages)

        def measure(model: PreTrainedModel) -> dict[str, Any]:
            return asdict(LAMBADA.measure(model, bench.tokenizer, passages, name=Path(path).name))

        content = Corpus(path, "\n".join(passage.text for passage in passages))
        return self._both(bench, measure, key=f"{LAMBADA.name}/{content.fingerprint}")

    def _both(
        self, bench: Workbench, measure: Callable[[PreTrainedModel], dict[str, Any]], *, key: str
    ) -> dict[str, Any]:
        """Return a measurement of the dense model, taken once per run, and of the student."""
        device = bench.student.device
        with mixed_precision(device):
            dense = bench.remember(f"{key}/{number_format(device).name}", lambda: measure(bench.teacher))
            student = measure(bench.student)
        return {"dense": dense, "student": student, "ratio": student["perplexity"] / dense["perplexity"]}

    def _fidelity(self, bench: Workbench, corpus: Corpus) -> dict[str, Any]:
        return asdict(fidelity(bench.teacher, bench.student, self._windows(bench, corpus)))

    def _windows(self, bench: Workbench, corpus: Corpus) -> Int[Tensor, "windows tokens"]:
        size = min(_FIDELITY_SIZE, position_limit(bench.student) or _FIDELITY_SIZE)
        ids = tokenize(corpus, bench.tokenizer, limit=size * _FIDELITY_WINDOWS)
        require_known(ids, bench.tokenizer, model=bench.student)
        return windows(ids, size=size, name=corpus.name)

    def _samples(self, bench: Workbench) -> list[dict[str, str]]:
        if not self.prompts:
            return []
        before = generate_samples(bench.teacher, bench.tokenizer, self.prompts)
        after = generate_samples(bench.student, bench.tokenizer, self.prompts)
        rows = zip(self.prompts, before, after, strict=True)
        return [{"prompt": prompt, "before": dense, "after": student} for prompt, dense, student in rows]
