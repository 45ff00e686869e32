"""The command that measures a model, alone or side by side with another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kronpress.cli import work
from kronpress.cli.app import Model, command
from kronpress.errors import KronpressError

# What the protocols say of themselves; a test compares. Blank lines, because the help joins lines without any between.
_PROTOCOLS = """Protocols of perplexity:

tokens-512: any text; windows of 512; per token.

tokens-1024: any text; windows of 1024; per token.

bytes-512: any text; windows of 512; per byte; as models with another tokenizer.

wikitext-v1: WikiText v1; windows of 1024; per token.

wikitext-raw: raw WikiText; windows of 1024; per token.

krony-pt: WikiText v1; windows of 1024; per token, mean of window means; as Krony-PT's and TQCompressor's tables.

krony-pt-lambada: the passages of LAMBADA; windows of 1024; per token, mean of window means; as Krony-PT's LAMBADA, on
the lowercase test set.

gpt2-zero-shot: raw WikiText; windows of 1024; per token; as GPT-2's zero-shot WikiText-2.

wikitext-stride-512: raw WikiText; windows of 1024, stride 512; per token; as Hugging Face's guide to perplexity.

wikitext-2048: raw WikiText; windows of 2048; per token; as GPTQ, SparseGPT and those who use their scripts.

wikitext-run-clm: raw WikiText; windows of 1024; per token; as fine-tuning by Hugging Face's run_clm.

wikitext-word: raw WikiText, detokenized; windows of 1024; per word; as lm-eval's wikitext, GPT-2's zero-shot
WikiText-103.

wikitext-v1-word: WikiText v1; windows of 1024; per word or line end; as models trained on words.

ptb: the Penn Treebank as Mikolov prepared it; windows of 1024; per token.

ptb-2048: the Penn Treebank as Mikolov prepared it; windows of 2048; per token; as SparseGPT's script.

ptb-word: the Penn Treebank as Mikolov prepared it, detokenized; windows of 1024; per word or line end; as models
trained on words.

tokens-N: as tokens-512, with windows of any number N of tokens from 2 on.
"""


@command(epilog=_PROTOCOLS)
def evaluate(
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(
            help="Text to measure on, the whole of it: one that was not trained on. "
            "By default the last tenth of the bundled one."
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="Protocol of perplexity, one of those below; may be repeated. By default tokens-512, or tokens-N "
            "with the N tokens that the models see, or none where --texts, --lambada or --lm-eval is given and --data "
            "is not."
        ),
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(help="YAML file of a set of texts; with --against also the ratios' geometric mean.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="A dense model to compare with, in the same run.")] = None,
    max_windows: Annotated[int | None, typer.Option(min=1, help="Measure the first windows only.")] = None,
    lambada: Annotated[
        str | None, typer.Option(help="LAMBADA's passages, a .jsonl file: accuracy, perplexity.")
    ] = None,
    lm_eval: Annotated[
        str | None, typer.Option(help="Tasks of lm-evaluation-harness, with commas; needs the extra lm-eval.")
    ] = None,
    lm_eval_include: Annotated[str | None, typer.Option(help="Folder with task files (YAML) of your own.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take the first passages of LAMBADA and examples of tasks only.")
    ] = None,
    precision: Annotated[
        Literal["auto", "bf16", "fp32"],
        typer.Option(help="Number format of matrix products; auto is the one that is faster here."),
    ] = "auto",
    speed: Annotated[bool, typer.Option("--speed", help="Compare speed with --against, alternating.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")] = None,
) -> None:
    """Measure perplexity by named protocols, tasks, size and speed; ratios are to --against, measured side by side."""
    if speed and against is None:
        raise KronpressError("--speed compares two models; name the other one with --against")
    if lm_eval_include is not None and lm_eval is None:
        raise KronpressError("--lm-eval-include holds tasks for --lm-eval; name which of them to measure")
    reads_text = protocol or data is not None or not (lambada or lm_eval or texts)
    if max_windows is not None and texts is not None and not reads_text:
        raise KronpressError("--max-windows is for --data; a set of texts says its windows in its file")
    evaluation = work.evaluate.asked(
        text=work.evaluate.text(protocol or (), data, max_windows) if reads_text else None,
        texts=None if texts is None else work.evaluate.texts(texts),
        lambada=None if lambada is None else work.evaluate.lambada(lambada, limit),
        lm_eval=None if lm_eval is None else work.evaluate.lm_eval(lm_eval, lm_eval_include, limit),
        speed=speed,
    )
    work.evaluate.evaluate(model, against, evaluation, precision=precision, json_file=json_file)
