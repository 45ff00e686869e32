from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kronpress.data import Corpus
from kronpress.errors import KronpressError
from kronpress.factorize import Factorize
from kronpress.linalg import KroneckerShape, nearest_kronecker_sum
from tests.tiny import bench, logits, tiny_bert, tiny_gpt2

TABLE: dict[str, Any] = {"right": (1, 16), "terms": 4}


def factorize(method: str, *, sites: str = "embedding", **fields: Any) -> Factorize:
    return Factorize(method={"name": method} | TABLE | fields, sites=sites)


def test_weighted_rows_are_the_weighted_optimum() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    weights = torch.rand(12, generator=generator, dtype=torch.float64) * 9 + 0.1
    for n2, terms in ((6, 3), (3, 2), (2, 1)):
        shape = KroneckerShape(12, 6 // n2, 1, n2)
        found = nearest_kronecker_sum(matrix, shape=shape, terms=terms, row_weights=weights)
        missed = ((matrix - found.to_dense()) ** 2).sum(dim=1)
        assert found.error**2 == pytest.approx(float((missed * weights).sum()))
        singular = torch.linalg.svdvals((matrix * weights.sqrt()[:, None]).reshape(-1, n2))
        assert found.error**2 == pytest.approx(float(singular[terms:].square().sum()))
        torch.testing.assert_close(found.left.flatten(1).norm(dim=1), found.right.flatten(1).norm(dim=1))


def test_equal_weights_change_nothing() -> None:
    matrix, shape = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)), KroneckerShape(8, 2, 1, 3)
    plain = nearest_kronecker_sum(matrix, shape=shape, terms=2)
    weighted = nearest_kronecker_sum(matrix, shape=shape, terms=2, row_weights=torch.full((8,), 4.0))
    torch.testing.assert_close(weighted.to_dense(), plain.to_dense())
    assert weighted.error == pytest.approx(2 * plain.error)


def test_terms_beyond_the_rank_are_zero() -> None:
    matrix = torch.outer(torch.tensor([1.0, 0.0, 2.0, 0.0]), torch.tensor([1.0, 0.0, 0.0]))
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = nearest_kronecker_sum(matrix, shape=KroneckerShape(4, 1, 1, 3), terms=3, row_weights=weights)
    torch.testing.assert_close(found.to_dense(), matrix)


def test_weights_need_right_factors_that_are_rows() -> None:
    with pytest.raises(KronpressError, match="only where the right factors 2 × 3 are rows"):
        nearest_kronecker_sum(torch.ones(8, 6), shape=KroneckerShape(4, 2, 2, 3), row_weights=torch.ones(8))


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_bert])
def test_tokens_of_the_text_are_nearer_than_without_weights(build: Any, tmp_path: Path) -> None:
    missed = {}
    for method in ("van_loan", "van_loan_frequency"):
        work = bench(build(), tmp_path)
        (report,) = factorize(method).run(work).modules
        ids = work.training_windows(size=32)
        before, after = (model.get_input_embeddings()(ids).detach() for model in (work.teacher, work.student))
        missed[method] = float((before - after).norm() / before.norm())
        assert logits(work.student, ids[:2]).isfinite().all()
    assert report.relative_error == pytest.approx(missed["van_loan_frequency"], rel=3e-2)
    assert missed["van_loan_frequency"] < 0.9 * missed["van_loan"]


def test_a_tied_head_scores_over_the_factors(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    factorize("van_loan_frequency").run(work)
    table = work.student.get_input_embeddings().to_dense().weight
    hidden = torch.randn(3, table.shape[1], generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(work.student.lm_head(hidden), hidden @ table.T)


GROUPS = [{"tokens": 8, "terms": 16}, {"tokens": 40, "terms": 8}]


def grouped(groups: list[dict[str, int]]) -> Factorize:
    return factorize("van_loan_frequency", groups=groups, terms=2)


@pytest.mark.parametrize("build", [tiny_gpt2, tiny_bert])
def test_frequent_tokens_keep_more_than_rare_ones(build: Any, tmp_path: Path) -> None:
    work = bench(build(), tmp_path)
    (report,) = grouped(GROUPS).run(work).modules
    table, dense = (model.get_input_embeddings() for model in (work.student, work.teacher))
    table, dense = table.dense_weight().detach(), dense.weight.detach()
    ids = work.training_windows(size=1).flatten()
    counts = ids.bincount(minlength=len(dense)) + 0.5
    around = {getattr(work.tokenizer, f"{name}_token_id") for name in ("cls", "sep", "mask", "bos", "eos")}
    counts[[token for token in around if token is not None]] += len(ids) / 100
    missed, norms = (table - dense).square().sum(dim=1), dense.square().sum(dim=1)
    order = counts.argsort(descending=True, stable=True)
    shares = [float(missed[some].sum() / norms[some].sum()) for some in order.split([8, 40, len(order) - 48])]
    assert shares[0] == 0 < shares[1] < shares[2] < 1
    whole = float((missed @ counts / (norms @ counts)).sqrt())
    assert report.relative_error == pytest.approx(whole, rel=1e-4)
    assert logits(work.student, ids[None, :32]).isfinite().all()


def test_a_ratio_finds_groups_that_miss_less_than_equal_ones(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    rows, columns = work.teacher.get_input_embeddings().weight.shape
    rank = rows * columns // 2 // (rows + 8 * columns)
    equal = [{"tokens": rows // 8, "terms": rank}] * 7
    (even,) = factorize("van_loan_frequency", groups=equal, terms=rank).run(work).modules
    work = bench(tiny_gpt2(), tmp_path)
    step = Factorize(form={"name": "grouped", "ratio": 0.5}, fit="frequency", sites="embedding")
    (found,) = step.run(work).modules
    assert found.relative_error < 0.95 * even.relative_error
    assert 0.45 < found.parameters_after / found.parameters_before <= 0.5


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"tokens": 100_000, "terms": 4}], r"groups name 100000 tokens and transformer\.wte has \d+; leave some"),
        ([{"tokens": 4, "terms": 99}], "terms is 99; .* takes 1 to 16"),
    ],
)
def test_groups_fit_the_table(groups: list[dict[str, int]], message: str, tmp_path: Path) -> None:
    with pytest.raises(KronpressError, match=message):
        grouped(groups).check(bench(tiny_gpt2(), tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sites": "up"}, "is for token tables, not transformer.h.0.mlp.c_fc; set sites: embedding"),
        ({"right": (2, 16), "terms": 1}, r"needs right factors that are rows, not 2 × 16; choose right: \[1, 16\]"),
    ],
)
def test_what_it_can_not_do_is_said_before_anything_changes(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(KronpressError, match=message):
        factorize("van_loan_frequency", **fields).check(bench(tiny_gpt2(), tmp_path))


def test_no_text_is_no_uniform_text(tmp_path: Path) -> None:
    work = bench(tiny_gpt2(), tmp_path)
    work.train = Corpus("nothing.txt", "")
    with pytest.raises(KronpressError, match=r"nothing\.txt"):
        factorize("van_loan_frequency").run(work)
