"""Packed codes are laid out as other programs read them, without a copy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kronpress.layers import Grid
from kronpress.linalg import pack
from tests.export.gguf_files import rounded


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_bytes_are_those_of_the_words_of_compressed_tensors(bits: int) -> None:
    codes = torch.randint(2**bits, (3, 64), generator=torch.Generator().manual_seed(bits))
    words = np.zeros((3, 64 * bits // 32), np.uint32)  # `pack_to_int32`: 32 // bits codes a word, the first one lowest
    for column in range(64):
        word, place = divmod(column, 32 // bits)
        words[:, word] |= codes[:, column].numpy().astype(np.uint32) << np.uint32(bits * place)
    np.testing.assert_array_equal(pack(codes.flatten(), base=2**bits), words.astype("<u4").view(np.uint8).flatten())


@pytest.mark.parametrize("levels", ["int8", "int4", "int2"])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_onnx_runtime_multiplies_by_the_stored_bytes(levels: str, group: int) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    rows, columns, random = 16, 256, torch.Generator().manual_seed(group)
    grid = Grid(levels=levels, group=group, scale="float32")
    tensor = rounded(torch.randn(rows, columns, generator=random), grid)
    bits = {"int8": 8, "int4": 4, "int2": 2}[levels]
    assert tensor.packed is not None and tensor.scale is not None
    packed = tensor.packed.view(rows, columns // group, group * bits // 8).numpy()
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        domain="com.microsoft",
        **{"K": columns, "N": rows, "bits": bits, "block_size": group},
    )
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", float32, [5, columns])],
        [helper.make_tensor_value_info("y", float32, [5, rows])],
        [onnx.numpy_helper.from_array(packed, "codes"), onnx.numpy_helper.from_array(tensor.scale.numpy(), "scales")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = torch.randn(5, columns, generator=random)
    (y,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), x @ tensor().T, atol=1e-3, rtol=1e-3)
