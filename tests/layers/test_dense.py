from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from kronpress.layers import bias_of, linear, narrowed, weight_of


def conv1d() -> Conv1D:
    layer = Conv1D(3, 5)  # five inputs, three outputs
    nn.init.normal_(layer.bias)
    return layer


def test_weights_are_read_as_out_times_in() -> None:
    dense, x = conv1d(), torch.randn(2, 5)
    weight, bias = weight_of(dense), bias_of(dense)
    assert tuple(weight.shape) == (3, 5)
    torch.testing.assert_close(x @ weight.T + bias, dense(x))
    assert not weight.requires_grad
    assert tuple(weight_of(nn.Linear(5, 3)).shape) == (3, 5)


def test_a_layer_without_a_bias_has_none() -> None:
    assert bias_of(nn.Linear(2, 2, bias=False)) is None
    assert bias_of(nn.Embedding(2, 2)) is None


def test_linear_holds_copies() -> None:
    weight, bias = torch.randn(3, 5), torch.randn(3)
    layer, x = linear(weight, bias=bias), torch.randn(2, 5)
    expected = x @ weight.T + bias
    weight.zero_()
    bias.zero_()
    torch.testing.assert_close(layer(x), expected)
    assert linear(weight).bias is None


def test_narrowed_keeps_class_and_function() -> None:
    x, weight, bias = torch.randn(2, 5), torch.randn(2, 5), torch.randn(2)
    for dense in (conv1d(), nn.Linear(5, 3)):
        narrow = narrowed(dense, weight, bias=bias)
        assert type(narrow) is type(dense)
        torch.testing.assert_close(narrow(x), x @ weight.T + bias)
        assert repr(narrow) == repr(Conv1D(2, 5) if isinstance(dense, Conv1D) else nn.Linear(5, 2))


def test_a_conv1d_always_has_a_bias() -> None:
    torch.testing.assert_close(
        narrowed(conv1d(), torch.ones(2, 5), bias=None)(torch.ones(1, 5)), torch.full((1, 2), 5.0)
    )
