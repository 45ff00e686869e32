"""SQuAD: the answer to a question is a span of the text that comes with it (Rajpurkar et al., 2016; 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from transformers import BatchEncoding, PreTrainedTokenizerBase

from kronpress.data import HUB, user_path
from kronpress.errors import KronpressError
from kronpress.tasks.squad_files import Question, hub_questions, questions_in
from kronpress.tasks.squad_scores import best_threshold, breakdown, qualities
from kronpress.tasks.task import TASKS, Feature, Head, Task

Offsets: TypeAlias = tuple[tuple[int, int], ...]
Logits: TypeAlias = Float[np.ndarray, "2 _"]  # of starts and ends

_BATCH = 1000  # questions that are inside a tokenizer at once
_LARGEST = 1e30  # sums of two such logits are still numbers


@dataclass(frozen=True)
class Answer:
    """The best span of a context, whether it is better than no answer or not.

    Attributes:
        text: the span; empty where the model can name none.
        null_gap: score of no answer less that of the span, a difference of summed logits; minus infinity where a
            task's questions always have an answer.
    """

    text: str
    null_gap: float


@dataclass(frozen=True, kw_only=True)
class SquadTask(Task[Question, Answer]):
    """Questions on paragraphs of Wikipedia, scored by exact match and F1.

    A context that is too long is read in windows that overlap. Where a window does not hold the whole answer, its
    label is the first token, [CLS].

    Attributes:
        version: of the data set; its files are called by it.
        hub: the data set on the hub.
        unanswerable: whether there are questions without an answer, as in version 2.0; [CLS] then stands for none.
        stride: tokens that two windows of a context share, or fewer where they are too short for it.
        max_question: tokens of a question; the rest is cut off.
        max_answer: tokens of an answer.
        n_best: the most probable starts and ends, so many of each, that answers are made of.
    """

    head: ClassVar[Head] = "spans"
    metrics: tuple[str, ...] = ("em", "f1")
    max_length: int = 384
    version: str
    hub: str
    unanswerable: bool = False
    stride: int = 128
    max_question: int = 64
    max_answer: int = 30
    n_best: int = 20

    @property
    def outputs(self) -> int:
        """Two for each token: whether the answer starts and whether it ends there."""
        return 2

    def read(self, source: str, split: str) -> list[Question]:
        """Read one split from a folder, or whatever a file holds, in SQuAD's own JSON format, or a data set on the hub.

        A folder has it as `train.json` or, with the version, `train-v1.1.json`, or as its only `train*.json`. See
        `read_rows` for sources on the hub.

        Raises:
            KronpressError: missing, malformed or empty, an answer that does not stand where it should, none
                outside of `test`; the message names file, article, paragraph, question and remedy.
        """
        if source.startswith(HUB):
            found = hub_questions(source, split, (self.hub,))
        else:
            found = questions_in(user_path(source), split, self.version)
        questions = [self._checked(question, place, split) for question, place in found]
        if not questions:
            raise KronpressError(f"'{source}' holds no question; give a file with 'qas' in its paragraphs")
        return questions

    def features(
        self, examples: Sequence[Question], tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> list[Feature]:
        """Return the windows of each question in their order, at most `max_length` tokens each.

        Raises:
            KronpressError: the tokenizer is no encoder's, or `max_length` leaves no room for a context.
        """
        _require_encoder(tokenizer, self.name)
        asked = min(self.max_question, max_length // 2)
        room = max_length - asked - tokenizer.num_special_tokens_to_add(pair=True)
        if room < 1:
            raise KronpressError(
                f"{self.name}: max_length={max_length} leaves no room for a context beside the question; "
                f"use {self.max_length}, or what the model sees at most"
            )
        options = {"max_length": max_length, "stride": min(self.stride, room // 2)}
        shared: dict[Any, Any] = {}  # windows of one context have most numbers in common
        found: list[Feature] = []
        for start in range(0, len(examples), _BATCH):
            batch = examples[start : start + _BATCH]
            encoded = tokenizer(
                _cut([each.question.strip() for each in batch], tokenizer, asked),
                [each.context for each in batch],
                truncation="only_second",
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                return_attention_mask=False,
                **options,
            )
            for window, example in enumerate(encoded["overflow_to_sample_mapping"]):
                found.append(_feature(encoded, window, batch[example], example=start + example, shared=shared))
        return found

    def answers(
        self, examples: Sequence[Question], features: Sequence[Feature], outputs: Sequence[Logits]
    ) -> list[Answer]:
        """Return the span with the greatest sum of logits over all windows of each question.

        No answer scores what [CLS] does, in the window where that is least. Logits that are no numbers count as the
        smallest ones.
        """
        texts, best, null = [""] * len(examples), [-math.inf] * len(examples), [math.inf] * len(examples)
        for feature, raw in zip(features, outputs, strict=True):
            at = feature.example
            logits = np.nan_to_num(raw.astype(np.float64), nan=-_LARGEST, posinf=_LARGEST, neginf=-_LARGEST)
            null[at] = min(null[at], float(logits[:, 0].sum()))
            score, start, end = self._span(feature, logits)
            if score > best[at]:
                best[at] = score
                texts[at] = examples[at].context[feature.offsets[start][0] : feature.offsets[end][1]]
        gaps = [lost - found if self.unanswerable else -math.inf for lost, found in zip(null, best, strict=True)]
        return [Answer(text, gap) for text, gap in zip(texts, gaps, strict=True)]

    def scores(self, examples: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Return exact match and F1 in percent, as the data set's own script of that version computes them.

        For version 2.0 no answer is given where its score is the higher one, and there follow the scores of the
        questions with and without an answer and, under names that begin with `oracle_`, the best that another threshold
        of the null-score difference would have given, and that threshold (in logits). It is chosen on the very labels
        it is scored with, so it is no result.

        Raises:
            KronpressError: a question has no answer to compare with.
        """
        for question in examples:
            if not question.answers and not (question.impossible and self.unanswerable):
                raise KronpressError(
                    f"{self.name}: question '{question.id}' has no answer to compare with; score a split that has them"
                )
        golds = [[text for text, _ in question.answers] for question in examples]
        answered, silent = (
            qualities(texts, golds, unanswerable=self.unanswerable)
            for texts in ([answer.text for answer in answers], [""] * len(golds))
        )
        gaps = np.array([answer.null_gap for answer in answers])
        given = {name: np.where(gaps > 0, silent[name], answered[name]) for name in self.metrics}
        found = {name: float(each.mean()) for name, each in given.items()}
        if self.unanswerable:
            impossible = np.array([question.impossible for question in examples])
            for name in self.metrics:
                found |= breakdown(given[name], impossible, name=name)
            for name in self.metrics:
                threshold = best_threshold(answered[name], silent[name], gaps=gaps)
                found |= {f"oracle_{name}": threshold.score, f"oracle_{name}_threshold": threshold.value}
        return found

    def _checked(self, question: Question, place: str, split: str) -> Question:
        if question.impossible and not self.unanswerable:
            raise KronpressError(
                f"{place}: the context does not answer it, and '{self.name}' has no such questions; use 'squad-2'"
            )
        if split != "test" and not question.answers and not question.impossible:
            raise KronpressError(f"{place}: no answer; give one under 'answers', or remove the question")
        return question

    def _span(self, feature: Feature, logits: Logits) -> tuple[float, int, int]:
        """Return score, first and last token of the best span; minus infinity where there is none."""
        inside = _context_tokens(feature.offsets)
        starts, ends = (inside[np.argsort(-row[inside], kind="stable")[: self.n_best]] for row in logits)
        lengths = ends[None, :] - starts[:, None] + 1
        sums = logits[0, starts][:, None] + logits[1, ends][None, :]
        allowed = np.where((lengths >= 1) & (lengths <= self.max_answer), sums, -math.inf)
        if not allowed.size:
            return -math.inf, 0, 0
        row, column = np.unravel_index(allowed.argmax(), allowed.shape)
        return float(allowed[row, column]), int(starts[row]), int(ends[column])


def _require_encoder(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    if not tokenizer.is_fast:
        raise KronpressError(
            f"{name} needs to know where in the text each token stands, and {type(tokenizer).__name__} can not tell; "
            "load a tokenizer with a tokenizer.json"
        )
    first = tokenizer.cls_token_id
    if first is None or tokenizer("a", "a")["input_ids"][0] != first:
        raise KronpressError(
            f"{name} points at [CLS] where a text has no answer, and the tokenizer puts none first; "
            "span tasks need an encoder such as BERT or RoBERTa, with its own tokenizer"
        )


def _cut(questions: list[str], tokenizer: PreTrainedTokenizerBase, limit: int) -> list[str]:
    """Return the questions without what comes after their first `limit` tokens."""
    options = {"add_special_tokens": False, "return_offsets_mapping": True, "return_attention_mask": False}
    offsets = tokenizer(questions, verbose=False, **options)["offset_mapping"]
    return [
        text[: spans[limit - 1][1]] if len(spans) > limit else text
        for text, spans in zip(questions, offsets, strict=True)
    ]


def _feature(
    encoded: BatchEncoding, window: int, question: Question, *, example: int, shared: dict[Any, Any]
) -> Feature:
    """Gather one window; equal numbers are kept but once, in `shared`."""
    spans = [
        (start, end) if part == 1 else (0, 0)
        for part, (start, end) in zip(encoded.sequence_ids(window), encoded["offset_mapping"][window], strict=True)
    ]
    offsets = tuple(shared.setdefault(span, span) for span in spans)
    return Feature(
        ids=tuple(shared.setdefault(token, token) for token in encoded["input_ids"][window]),
        types=tuple(encoded["token_type_ids"][window]) if "token_type_ids" in encoded else None,
        labels=_labels(question, offsets),
        example=example,
        offsets=offsets,
    )


def _labels(question: Question, offsets: Offsets) -> tuple[float, ...]:
    if question.impossible:
        return 0.0, 0.0
    if not question.answers:
        return ()
    text, start = question.answers[0]
    end = start + len(text.rstrip())
    start += len(text) - len(text.lstrip())
    inside = _context_tokens(offsets)
    if not inside.size or offsets[inside[0]][0] > start or offsets[inside[-1]][1] < end:
        return 0.0, 0.0
    held = [token for token in inside if offsets[token][0] < end and offsets[token][1] > start]
    return (float(held[0]), float(held[-1])) if held else (0.0, 0.0)


def _context_tokens(offsets: Offsets) -> Int[np.ndarray, " tokens"]:
    """Return the indices of the tokens that stand for something in the context."""
    return np.flatnonzero([end > start for start, end in offsets])


SQUAD = SquadTask(name="squad", version="1.1", hub="rajpurkar/squad")
SQUAD_2 = SquadTask(name="squad-2", version="2.0", hub="rajpurkar/squad_v2", unanswerable=True)
for _task in (SQUAD, SQUAD_2):
    TASKS.add(_task.name, _task)
