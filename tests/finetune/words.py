"""A task of a few words, models for it, and a step that fine-tunes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from kronpress.finetune import Finetune
from kronpress.step import Workbench
from tests.tiny import POSITIONS, SPECIAL, bench, factorized, tiny_bert, tiny_tokenizer

WORDS = ("sun", "moon", "star", "sky", "sea", "tree")
MORE_WORDS = ("lake", "hill", "rain", "snow", "wind", "leaf", "sand", "rock", "fire", "the", "is")
PIECES = ("out", "##door", "##s", "a", "2nd", "b", ".", "!", ",")


def rows(count: int, *, seed: int) -> list[str]:
    """Sentences of one to six words; those with `moon` are of class 1."""
    generator = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        words = generator.choice(WORDS, size=generator.integers(1, 7)).tolist()
        lines.append(f"{' '.join(words)}\t{int('moon' in words)}")
    return lines


def work(tmp_path: Path, *, build: Any = tiny_bert) -> Workbench:
    model = build()
    return Workbench(
        factorized(model, tmp_path / "factorized", sites="all"),
        model,
        tiny_tokenizer(),
        bench(model, tmp_path).train,
        bench(model, tmp_path).held_out,
        tmp_path / "step",
    )


def step(data: Path, **fields: Any) -> Finetune:
    given = {"tasks": "sst-2", "data": str(data), "epochs": 2, "batch": 16, "learning_rate": 0.003, "seeds": 2}
    return Finetune(**(given | {"losses": {"logits": 1, "hidden": {"metric": "relative"}}} | fields))


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, and a few pieces that others are made of: `outdoors` is read as three."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *WORDS, *MORE_WORDS, *PIECES))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    special = dict(zip(names, SPECIAL, strict=False))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **special)


def write_cola(data: Path, *, count: int) -> None:
    (data / "CoLA").mkdir()
    for split in ("train", "dev"):
        lines = [f"x\t{i % 2}\t\t{line.partition(chr(9))[0]} again" for i, line in enumerate(rows(count, seed=5))]
        (data / "CoLA" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
