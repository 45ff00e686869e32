from __future__ import annotations

import pytest
import torch

from kronpress.activations.trace import Trace
from kronpress.losses import PatientDistillation
from tests.losses.traces import all_seen, some_trace


def test_by_hand() -> None:
    ours = Trace(blocks=[torch.tensor([[[3.0, 4.0], [7.0, 0.0], [1.0, 1.0]]])])
    theirs = Trace(blocks=[torch.tensor([[[8.0, 6.0], [0.0, 0.5], [5.0, 0.0]]])])
    seen = torch.tensor([[True, True, False]])
    value = PatientDistillation()(ours, theirs, seen=seen, projection=None)
    assert value.item() == pytest.approx(((0.6 - 0.8) ** 2 + (0.8 - 0.6) ** 2 + 2) / 2)


def test_lengths_do_not_matter() -> None:
    ours, theirs = some_trace(), some_trace(seed=1)
    longer = Trace(blocks=[7 * each for each in theirs.blocks])
    values = [PatientDistillation()(ours, each, seen=all_seen(), projection=None) for each in (theirs, longer)]
    torch.testing.assert_close(*values)
