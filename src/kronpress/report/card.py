"""The model card: a README.md that lies beside the weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import yaml

from kronpress.report.grids import ROLE_HEAD, formats_in_words, part_rows, role_rows, size_words, step_line
from kronpress.report.headline import first_and_last
from kronpress.report.numbers import ratio, significant
from kronpress.report.rows import (
    TEXT_SET_HEAD,
    footprint_rows,
    lm_eval_rows,
    perplexity_rows,
    speed_rows,
    text_set_rows,
)
from kronpress.report.scores import score_tables
from kronpress.report.summary import RunSummary

_AUTO_CLASSES = {
    "text-generation": "AutoModelForCausalLM",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}
_USE = 'ids = tokenizer("Once upon a time", return_tensors="pt").input_ids\noutputs = model(ids)\n'
_USES = {
    "text-generation": (
        'ids = tokenizer("Once upon a time", return_tensors="pt").input_ids\n'
        "print(tokenizer.decode(model.generate(ids, max_new_tokens=20)[0]))\n"
    )
}
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")  # the last two turn words around
_ACTIVE = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside of a word is one
_ENTITY = re.compile(r"&(?=#?\w+;)")
_OPENING = re.compile(r"^(\d*)([-+#=>.)])")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def _front_matter(summary: RunSummary, *, plain: bool) -> str:
    fields: dict[str, object] = {"library_name": "transformers" if plain else "kronpress"}
    if _HUB_NAME.fullmatch(summary.base_model):
        fields["base_model"] = summary.base_model
    fields["tags"] = ["kronpress", "model-compression", "knowledge-distillation"]
    fields["pipeline_tag"] = summary.pipeline_tag
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n"


def _line(text: str) -> str:
    """Return Markdown that shows `text` as it is, on one line, which can not end a heading or a table row."""
    line = " ".join(_CONTROLS.sub(" ", text).split())
    return _ACTIVE.sub(r"\\\g<0>", _ENTITY.sub("&amp;", line).replace("<", "&lt;"))


def _paragraph(text: str) -> str:
    """Return `text` as `_line` does, where a line begins with it, so that it is no heading, list, quote or rule."""
    return _OPENING.sub(r"\1\\\2", _line(text))


def _table(head: Sequence[str], *, rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    shown = [[_line(cell) for cell in row] for row in (head, *rows)]
    lines = [shown[0], ["---"] + ["---:"] * (len(head) - 1), *shown[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _numbers(summary: RunSummary) -> str:
    rows = footprint_rows(summary)
    if summary.perplexity:
        dense, final = first_and_last(list(summary.perplexity))
        first, last = significant(dense.perplexity), significant(final.perplexity)
        rows.append((f"perplexity, {final.text}, {final.protocol}", first, last, ratio(final.ratio)))
    rows += [row[:4] for row in speed_rows(summary)]
    return _table(("", "before", "after", "change or ratio"), rows=rows)


def _stages(summary: RunSummary) -> str:
    return _table(("stage", "text", "protocol", "perplexity", "vs. dense"), rows=perplexity_rows(summary))


def _texts(summary: RunSummary) -> str:
    return _table(TEXT_SET_HEAD, rows=text_set_rows(summary))


def _lm_eval(summary: RunSummary) -> str:
    return _table(("stage", "task", "metric", "dense", "student"), rows=lm_eval_rows(summary))


def _tasks(summary: RunSummary) -> str:
    return "\n".join(
        f"{_table(grid.head, rows=grid.rows)}\n{_paragraph(grid.caption)}\n" for grid in score_tables(summary.tasks)
    )


def _grids(summary: RunSummary) -> str:
    """Say in how many bits the numbers are stored, and what that takes."""
    if not summary.quantized:
        return ""
    first, record = summary.quantized[0].record, summary.quantized[-1].record
    bits = "" if record.formats is None else f" {formats_in_words(record.formats).capitalize()}."
    words = (
        "The numbers of this model lie on grids of few levels; the file holds their codes and scales, and the model "
        f"computes with the numbers that they stand for.{bits} Its tensors take {size_words(first, record)}."
    )
    parts = _table(("part", "before", "after", "change"), rows=part_rows(summary))
    steps = (
        "".join(f"- {_line(line)}\n" for line in map(step_line, summary.quantized))
        if len(summary.quantized) > 1
        else ""
    )
    return "\n".join(filter(None, (f"{_paragraph(words)}\n", parts, _table(ROLE_HEAD, rows=role_rows(record)), steps)))


def _loading(summary: RunSummary, *, plain: bool) -> str:
    auto = _AUTO_CLASSES.get(summary.pipeline_tag, "AutoModel")
    first = "" if plain else "import kronpress  # teaches transformers to open this checkpoint\n"
    code = (
        f"{first}from transformers import {auto}, AutoTokenizer\n\n"
        f'folder = "path/to/this/folder"\nmodel = {auto}.from_pretrained(folder)\n'
        f"tokenizer = AutoTokenizer.from_pretrained(folder)\n\n{_USES.get(summary.pipeline_tag, _USE)}"
    )
    word = (
        "The checkpoint is a plain one: nothing but transformers is needed."
        if plain
        else (
            "Install kronpress and import it before loading; without it, transformers stops, whatever class is used: "
            "it knows neither the model type nor the name of the weights, `kronpress.safetensors`. Do not rename that "
            "file to `model.safetensors`: `LlamaForCausalLM` and the like would then open it, with random numbers in "
            "the compressed layers."
        )
    )
    return f"{word}\n\n```python\n{code}```\n"


def _limits(summary: RunSummary) -> str:
    fixed = [
        "It inherits the license, the biases and the knowledge of its base model, and may have lost more of what the "
        "texts above do not show, such as rare languages, facts and long contexts.",
        "Perplexities compare only under the protocol named beside them. Speed ratios hold for the machine and the "
        "batch they were measured with.",
    ]
    return "".join(f"- {_paragraph(item)}\n" for item in [*fixed, *summary.notes])


def _sections(summary: RunSummary, *, plain: bool) -> Iterator[tuple[str, str]]:
    yield "Size, quality, speed", _numbers(summary)
    yield "Numbers on grids", _grids(summary)
    yield "Perplexity after each stage", _stages(summary)
    yield "Kinds of text", _texts(summary)
    yield "Tasks of lm-eval", _lm_eval(summary)
    yield "Scores on tasks", _tasks(summary)
    yield "How to load", _loading(summary, plain=plain)
    yield "Limits", _limits(summary)
    recipe = summary.recipe_yaml.strip("\n")
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", recipe))])
    yield "What was done", f"{fence}yaml\n{recipe}\n{fence}\n" if recipe else ""


def model_card(summary: RunSummary, *, plain: bool) -> str:
    """Return the card in Markdown; `plain` says that the checkpoint opens without kronpress."""
    lead = f"Made from {_line(summary.base_model)} with kronpress. {_line(summary.description)}".rstrip()
    body = "".join(f"\n## {name}\n\n{text}" for name, text in _sections(summary, plain=plain) if text)
    return f"{_front_matter(summary, plain=plain)}\n# {_line(summary.title)}\n\n{lead}\n{body}"
