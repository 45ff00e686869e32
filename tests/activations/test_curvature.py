from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from kronpress.activations import Curvature
from kronpress.errors import KronpressError
from kronpress.families import layout
from kronpress.prune import Prune
from tests.tiny import bench, logits, tiny_bert, tiny_gpt2, tiny_llama

pytestmark = pytest.mark.usefixtures("in_float32")

CALIBRATION = {"tokens": 1024, "window": 32}


def test_the_curvature_of_the_head_is_that_of_the_softmax() -> None:
    """The KL divergence of logits bends by diag(p) − p pᵀ, which draws from p come to in the mean."""
    model, ids = tiny_llama(), torch.randint(0, 256, (1600, 9), generator=torch.Generator().manual_seed(0))
    bends = Curvature(tokens=14400, ridge=1e-9).measure(model, ids, paths=["lm_head"], seed=1)["lm_head"]
    chances = logits(model, ids)[:, 1:-1].flatten(0, 1).double().softmax(-1)
    expected = torch.diag(chances.mean(0)) - chances.T @ chances / len(chances)
    predicting = len(chances) / (len(chances) + len(ids))  # the last position of a window predicts nothing
    assert (bends - predicting * expected).norm() < 0.3 * expected.norm()
    assert bends.trace().item() == pytest.approx(predicting * expected.trace().item(), rel=0.05)


def test_gradients_on_text_are_those_of_its_next_tokens() -> None:
    model, ids = tiny_gpt2(), torch.randint(0, 256, (3, 12), generator=torch.Generator().manual_seed(0))
    path = layout(model).feed_forwards[1].down
    bends = Curvature(loss="text", tokens=36, ridge=1e-9).measure(model, ids, paths=[path], seed=0)[path]
    noted: list[torch.Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda _, args, output: noted.append(output))
    scores = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
    handle.remove()
    (gradient,) = torch.autograd.grad(F.cross_entropy(scores, ids[:, 1:].flatten(), reduction="sum"), noted)
    later = gradient[:, 1:].flatten(0, 1).double()
    torch.testing.assert_close(bends, later.T @ later / len(later), rtol=1e-4, atol=1e-7)


def test_the_same_seed_gives_the_same_bits_and_another_one_others() -> None:
    model, ids = tiny_llama(), torch.randint(0, 256, (8, 12), generator=torch.Generator().manual_seed(0))
    first, second, other = (
        Curvature(tokens=96).measure(model, ids, paths=["lm_head"], seed=seed)["lm_head"] for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_name_is_a_loss_and_an_encoder_has_none(tmp_path: Path) -> None:
    assert Curvature.model_validate("text") == Curvature(loss="text")
    step = Prune(keep=0.5, fit=CALIBRATION | {"curvature": "kl"})
    with pytest.raises(KronpressError, match="predictions of the next token, and BertForMaskedLM makes none"):
        step.check(bench(tiny_bert(), tmp_path))


@pytest.mark.parametrize("shares", [{"keep": 0.5}, {"keep": None, "value_output": 0.5}, {"keep": None, "heads": 0.5}])
def test_alike_outputs_choose_as_without_a_curvature(
    shares: dict[str, float | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it, without = bench(tiny_llama(), tmp_path / "a"), bench(tiny_llama(), tmp_path / "b")
    monkeypatch.setattr(
        Curvature, "measure", lambda self, model, windows, paths, seed: dict.fromkeys(paths, torch.eye(16).double())
    )
    Prune(**shares, fit=CALIBRATION | {"curvature": "kl"}).run(with_it)
    Prune(**shares, fit=CALIBRATION).run(without)
    torch.testing.assert_close(logits(with_it.student), logits(without.student), atol=1e-5, rtol=1e-5)


def test_outputs_that_the_loss_does_not_see_do_not_choose(tmp_path: Path) -> None:
    """Each hidden neuron has an output of its own; the loss looks at those of the others' first half alone."""
    model = tiny_llama()
    for block in layout(model).feed_forwards:
        weight = model.get_submodule(block.down).weight
        weight.data.zero_()
        weight.data[:16, :16] = torch.eye(16)
    blind = torch.diag(torch.cat([torch.ones(8), torch.full((8,), 1e-9)])).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Curvature, "measure", lambda self, model, windows, paths, seed: dict.fromkeys(paths, blind))
        work = bench(model, tmp_path)
        Prune(keep=8 / 24, fit=CALIBRATION | {"curvature": "kl"}).run(work)
    first = layout(work.student).feed_forwards[0]
    kept, dense = (owner.get_submodule(first.up).weight for owner in (work.student, model))
    assert torch.equal(kept, dense[:8])
