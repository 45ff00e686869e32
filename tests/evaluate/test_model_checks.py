"""A model runs in evaluation mode while it is measured, and one that cannot be measured is refused."""

from __future__ import annotations

import pytest
import torch

from kronpress.errors import KronpressError
from kronpress.evaluate.model_checks import evaluating, require_causal
from tests.tiny import tiny_bert, tiny_gpt2, tiny_llama


def test_modes_are_restored_after_an_error_as_well() -> None:
    model = tiny_llama().train()
    model.model.norm.eval()
    with pytest.raises(RuntimeError, match="stop"), evaluating(model):
        assert not any(module.training for module in model.modules())
        assert torch.is_inference_mode_enabled()
        raise RuntimeError("stop")
    assert model.training and model.lm_head.training and not model.model.norm.training


def test_decoders_pass_and_encoders_are_refused() -> None:
    require_causal(tiny_llama(), what="perplexity")
    require_causal(tiny_gpt2(), what="perplexity")
    for model in (tiny_bert(), tiny_llama().model):
        with pytest.raises(KronpressError, match=f"samples needs a causal .*{type(model).__name__} is none; load a"):
            require_causal(model, what="samples")
