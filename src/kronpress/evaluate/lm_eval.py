"""The tasks of EleutherAI's lm-evaluation-harness, on a model in memory; needs the extra `lm-eval`."""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kronpress.data import knows_more, require_known
from kronpress.errors import KronpressError
from kronpress.evaluate.model_checks import evaluating, require_causal
from kronpress.records import LmEvalScore

_BATCH = 4
_TASK_FAULTS = (OSError, ImportError, ValueError, KeyError, TypeError, yaml.YAMLError)  # data away, a wrong YAML file


@dataclass(frozen=True)
class LmEvalTasks:
    """Tasks of the lm-evaluation-harness.

    Attributes:
        tasks: names of tasks, groups or tags, or patterns with `*`; most of them read their data from the hub.
        include: a folder with task files (YAML) of your own, whose names win.
        limit: the first examples of each task only; such numbers are for trying out.
    """

    tasks: tuple[str, ...]
    include: str | None = None
    limit: int | None = None

    def check(self) -> None:
        """Find the harness and the tasks.

        Raises:
            KronpressError: not installed, no such folder or no such task.
        """
        if self.include is not None and not Path(self.include).is_dir():
            raise KronpressError(f"there is no folder '{self.include}' of task files; name one that holds *.yaml")
        if not self.tasks:
            raise KronpressError("no task is named; name one, such as lambada_openai, or several with commas")
        for task in self.tasks:
            if not self._manager.match_tasks([task]):
                near = difflib.get_close_matches(task, self._manager.all_tasks, n=3, cutoff=0.5)
                raise KronpressError(
                    f"lm-eval knows no task '{task}'{': did you mean ' + ' or '.join(near) + '?' if near else ''}; "
                    "`lm-eval ls tasks` lists them, and a folder with your own is named by --lm-eval-include, or by "
                    "lm_eval_include in a recipe"
                )

    def measure(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[LmEvalScore, ...]:
        """Measure `model`, which runs as it is: its device, its dtype. Seeds the global random generators.

        Raises:
            KronpressError: as `check`, for a model that does not predict the next token, and where the harness can
                not read a task or its data.
        """
        require_causal(model, what="lm-eval")
        self.check()
        wrapper, harness = _module("lm_eval.models.huggingface").HFLM, _module("lm_eval")
        with _quiet(), evaluating(model):
            wrapped = wrapper(pretrained=model, tokenizer=tokenizer, batch_size=_BATCH)
            try:
                done = harness.simple_evaluate(
                    model=wrapped,
                    tasks=self._manager.match_tasks(list(self.tasks)),
                    task_manager=self._manager,
                    limit=self.limit,
                    log_samples=False,
                )
            except IndexError:
                if knows_more(tokenizer, model=model):
                    require_known(torch.tensor([*tokenizer.get_vocab().values()]), tokenizer, model=model)
                raise
            except _TASK_FAULTS as error:
                raise KronpressError(
                    f"lm-eval could not do {', '.join(self.tasks)}: {type(error).__name__}: {error}; "
                    "see that the task file is right and its data is at hand (most tasks read theirs from the hub)"
                ) from error
        return tuple(_results(done))

    @cached_property
    def _manager(self) -> Any:
        """Index the task files, which takes some seconds."""
        with _quiet():
            return _module("lm_eval.tasks").TaskManager(include_path=self.include)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lm_eval":
            raise
        raise KronpressError("lm-eval is not installed; do: pip install lm-eval") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness from logging what is not an error."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


def _results(done: Mapping[str, Any]) -> Iterator[LmEvalScore]:
    """Go through the numbers; their keys are `metric,filter` and `metric_stderr,filter`."""
    for task, row in done["results"].items():
        for key, value in row.items():
            metric, comma, filter_name = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            yield LmEvalScore(
                task=task,
                metric=metric,
                filter=filter_name,
                value=float(value),
                stderr=_number(row.get(f"{metric}_stderr,{filter_name}")),
                examples=done["n-samples"].get(task, {}).get("effective"),
                few_shot=done["n-shot"].get(task),
                version=str(done["versions"].get(task)),
                harness=str(done["lm_eval_version"]),
            )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def parse_tasks(names: str) -> tuple[str, ...]:
    """Split names at commas.

    >>> parse_tasks("wikitext, piqa")
    ('wikitext', 'piqa')
    """
    return tuple(filter(None, map(str.strip, names.split(","))))
