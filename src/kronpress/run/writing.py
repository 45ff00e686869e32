"""Text that the model of a run writes itself, for calibration and training where there is no other."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteriaList

from kronpress import processes
from kronpress.bars import Bar
from kronpress.checkpoint import files
from kronpress.data.cached import cached, key_of, making
from kronpress.errors import KronpressError, shown
from kronpress.families import is_causal, position_limit
from kronpress.precision import computes_in_bfloat16
from kronpress.run.inputs import computing_device, open_model, ready
from kronpress.run.provenance import model_digests
from kronpress.run.recipe import Recipe, TextSource, shares_of
from kronpress.run.self_text import SELF, SelfText

_BYTES = 16  # that a token takes at most, beside the model's own
_BATCH = 32  # texts that are written at once
_PART = "batch-{}.json"
_BETWEEN_DOCUMENTS = "<|endoftext|>"  # in what GPT-2 learned from, and many after it; often not their bos
_MARK = "9f2c1e"  # stands for what a user says, to see what a chat template puts before it


def with_self_text(recipe: Recipe) -> TextSource:
    """Return the texts of a recipe, with the file of what its model writes in the place of `self`.

    The file is kept in the cache, for the model, its tokenizer and the settings; the main process writes it. A writing
    that was interrupted goes on.

    Raises:
        KronpressError: the model is no decoder, or its tokenizer has no token to begin with.
    """
    shares = shares_of(recipe.data.train)
    if all(share.source != SELF for share in shares.values()):
        return recipe.data
    settings = recipe.data.self_text or SelfText()
    path = processes.from_main(lambda: _written(*open_model(recipe.model), settings))
    written = {
        name: share.model_copy(update={"source": str(path)}) if share.source == SELF else share
        for name, share in shares.items()
    }
    return recipe.data.model_copy(update={"train": written})


def _written(model: PreTrainedModel, tokenizer: Any, settings: SelfText) -> Path:
    """Return the file in the cache, which is written where it is missing."""
    if not is_causal(model):
        raise KronpressError(f"{type(model).__name__} does not write text; name a text in place of data.train: {SELF}")
    beginnings = _beginnings(tokenizer)
    folder = cached("self", key_of(model_digests(model, tokenizer), settings.model_dump(), *beginnings))
    path = folder / "self.jsonl"
    with making(folder, needed=_BYTES * settings.tokens):
        if not path.exists():
            writer = _Writer.of(model, tokenizer, settings, beginnings)
            documents = [text for batch in writer.batches(folder) for text in batch]
            lines = (json.dumps({"text": text}, ensure_ascii=False) for text in documents)
            files.write_text(path, "".join(f"{line}\n" for line in lines))
            for part in folder.glob(_PART.format("*")):
                part.unlink()
    return path


@dataclass(frozen=True)
class _Writer:
    """What writes, and what its texts begin with, by turns."""

    model: PreTrainedModel
    tokenizer: Any
    settings: SelfText
    beginnings: list[list[int]]

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: Any, settings: SelfText, beginnings: list[list[int]]) -> _Writer:
        """Let a model, which is used for nothing else, draw tokens as the settings say, without ever ending."""
        ready(model, dtype=torch.bfloat16 if computes_in_bfloat16(computing_device()) else torch.float32).eval()
        model.generation_config = GenerationConfig(
            do_sample=True, temperature=settings.temperature, top_p=settings.top_p, top_k=0, pad_token_id=0
        )
        return cls(model, tokenizer, settings, beginnings)

    @property
    def length(self) -> int:
        return min(self.settings.length, position_limit(self.model) or self.settings.length)

    def batches(self, folder: Path) -> Iterator[list[str]]:
        """Yield the documents of each batch, which a file in the folder keeps once they are written."""
        count = math.ceil(self.settings.tokens / (_BATCH * self.length))
        paths = [folder / _PART.format(f"{index:05}") for index in range(count)]
        written, batch = sum(path.exists() for path in paths), _BATCH * self.length
        with Bar(desc="text that the model writes", unit="token", initial=written * batch, total=count * batch) as bar:
            for index, path in enumerate(paths):
                if not path.exists():
                    files.write_json(path, self._documents(index, bar))
                yield files.read_json(path)

    def _documents(self, index: int, bar: Bar) -> list[str]:
        """Write a batch, and move a bar of tokens on."""
        chat = index % len(self.beginnings) == 1
        rows = self._drawn(self.beginnings[int(chat)], seed=self.settings.seed * 1_000_003 + index, bar=bar).tolist()
        if chat:  # with the marks of the turns, which the tokenizer reads as such
            return [self.tokenizer.decode(row, skip_special_tokens=False) for row in rows]
        special = {*self.tokenizer.all_special_ids, *self.beginnings[0]}
        runs = (list(run) for row in rows for marks, run in groupby(row, special.__contains__) if not marks)
        return [text for run in runs if (text := self.tokenizer.decode(run).strip())]

    @torch.inference_mode()
    def _drawn(self, beginning: list[int], *, seed: int, bar: Bar) -> Int[Tensor, "texts length"]:
        ids = torch.tensor([beginning] * _BATCH, device=self.model.device)
        if (new := self.length - len(beginning)) < 1:
            raise KronpressError(
                f"a chat begins with {len(beginning)} tokens, and self_text.length is {self.length}; make it longer"
            )
        before = bar.n

        def move(texts: Tensor, scores: Any, **_: Any) -> Tensor:
            bar.update(before + texts.numel() - bar.n)
            return torch.zeros(len(texts), dtype=torch.bool, device=texts.device)  # none has ended

        torch.manual_seed(seed)
        generate: Any = self.model.generate
        told = StoppingCriteriaList([move])  # transformers asks it after each token
        return generate(  # type: ignore[no-any-return]
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, stopping_criteria=told
        )


def _beginnings(tokenizer: Any) -> list[list[int]]:
    """Return the ids that a document begins with and, where there is a chat template, those before what a user says."""
    between = tokenizer.get_vocab().get(_BETWEEN_DOCUMENTS)
    marks = (between, tokenizer.bos_token_id, tokenizer.eos_token_id)
    first = next((mark for mark in marks if mark is not None), None)
    if first is None:
        raise KronpressError(
            f"{type(tokenizer).__name__} has no bos and no eos token for a text to begin with; set one, or name a "
            f"text in place of data.train: {SELF}"
        )
    return [[int(first)], *([_before_the_user(tokenizer)] if tokenizer.chat_template else [])]


def _before_the_user(tokenizer: Any) -> list[int]:
    """Return the ids that a chat template puts before what the user says first."""
    try:
        chat = tokenizer.apply_chat_template([{"role": "user", "content": _MARK}], tokenize=False)
    except Exception as error:  # a template is a program of its own
        raise KronpressError(
            f"the chat template of the tokenizer fails: {shown(str(error))}; mend it, or name a text in place of "
            f"data.train: {SELF}"
        ) from error
    ids: list[int] = tokenizer(chat.split(_MARK)[0], add_special_tokens=False)["input_ids"]
    return ids
