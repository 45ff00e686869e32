"""Write a tokenizer with fewer pieces."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from kronpress.checkpoint.files import read_json, write_json
from kronpress.data.tokens import ids_of
from kronpress.errors import KronpressError, shown
from kronpress.trim.pieces import Pieces

_WITHOUT_IDS = {"ByteLevel"}  # post-processors


def trimmed_tokenizer(tokenizer: PreTrainedTokenizerBase, kept: Sequence[int]) -> PreTrainedTokenizerBase:
    """Return the tokenizer with only these ids, in ascending order, which become 0, 1, 2 …

    A text without trimmed tokens gets the same tokens as before, under their new ids. Pairs are joined only where they
    and what comes of them stay.

    Raises:
        KronpressError: the tokenizer marks texts in a way that is not known here.
    """
    pieces, new = Pieces.of(tokenizer), {number: place for place, number in enumerate(kept)}
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        write_json(Path(folder) / "tokenizer.json", trimmed_content(pieces, new))
        settings = read_json(Path(folder) / "tokenizer_config.json")
        if decoder := settings.get("added_tokens_decoder"):
            settings["added_tokens_decoder"] = {
                str(new[int(number)]): token for number, token in decoder.items() if int(number) in new
            }
            write_json(Path(folder) / "tokenizer_config.json", settings)
        trimmed: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    trimmed.name_or_path = tokenizer.name_or_path
    return trimmed


def trimmed_content(pieces: Pieces, new: Mapping[int, int]) -> dict[str, Any]:
    """Return the `tokenizer.json` with the ids that `new` names, under their new ids."""
    content = copy.deepcopy(pieces.content)
    model, stay = content["model"], {piece for piece, number in pieces.ids.items() if number in new}
    if isinstance(model["vocab"], list):
        model["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in new]
        model["unk_id"] = None if model.get("unk_id") is None else new[model["unk_id"]]
    else:
        model["vocab"] = {piece: new[number] for piece, number in pieces.ids.items() if piece in stay}
    if "merges" in model:
        model["merges"] = [
            [left, right] for left, right in pieces.merges if left in stay and right in stay and left + right in stay
        ]
    content["added_tokens"] = [{**t, "id": new[t["id"]]} for t in content["added_tokens"] if t["id"] in new]
    if content.get("padding"):
        content["padding"]["pad_id"] = new[content["padding"]["pad_id"]]
    content["post_processor"] = _renumbered(content.get("post_processor"), new)
    return content


def require_alike(
    before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, kept: Sequence[int], *, lines: Sequence[str]
) -> int:
    """Check that lines without trimmed tokens get the same tokens as before; return how many lines these are.

    Raises:
        KronpressError: one gets others.
    """
    new, alike = {number: place for place, number in enumerate(kept)}, 0
    for line, old, now in zip(lines, ids_of(lines, before), ids_of(lines, after), strict=True):
        if new.keys() >= set(old):
            alike += 1
            if [new[number] for number in old] != now:
                raise KronpressError(
                    f"the trimmed {type(before).__name__} cuts {shown(line)} in another way than before, although all "
                    "of its tokens stay; this kind of tokenizer cannot be trimmed"
                )
    return alike


def _renumbered(processor: Any, new: Mapping[int, int]) -> Any:
    """Return what adds the marks of a text, with new ids."""
    if processor is None or processor["type"] in _WITHOUT_IDS:
        return processor
    if processor["type"] == "Sequence":
        return {**processor, "processors": [_renumbered(part, new) for part in processor["processors"]]}
    if processor["type"] == "TemplateProcessing":
        marks = processor["special_tokens"].items()
        ids = {name: {**mark, "ids": [new[number] for number in mark["ids"]]} for name, mark in marks}
        return {**processor, "special_tokens": ids}
    if processor["type"] in ("BertProcessing", "RobertaProcessing"):
        ends = {end: [processor[end][0], new[processor[end][1]]] for end in ("sep", "cls")}
        return {**processor, **ends}
    raise KronpressError(
        f"the tokenizer marks texts by {shown(processor['type'])}, whose ids are not known here; trim one that marks "
        "them by TemplateProcessing, BertProcessing or RobertaProcessing"
    )
