"""The Python of the documentation runs, on tiny models in the places that it names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from kronpress import losses, quantizers
from kronpress.checkpoint import save
from kronpress.data import cleaning
from kronpress.factorize import fits, forms
from kronpress.losses import LOSSES, Loss, Predictions
from kronpress.registry import Shelf
from kronpress.tasks import TASKS, with_head
from tests.docs.pages import every, fences
from tests.tiny import factorized, tiny_bert, tiny_llama, tiny_tokenizer

SNIPPETS = every("python")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a compressed model, fine-tuned students and a task's data, as the pages name them."""
    folder = tmp_path_factory.mktemp("documentation")
    save(factorized(tiny_llama(), folder), folder / "small", tokenizer=tiny_tokenizer())
    encoder = factorized(tiny_bert(), folder)
    for name in ("mrpc", "rte"):
        student = with_head(encoder, TASKS[name], tiny_tokenizer())
        path = folder / "runs" / "mine" / "steps" / "01-finetune" / name / "student"
        path.parent.mkdir(parents=True)
        save(student, path, tokenizer=tiny_tokenizer())
    data = folder / "path" / "to" / "glue" / "RTE"
    data.mkdir(parents=True)
    (data / "test.tsv").write_text("index\tsentence1\tsentence2\n0\tIt rains.\tIt is wet.\n", encoding="utf-8")
    return folder


def run(code: str, name: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, name, "exec"), namespace)
    return namespace


@pytest.fixture
def elsewhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in that folder, and put what a snippet registers on a shelf that is thrown away."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(losses, "LOSSES", Shelf[type[Loss]]("loss"))
    monkeypatch.setattr(cleaning, "FILTERS", Shelf[type[cleaning.Filter]]("filter"))
    monkeypatch.setattr(forms, "FORMS", Shelf[type[forms.Form]]("form"))
    monkeypatch.setattr(fits, "FITS", Shelf[type[fits.Fit]]("fit"))
    shelf = Shelf[type[quantizers.Quantizer]]("quantizer")
    for name, quantizer in quantizers.QUANTIZERS.items():
        shelf.add(name, quantizer)
    monkeypatch.setattr(quantizers, "QUANTIZERS", shelf)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # which peft asks for
@pytest.mark.parametrize("label", SNIPPETS)
def test_it_runs(label: str) -> None:
    if "from peft" in SNIPPETS[label] and importlib.util.find_spec("peft") is None:
        pytest.skip("peft is not installed")
    run(SNIPPETS[label], label)


@pytest.mark.usefixtures("elsewhere")
def test_the_loss_that_is_added_has_the_gradient_of_its_value() -> None:
    (code,) = (code for code in fences("docs/extend.md", "python") if "LOSSES" in code)
    loss = run(code, "docs/extend.md")["SquaredProbabilities"]()
    student, teacher = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)).unbind()
    labels = torch.zeros(5, dtype=torch.long)
    student.requires_grad_()
    value, gradient = loss.per_token(Predictions(student), Predictions(teacher), labels)
    torch.testing.assert_close(gradient, torch.autograd.grad(value.sum(), student)[0])
    assert "squared" not in LOSSES
