"""Settings that every test shares: offline, shapes checked, one thread per worker."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import typecheck

os.environ["HF_HUB_OFFLINE"] = "1"
typecheck.check("kronpress")  # before the first import of the package


def pytest_configure() -> None:
    """Give each xdist worker one thread, so that two workers do not fight for the cores."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Let the garbage collector, which every training calls, look no more at the modules that are there for good."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of test data sets, or skip where there is none."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("KRONPRESS_TEST_DATA") or default)
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set KRONPRESS_TEST_DATA")
    return folder


@pytest.fixture(autouse=True)
def own_cache(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep what a test makes out of the user's cache, but for slow ones, whose models take minutes to make."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setenv("KRONPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def in_float32() -> Iterator[None]:
    """Let products have all their digits, on machines that are faster in bfloat16, too."""
    import torch

    from kronpress.precision import choose, computing_in

    with computing_in(choose("fp32", torch.device("cpu"))):
        yield


@pytest.fixture
def large_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let every text of more than a line be a large one; return the folder of the cache."""
    monkeypatch.setenv("KRONPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("kronpress.data.corpus.IN_MEMORY", 10)
    return tmp_path / "cache"


@pytest.fixture
def no_shipped_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lm-eval know no tasks but those of the test's own folders: to index those that it ships takes 10 s."""
    lm_eval_tasks = pytest.importorskip("lm_eval.tasks", reason="needs pip install lm-eval")
    without_shipped = functools.partial(lm_eval_tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr(lm_eval_tasks, "TaskManager", without_shipped)
