from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kronpress.losses import CrossEntropy, Predictions


@given(
    smoothing=st.sampled_from([0.0, 0.1, 0.8]),
    vocabulary=st.integers(2, 12),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_it_is_that_of_torch(smoothing: float, vocabulary: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(5, vocabulary, generator=generator)).requires_grad_()
    labels = torch.randint(vocabulary, (5,), generator=generator)
    value, slope = CrossEntropy(smoothing=smoothing).per_token(Predictions(logits.detach()), None, labels)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(value, expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), logits)[0], atol=1e-6, rtol=1e-5)


def test_the_predictions_stay_as_they_are_for_the_next_loss() -> None:
    predictions = Predictions(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))
    before = predictions.log_probabilities().clone()
    CrossEntropy(smoothing=0.1).per_token(predictions, None, torch.arange(3))
    assert torch.equal(predictions.log_probabilities(), before)
