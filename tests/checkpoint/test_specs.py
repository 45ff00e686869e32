"""Specs and settings that cannot be right: one sentence at every door, before anything is built."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

import kronpress
from kronpress import KronpressError
from kronpress.checkpoint import load_with_tokenizer, save
from tests.tiny import factorized, save_tiny, tiny_gpt2, tiny_llama, tiny_tokenizer

Change = Callable[[dict[str, Any]], object]
UP, TABLE, HEAD = "model.layers.0.mlp.up_proj", "model.embed_tokens", "lm_head"
ACTIVATION = "model.layers.0.mlp.act_fn"
DOORS: dict[str, Callable[[Path], object]] = {
    "load": kronpress.load,
    "from_pretrained": AutoModelForCausalLM.from_pretrained,
}
NESTED = {"kind": "nested_kronecker_embedding", "right": [1, 1]}
DENSE_TABLE = {"kind": "kronecker_embedding", "left": [264, 16], "right": [1, 1]}
LOW_RANK = {"kind": "low_rank_linear", "in_features": 16, "out_features": 12, "rank": 2, "bias": False}
TRAIN = {"kind": "tensor_train_linear", "modes": [[4, 4], [6, 4]], "ranks": [2], "bias": False}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    return save(factorized(tiny_llama(), folder), folder / "checkpoint", tokenizer=tiny_tokenizer())


def edited(sound: Path, folder: Path, change: Change) -> Path:
    shutil.copytree(sound, folder / "edited")
    config = json.loads((sound / "config.json").read_text())
    change(config)
    (folder / "edited" / "config.json").write_text(json.dumps(config))
    return folder / "edited"


def modules(config: dict[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = config["quantization_config"]["modules"]
    return named


def fields(**values: Any) -> Change:
    return lambda config: modules(config)[UP].update(values)


def spec(path: str, value: Any) -> Change:
    return lambda config: modules(config).update({path: value})


def nested(levels: int) -> dict[str, Any]:
    table: dict[str, Any] = DENSE_TABLE
    for _ in range(levels):
        table = NESTED | {"inner": table}
    return table


FIELDS: dict[str, tuple[Change, str]] = {
    "one side": (fields(right=[1]), rf"{UP}'\] \(kronecker_linear\): right is \[1\]"),
    "three sides": (fields(right=[2, 2, 1]), r"right is \[2, 2, 1\]"),
    "sides as text": (fields(right="22"), "right is '22'"),
    "no sides": (fields(left=None), "left is None"),
    "a negative size": (fields(left=[-12, 8]), r"left\.0 is -12: .* greater than or equal to 1"),
    "a size of zero": (fields(left=[12, 0]), r"left\.1 is 0"),
    "a huge size": (fields(left=[10**40, 8]), r"left\.0 is a number of more than 30 digits"),
    "a truth value as a size": (fields(terms=True), "terms is True"),
    "a fraction as a size": (fields(terms=2.0), "terms is 2.0"),
    "no terms": (fields(terms=0), "terms is 0"),
    "terms for terabytes": (fields(terms=2**30), "1.08e.11 numbers in the place of the 384 of a dense layer"),
    "a number as a truth value": (fields(scales=1), "scales is 1: .* boolean"),
    "an unknown order": (fields(orders=["x"]), r"orders\.0 is 'x'"),
    "orders as text": (fields(orders="row_order"), "orders is 'row_order'"),
    "an unknown field": (fields(bits=4), "unknown field 'bits'"),
    "a field left out": (lambda config: modules(config)[UP].pop("left"), "the field 'left' is missing"),
    "a spec that is a list": (spec(UP, [1]), rf"{UP}'\] is \[1\], not a mapping"),
    "a spec that is null": (spec(UP, None), "is None, not a mapping"),
    "a kind that is a number": (fields(kind=5), "unknown layer kind 5"),
    "no kind": (lambda config: modules(config)[UP].pop("kind"), "unknown layer kind None"),
    "a mode of zero": (spec(UP, TRAIN | {"modes": [[0, 4], [6, 4]]}), r"modes\.0\.0 is 0"),
    "modes without columns": (spec(UP, TRAIN | {"modes": [4, 6]}), r"modes\.0 is 4"),
    "no modes": (spec(UP, TRAIN | {"modes": [], "ranks": []}), r"modes is \[\]"),
    "ranks for terabytes": (spec(UP, TRAIN | {"ranks": [2**30]}), "of a dense layer"),
    "ranks for other modes": (spec(UP, TRAIN | {"ranks": [2, 2]}), "2 ranks for 2 modes"),
    "a table that is a number": (lambda c: modules(c)[HEAD].update(table=0.5), "table is 0.5"),
    "a table that is a layer": (
        lambda c: modules(c)[HEAD].update(table=LOW_RANK),
        "'low_rank_linear' .* does not match",
    ),
    "a table of wrong sides": (lambda c: modules(c)[HEAD]["table"].update(right=[1]), r"table\.right is \[1\]"),
    "padding beyond the table": (lambda c: modules(c)[TABLE].update(padding_idx=264), "padding_idx is 264"),
    "tables in tables": (spec(TABLE, nested(20)), "more than 8 layers stand inside of one another"),
    "very many tables in tables": (spec(TABLE, nested(300)), "more than 8 layers stand inside of one another"),
    "a fused layer of nothing": (spec(UP, {"kind": "fused_linear", "parts": []}), r"parts is \[\]"),
    "parts that do not go together": (
        spec(UP, {"kind": "fused_linear", "parts": [LOW_RANK, LOW_RANK | {"in_features": 8}]}),
        "the parts have 16, 8 columns",
    ),
    "a part with a bias": (
        spec(UP, {"kind": "fused_linear", "parts": [LOW_RANK | {"bias": True}]}),
        "a bias of its own",
    ),
    "groups that do not go together": (
        spec(TABLE, {"kind": "grouped_embedding", "groups": [DENSE_TABLE, DENSE_TABLE | {"left": [264, 8]}]}),
        "the groups have 16, 8 columns",
    ),
}
PLACES: dict[str, tuple[Change, str]] = {
    "fewer rows": (fields(left=[6, 8]), rf"{UP}'\] describes a matrix of 12 × 16 .* one of 24 × 16 there"),
    "rows for columns": (fields(left=[8, 12]), "describes a matrix of 16 × 24"),
    "runs that cut no rows": (
        spec(UP, {"kind": "fused_linear", "parts": [LOW_RANK], "runs": 7}),
        r"runs is 7, and the rows of a part cannot be cut",
    ),
    "a fused layer of other size": (spec(UP, {"kind": "fused_linear", "parts": [LOW_RANK]}), "12 × 16"),
    "a head of other size": (lambda c: modules(c)[HEAD]["table"].update(left=[2, 8]), rf"{HEAD}'\] .* 4 × 16"),
    "a table for a layer": (lambda c: modules(c).update({UP: modules(c)[TABLE]}), "the model has a linear layer there"),
    "a layer for a table": (lambda c: modules(c).update({TABLE: modules(c)[UP]}), "the model has a token table there"),
    "a layer for a norm": (lambda c: modules(c).update({"model.norm": modules(c)[UP]}), "has a LlamaRMSNorm there"),
    "a layer for an activation": (
        lambda c: modules(c).update({ACTIVATION: modules(c)[UP]}),
        "has a SiLUActivation there",
    ),
    "a layer for the model": (
        lambda c: modules(c).update({"": modules(c)[UP]}),
        "module '', and this .* has none there",
    ),
    "a tied head over other factors": (
        lambda c: modules(c)[HEAD]["table"].update(left=[66, 8], right=[4, 2]),
        "'lm_head' and 'model.embed_tokens' are tied, and their factors have other shapes",
    ),
}
WHOLE: dict[str, tuple[Change, str]] = {
    f"{key} is {value!r}": (lambda c, key=key, value=value: c["quantization_config"].update({key: value}), expected)
    for key, value, expected in [
        ("modules", ["x"], r"quantization_config\.modules is \['x'\], not a mapping"),
        ("modules", 5, r"quantization_config\.modules is 5, not a mapping"),
        ("format_version", "x", "format version 'x' .* install a newer kronpress"),
        ("format_version", None, "format version None"),
        ("format_version", 0, "format version 0"),
        ("format_version", True, "format version True"),
        ("quant_method", 5, "quantization_config is .* does not say what layers kronpress put in"),
        ("quant_method", "gptq", "does not say what layers kronpress put in"),
    ]
} | {
    f"layers are {value!r}": (lambda c, value=value: c.update(quantization_config=value), "quantization_config is")
    for value in (None, [], {}, "x", 5)
}
EDITS = FIELDS | PLACES | WHOLE


@pytest.mark.parametrize("door", list(DOORS))
@pytest.mark.parametrize("edit", list(EDITS))
def test_a_spec_that_cannot_be_right_is_refused(sound: Path, tmp_path: Path, edit: str, door: str) -> None:
    change, expected = EDITS[edit]
    with pytest.raises(KronpressError, match=expected) as caught:
        DOORS[door](edited(sound, tmp_path, change))
    message = str(caught.value)
    assert len(message) < 500, "a line, whatever stands in the file"
    assert "restore" in message or "choose one of" in message or "newer" in message or "factors" in message


def test_json_too_deep_to_be_read_is_refused(sound: Path, tmp_path: Path) -> None:
    folder = edited(sound, tmp_path, lambda config: config)
    (folder / "config.json").write_text('{"a":' * 1_000 + "1" + "}" * 1_000)
    with pytest.raises(KronpressError, match=r"config\.json is not valid JSON \(maximum recursion depth"):
        kronpress.load(folder)


def test_a_fused_spec_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = save(factorized(tiny_gpt2(), tmp_path), tmp_path / "checkpoint")
    path = "transformer.h.0.attn.c_attn"
    wrong = edited(folder, tmp_path, lambda config: modules(config)[path]["parts"].pop())
    for door in DOORS.values():
        with pytest.raises(KronpressError, match=rf"{path}'\] describes a matrix of 32 × 16 .* one of 48 × 16"):
            door(wrong)


SETTINGS: dict[str, tuple[str, Any]] = {
    "num_hidden_layers": ("num_hidden_layers", "x"),
    "no layers": ("num_hidden_layers", -1),
    "null layers": ("num_hidden_layers", None),
    "hidden_size": ("hidden_size", 0),
    "heads": ("num_attention_heads", 0),
    "vocab_size": ("vocab_size", -1),
    "architectures": ("architectures", 5),
    "an architecture": ("architectures", [5]),
    "model_type": ("model_type", 3),
    "null model_type": ("model_type", None),
    "dtype": ("dtype", "x"),
    "activation": ("hidden_act", "x"),
    "digits": ("rms_norm_eps", int("9" * 4_000)),
}


@pytest.mark.parametrize("kind", ["plain", "compressed"])
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_a_setting_of_the_wrong_type_is_refused(sound: Path, tmp_path: Path, setting: str, kind: str) -> None:
    name, value = SETTINGS[setting]
    folder = sound if kind == "compressed" else save_tiny(tmp_path / "plain")
    with pytest.raises(KronpressError, match=r"config\.json|Validation error for field|is set to") as caught:
        kronpress.load(edited(folder, tmp_path, lambda config: config.update({name: value})))
    assert len(str(caught.value)) < 600


BROKEN = ["null", "[]", "5", '"x"', "{", "", "9" * 5_000]
FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text[:9])
def test_a_file_that_holds_no_object_is_named(sound: Path, tmp_path: Path, name: str, text: str) -> None:
    folder = edited(sound, tmp_path, lambda config: config)
    (folder / name).write_text(text)
    with pytest.raises(KronpressError, match=rf"{name} (holds .*, not a JSON object|is not valid JSON)"):
        load_with_tokenizer(folder)


@pytest.mark.parametrize(
    "text", ["{}", '{"model": null}', '{"version": 5, "added_tokens": [], "model": {"type": "x"}}']
)
def test_an_object_that_is_no_tokenizer_is_named(sound: Path, tmp_path: Path, text: str) -> None:
    folder = edited(sound, tmp_path, lambda config: config)
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(KronpressError, match=r"tokenizer\.json holds no tokenizer .* restore"):
        load_with_tokenizer(folder)


def test_a_folder_without_tokenizer_files_has_none(sound: Path, tmp_path: Path) -> None:
    folder = edited(sound, tmp_path, lambda config: config)
    for name in FILES[2:4]:
        (folder / name).unlink()
    _, tokenizer = load_with_tokenizer(folder)
    assert tokenizer is None
