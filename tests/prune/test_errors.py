"""What a prune step refuses, in the words a user sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.prune import Prune
from kronpress.validation import parse
from tests.tiny import bench, tiny_llama

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"keep": 1}, r"steps\.0 \(prune\): keep is 1: .*less than 1"),
    ({"keep": 0.01}, "keep: 0.01 of 24 hidden neurons"),
    ({"keep": 0.4, "form": "kronecker"}, r"keep: 0\.4 of 24 hidden neurons; the form kronecker takes 1/2, 1/3, 1/4"),
    ({"form": "wide"}, "unknown form 'wide': choose one of: kronecker, narrow"),
    ({"form": {"name": "narrow", "epsilon": 0.2}}, "form narrow: unknown key 'epsilon'"),
    ({"fit": {"tokns": 3}}, "fit surgeon: unknown key 'tokns': did you mean 'tokens'"),
    ({"fit": "nystrom"}, "unknown fit 'nystrom'"),
    ({"sites": "up"}, "unknown key 'sites'"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=str)
def test_it_is_refused_with_the_remedy(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=message):
        parse(Prune, fields, place="steps.0 (prune)").check(bench(tiny_llama(), tmp_path))


@pytest.mark.parametrize("sites", ["feed_forward", "up"])
def test_what_is_factored_is_not_pruned(sites: str, tmp_path: Path) -> None:
    work = bench(tiny_llama(), tmp_path)
    Factorize(form={"name": "kronecker", "right": (1, 2)}, sites=sites).run(work)
    with pytest.raises(KronpressError, match=r"layers\.0\.mlp\.\w+_proj has factors or codes already; prune first"):
        Prune().run(work)
