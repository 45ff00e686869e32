"""GGUF files hold the model: read by their description, by the `gguf` library and by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

import kronpress
from kronpress.checkpoint import adopt
from kronpress.errors import KronpressError
from kronpress.export import GgufExporter
from kronpress.export.gguf import TYPES, GgufExport
from kronpress.factorize import Factorize
from kronpress.layers import GGUF_GRIDS, Grid, InputGrid, RoundedInputs, matrices_of, structured_layers
from kronpress.prune import Prune
from kronpress.quantizers import Scheme
from tests.conformance.test_families import build
from tests.export.gguf_files import MODELS, GgufFile, a_tokenizer, quantized, small_gpt2, small_llama
from tests.tiny import bench, logits, tiny_bert

WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}


def export(model: PreTrainedModel, folder: Path, type: str | None = None, **options: Any) -> GgufExport:
    return GgufExporter(type=type).write(model, folder / "m.gguf", **({"tokenizer": a_tokenizer()} | options))


def opened(done: GgufExport) -> PreTrainedModel:
    """The model as transformers opens the file."""
    folder, name = done.file.parent, done.file.name
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()


def gemma3_of_kept_blocks() -> PreTrainedModel:
    """A model whose first block is a global one, as truncation can leave it."""
    model = MODELS["gemma3"]()
    model.config.layer_types = ["full_attention", *model.config.layer_types[1:]]
    return model


def paired(weight: torch.Tensor, heads: int) -> np.ndarray:
    """Rows in the order of Llama's own rotations, by what they mean: i and i + half of a head together."""
    size = len(weight) // heads
    order = [head * size + half * size // 2 + i for head in range(heads) for i in range(size // 2) for half in range(2)]
    return weight[order].numpy()


@pytest.mark.parametrize("family", MODELS)
def test_transformers_opens_each_family_with_the_same_logits(family: str, tmp_path: Path) -> None:
    model = MODELS[family]()
    done = export(model, tmp_path, "f32")
    again = opened(done)
    torch.testing.assert_close(logits(again), logits(model), atol=1e-6, rtol=1e-6)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert ("output.weight" not in GgufFile(done.file).tensors) is tied is again.config.tie_word_embeddings
    assert done.parameters == model.num_parameters()
    assert done.error == 0
    assert "exactly" in done.proof(tolerance=0)


def test_the_file_says_what_the_config_says(tmp_path: Path) -> None:
    model = small_llama(rope_parameters={"rope_type": "default", "rope_theta": 5e4}, rms_norm_eps=1e-4)
    file = GgufFile(export(model, tmp_path, "f16").file)
    fields = {key.removeprefix("llama."): value for key, value in file.fields.items() if key.startswith("llama.")}
    assert fields == {
        "vocab_size": 264,
        "context_length": 128,
        "block_count": 3,
        "embedding_length": 64,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": pytest.approx(1e-4),
        "attention.key_length": 16,
        "attention.value_length": 16,
        "rope.dimension_count": 16,
        "rope.freq_base": 5e4,
    }
    assert file.fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert {tensor.kind for tensor in file.tensors.values() if len(tensor.shape) == 1} == {"f32"}
    assert {tensor.kind for tensor in file.tensors.values() if len(tensor.shape) == 2} == {"f16"}


@pytest.mark.parametrize("name", [name for name in TYPES if name not in ("q1_0", "q2_0")])
def test_each_type_is_read_alike_by_all(name: str, tmp_path: Path) -> None:
    model = small_llama(**WIDE)
    done = export(model, tmp_path, name)
    file, again = GgufFile(done.file), opened(done).state_dict()
    for tensor in gguf.GGUFReader(done.file).tensors:
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(numbers, file.tensors[tensor.name].numbers)
        assert tensor.tensor_type.name.lower() == (name if numbers.ndim == 2 else "f32")
    query, up = (file.tensors[f"blk.0.{part}.weight"].numbers for part in ("attn_q", "ffn_up"))
    np.testing.assert_array_equal(query, paired(again["model.layers.0.self_attn.q_proj.weight"], 4))
    np.testing.assert_array_equal(up, again["model.layers.0.mlp.up_proj.weight"])
    before = model.model.layers[0].mlp.up_proj.weight.detach()
    assert 0 <= done.error < 1
    assert np.linalg.norm(up - before.numpy()) / float(before.norm()) == pytest.approx(done.error, rel=0.1, abs=1e-9)


@pytest.mark.parametrize(("name", "width"), [("q2_0", 64), ("q1_0", 256)])
def test_types_that_no_library_knows_are_read_by_their_description(name: str, width: int, tmp_path: Path) -> None:
    model = small_llama(**(WIDE | {"hidden_size": width}))
    done = export(model, tmp_path, name)
    up = GgufFile(done.file).tensors["blk.0.ffn_up.weight"]
    assert (up.kind, up.data.nbytes) == (name, 256 * width // TYPES[name].block * 18)
    before = model.model.layers[0].mlp.up_proj.weight.detach().numpy()
    size = np.abs(before.reshape(-1, TYPES[name].block))
    scale = size.mean(axis=1) if name == "q1_0" else size.max(axis=1)
    steps = np.abs(up.numbers.reshape(size.shape)) / scale.astype(np.float16).astype(np.float32)[:, None]
    assert set(np.unique(steps.round(2))) == ({1.0} if name == "q1_0" else {0.0, 1.0})
    where = up.numbers != 0
    assert (np.sign(up.numbers) == np.sign(before))[where].all()


GRIDS_BY_LAYER = {
    "embed_tokens": GGUF_GRIDS["q8_0"],
    "q_proj": Grid(levels="int4"),
    "k_proj": GGUF_GRIDS["q4_1"],
    "v_proj": Grid(levels="int8", group="tensor"),
    "up_proj": GGUF_GRIDS["tq2_0"],
    "gate_proj": Grid(levels="int3"),
}


def test_layers_on_grids_keep_their_numbers_and_open_with_equal_logits(tmp_path: Path) -> None:
    model = adopt(quantized(small_llama(tied=False, **WIDE), GRIDS_BY_LAYER))
    done = export(model, tmp_path, "f32")
    file = GgufFile(done.file)
    kinds = {name.removeprefix("blk.0."): tensor.kind for name, tensor in file.tensors.items()}
    assert kinds["token_embd.weight"] == kinds["attn_v.weight"] == "q8_0"
    assert kinds["attn_q.weight"] == kinds["ffn_gate.weight"] == "q4_0"
    assert (kinds["attn_k.weight"], kinds["ffn_up.weight"], kinds["ffn_down.weight"]) == ("q4_1", "tq2_0", "f32")
    block = model.model.layers[0]
    np.testing.assert_array_equal(file.tensors["blk.0.ffn_up.weight"].numbers, block.mlp.up_proj.weight)
    np.testing.assert_array_equal(
        file.tensors["blk.0.attn_q.weight"].numbers, paired(block.self_attn.q_proj.weight, heads=4)
    )
    torch.testing.assert_close(logits(opened(done)), logits(model), atol=1e-5, rtol=1e-5)
    assert done.done == "layers on grids as q4_0, q4_1, q8_0, tq2_0 with their own codes, others as f32"
    assert done.error == 0


def test_codes_of_a_grid_of_gguf_are_stored_bit_for_bit(tmp_path: Path) -> None:
    model = adopt(quantized(small_llama(**WIDE), {"up_proj": GGUF_GRIDS["q1_0"], "down_proj": GGUF_GRIDS["q2_0"]}))
    file, block = GgufFile(export(model, tmp_path, "f16").file), model.model.layers[0].mlp
    for layer, name, kind in ((block.up_proj, "ffn_up", "q1_0"), (block.down_proj, "ffn_down", "q2_0")):
        tensor, stored = file.tensors[f"blk.0.{name}.weight"], layer.quantized()["weight"]
        assert tensor.kind == kind
        blocks = tensor.data.reshape(-1, 18)
        np.testing.assert_array_equal(blocks[:, :2].reshape(-1).view("<f2"), stored.scale.flatten().numpy())
        np.testing.assert_array_equal(blocks[:, 2:].reshape(-1), stored.packed.numpy())


@pytest.mark.parametrize("tied", [True, False])
def test_a_quantized_table_and_its_head(tied: bool, tmp_path: Path) -> None:
    source = quantized(small_llama(tied=tied), {"embed_tokens": GGUF_GRIDS["q4_0"]})
    if tied:
        from_table = source.model.embed_tokens
        source.lm_head = kronpress.layers.FactoredHead.of(from_table)
    model = adopt(source)
    done = export(model, tmp_path, "f32")
    assert ("output.weight" in GgufFile(done.file).tensors) is not tied
    torch.testing.assert_close(logits(opened(done)), logits(model), atol=1e-5, rtol=1e-5)


def test_a_quantized_gpt2_is_written_as_it_multiplies(tmp_path: Path) -> None:
    model = adopt(quantized(small_gpt2(), {"c_attn": GGUF_GRIDS["q8_0"], "mlp.c_proj": GGUF_GRIDS["q4_0"]}))
    done = export(model, tmp_path, "bf16")
    file = GgufFile(done.file)
    assert file.tensors["blk.0.attn_qkv.weight"].shape == (192, 64)
    assert file.tensors["position_embd.weight"].kind == "f32"
    twin = small_gpt2()
    twin.load_state_dict(
        {
            name: value.bfloat16().float() if value.ndim == 2 and "wpe" not in name else value
            for name, value in twin.state_dict().items()
        }
    )
    twin = quantized(twin, {})
    for path, layer in structured_layers(model).items():
        twin.get_submodule(path).weight.data = layer.weight.T.contiguous()
    torch.testing.assert_close(logits(opened(done)), logits(twin), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("keep", [0.5, "blocks"])
def test_narrowed_and_truncated_models_are_plain(keep: float | str, tmp_path: Path) -> None:
    model = small_llama()
    if keep == "blocks":
        del model.model.layers[1]
        model.config.num_hidden_layers = 2
        for index, block in enumerate(model.model.layers):
            block.self_attn.layer_idx = index
    else:
        work = bench(model, tmp_path)
        Prune(keep=keep, fit={"tokens": 2048, "window": 64}).run(work)
        model = work.student
    again = opened(export(model, tmp_path, "f32"))
    assert again.config.num_hidden_layers == len(model.model.layers)
    assert again.config.intermediate_size == model.config.intermediate_size
    torch.testing.assert_close(logits(again), logits(model), atol=1e-6, rtol=1e-6)


def test_an_encoder_is_written_without_pooler_and_heads(tmp_path: Path) -> None:
    config = tiny_bert(hidden_size=64, intermediate_size=128).config
    model = BertForSequenceClassification(BertConfig(**config.to_dict())).eval()
    done = export(quantized(model, {"intermediate.dense": GGUF_GRIDS["q4_0"]}), tmp_path, "q8_0")
    reader = gguf.GGUFReader(done.file)
    names = {tensor.name for tensor in reader.tensors}
    assert {"token_embd_norm.bias", "token_types.weight", "blk.2.layer_output_norm.weight"} <= names
    assert len(names) == sum(not name.startswith("pooler") for name, _ in model.bert.named_parameters()) + 3
    assert reader.fields["bert.attention.causal"].contents() is False
    assert reader.fields["tokenizer.ggml.token_type_count"].contents() == 2
    for tensor in reader.tensors:
        if tensor.name == "blk.1.ffn_up.weight":
            np.testing.assert_array_equal(
                gguf.dequantize(tensor.data, tensor.tensor_type), model.bert.encoder.layer[1].intermediate.dense.weight
            )
    assert "pooler and heads are left out" in done.proof(tolerance=0)


def test_rounded_inputs_and_a_missing_tokenizer_are_told(tmp_path: Path) -> None:
    model = quantized(small_llama(), {"up_proj": GGUF_GRIDS["q8_0"]})
    model.model.layers[0].mlp.up_proj.round_inputs(RoundedInputs(InputGrid(levels="int8", dynamic=True)))
    done = export(adopt(model), tmp_path, tokenizer=None)
    assert "rounds the inputs of its layers" in done.proof(tolerance=0)
    assert "without a tokenizer" in done.proof(tolerance=0)
    assert GgufFile(done.file).fields["tokenizer.ggml.model"] == "no_vocab"


def test_numbers_in_double_precision_become_single(tmp_path: Path) -> None:
    model = small_llama()
    done = export(model.double(), tmp_path)
    assert {tensor.kind for tensor in GgufFile(done.file).tensors.values()} == {"f32"}


def test_inputs_below_eight_bits_are_refused(tmp_path: Path) -> None:
    model = quantized(small_llama(), {"up_proj": GGUF_GRIDS["q8_0"]})
    model.model.layers[0].mlp.up_proj.round_inputs(RoundedInputs(InputGrid(levels="int4", dynamic=True)))
    with pytest.raises(KronpressError, match=r"layers\.0\.mlp\.up_proj rounds its inputs to int4"):
        export(adopt(model), tmp_path)
    assert not (tmp_path / "m.gguf").exists()


def test_tables_of_positions_and_types_stay_in_float32(tmp_path: Path) -> None:
    model = tiny_bert(hidden_size=64)
    for target in Scheme(weights=32, tables=8).targets(model):
        for matrix in matrices_of(target.layer(model)):
            target.put(matrix)
    written = GgufFile(export(adopt(model), tmp_path, tokenizer=None).file).tensors
    tables = model.base_model.embeddings
    for name, table in (("position_embd", tables.position_embeddings), ("token_types", tables.token_type_embeddings)):
        assert written[f"{name}.weight"].kind == "f32"
        np.testing.assert_array_equal(written[f"{name}.weight"].numbers, table.weight.detach())
    assert written["token_embd.weight"].kind == "q8_0"


@pytest.mark.parametrize("method", [{"name": "van_loan", "right": (2, 2)}, {"name": "svd", "ratio": 0.5}])
def test_factors_are_refused(method: dict[str, Any], tmp_path: Path) -> None:
    work = bench(small_llama(), tmp_path)
    Factorize(method=method, sites="up").run(work)
    with pytest.raises(KronpressError, match=r"mlp\.up_proj computes with factors .*--format dense --out"):
        export(work.student, tmp_path)
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: small_llama(hidden_act="gelu"), "of llama cannot say hidden_act: 'gelu', only silu"),
        (
            lambda: small_llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
            "cannot say rope_parameters",
        ),
        (lambda: small_gpt2(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx: True"),
        (lambda: gemma3_of_kept_blocks(), r"cannot say full attention in the blocks \[0\], only in every sixth one"),
        (lambda: LlamaForSequenceClassification(small_llama().config), r"no place for score\.weight"),
    ],
    ids=["activation", "rotation", "attention", "blocks", "head"],
)
def test_what_a_file_cannot_say_is_refused(model: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=message):
        export(model(), tmp_path)


def test_blocks_of_several_widths_are_refused(tmp_path: Path) -> None:
    model = small_llama()
    model.model.layers[1].mlp.up_proj = torch.nn.Linear(64, 96, bias=False)
    with pytest.raises(KronpressError, match=r"layers\.1\.mlp\.up_proj\.weight has 96 rows where the config says 128"):
        export(model, tmp_path)


def test_other_families_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match="no GGUF files are written of gpt_neox, only of llama, mistral"):
        export(build("gpt_neox"), tmp_path)


def test_a_block_that_divides_no_rows_is_refused_with_an_offer(tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=r"embed_tokens\.weight, 64 long; .*q8_0, q4_1, q4_0, q2_0$"):
        export(small_llama(), tmp_path, "q1_0")


def test_a_file_that_exists_is_untouched(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("precious")
    with pytest.raises(KronpressError, match="is there already"):
        export(small_llama(), tmp_path)
    assert (tmp_path / "m.gguf").read_text() == "precious"


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(writer: gguf.GGUFWriter, tensor: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(KronpressError, match="No space left on device"):
        export(small_llama(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(KronpressError, match="run `pip install gguf`"):
        export(small_llama(), tmp_path)


def test_bits_and_bytes_are_told(tmp_path: Path) -> None:
    done = export(small_llama(), tmp_path, "q4_0")
    assert done.bytes == done.file.stat().st_size > done.tensor_bytes
    assert f"{done.bytes / 1e6:,.1f} MB, {8 * done.tensor_bytes / done.parameters:.2f} bits per weight" in done.proof(
        tolerance=0
    )
    assert f"changed them by {done.error:.2%}" in done.proof(tolerance=0)
