"""Where a file cannot be written to its end, the message names it and its size, and what was there before stays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

import kronpress
from kronpress.distill import Distill
from kronpress.errors import KronpressError
from kronpress.export import DenseExporter
from kronpress.finetune import Finetune
from kronpress.teacher.text_outputs import Likeliest, build_text
from kronpress.train.text import NextToken
from tests.tiny import bench, tiny_bert, tiny_llama, tiny_tokenizer

resource = pytest.importorskip("resource")
TOLD = r"\(it takes about \d+\.\d MB, and [\d,]+\.\d MB are free\)"


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the operating system end every file there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_model_is_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    told = re.compile(rf"cannot write {tmp_path / 'model'}: File too large {TOLD}")
    with files_of_at_most(10_000), pytest.raises(KronpressError, match=told):
        kronpress.save(tiny_llama(), tmp_path / "model")
    with files_of_at_most(10_000), pytest.raises(KronpressError, match=told):
        DenseExporter().write(tiny_llama(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_does_not_fit_is_told_too(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"word{index}" * 9 for index in range(400)])
    with files_of_at_most(50_000), pytest.raises(KronpressError, match="File too large"):
        kronpress.save(tiny_llama(num_hidden_layers=1), tmp_path / "model", tokenizer=tokenizer)
    assert not list(tmp_path.iterdir())


def test_stored_teacher_outputs_name_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = NextToken(torch.zeros(6, 64, dtype=torch.long), torch.arange(6))
    model = tiny_llama()
    with files_of_at_most(4000), pytest.raises(OSError, match=rf"File too large {TOLD}: .*shard-00000\.safetensors'"):
        build_text(tmp_path, model, examples, kept=Likeliest(5), max_bytes=2**20)
    assert not list(tmp_path.iterdir())

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=rf"No space left on device {TOLD}: .*shard-00000\.safetensors'"):
        build_text(tmp_path, model, examples, kept=Likeliest(5), max_bytes=2**20)


def test_the_best_epoch_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "SST-2").mkdir()
    for name in ("train", "dev"):
        (tmp_path / "SST-2" / f"{name}.tsv").write_text("sentence\tlabel\n" + "sun\t0\nmoon\t1\n" * 4)
    step = Finetune(tasks="sst-2", data=str(tmp_path), losses="cross_entropy", teacher=None, epochs=1, batch=8)
    with files_of_at_most(10_000), pytest.raises(OSError, match=rf"File too large {TOLD}: .*best-1\.safetensors'"):
        step.run(bench(tiny_bert(), tmp_path / "step"))
    assert not list((tmp_path / "step").rglob("*.safetensors*"))


def test_a_checkpoint_of_a_training_says_how_to_go_on(tmp_path: Path) -> None:
    step = Distill(losses={"cross_entropy": 1}, tokens=64, window=32, batch=1, save_every=1, log_every=1)
    with files_of_at_most(10_000), pytest.raises(KronpressError, match=r"no space for the checkpoint .* --resume"):
        step.run(bench(tiny_llama(), tmp_path))
    assert not list(tmp_path.rglob("*.safetensors*"))
