"""The budget script fails on what it forbids and passes what it allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import budget

GOOD = '''"""A module."""


def join(left: str, *, right: str) -> str:
    """Return both."""
    return left + right


class Box:
    """A box."""

    def put(self, item: str, *, times: int = 1) -> str:
        """Return the item."""
        return item * times

    @override
    def forward(self, a, b, c, d, e, f, g):
        return a

    def _inner(self, a, b):
        return a
'''


def package(folder: Path, source: str, name: str = "box.py") -> Path:
    root = folder / "pack"
    root.mkdir()
    (root / name).write_text(source, encoding="utf-8")
    return root


def test_a_good_file_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert budget.main([str(package(tmp_path, GOOD))]) == 0
    assert "no violations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1\n", "box.py:1: box has no docstring"),
        ('"""M."""\ndef f():\n    return 1\n', "box.py:2: f has no docstring"),
        ('"""M."""\nclass C:\n    """C."""\n    def f(self):\n        return 1\n', "box.py:4: f has no docstring"),
        ('"""M."""\ndef f(a, b, c, d):\n    """F."""\n', "f takes 4 parameters by position; put * after 'c'"),
        ('"""M."""\ndef f(a, *, b, c, d, e, f, g):\n    """F."""\n', "f has 7 parameters, limit 6"),
        ('"""M."""\ndef _f():\n    from pack import x\n', "box.py:3: own import inside a function"),
        ('"""M."""\ndef _f():\n    from . import x\n', "box.py:3: own import inside a function"),
        ('"""M."""\n# TO' + "DO later\n", "box.py:2: unfinished"),
        ('"""M."""\ndef _f():\n' + "    x = 1\n" * 51, "_f has 51 code lines, limit 50"),
        ('"""M."""\n' + "\n" * 400, "401 lines, limit 400"),
    ],
)
def test_each_fault_is_found_and_placed(
    source: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert budget.main([str(package(tmp_path, source))]) == 1
    assert expected in capsys.readouterr().out


USES = [
    ("from pack.box import _hidden\n", 1),
    ("from pack import box\nbox._hidden()\n", 1),
    ("Box()._inner(1)\nBox()._inner(2)\n", 2),
    ("monkeypatch.setattr('pack.box._hidden', 1)\nmonkeypatch.setattr(Box, '_inner', 1)\n", 2),
    ("os._exit(0)\nconfig._attn_implementation\nclass T:\n    def f(self):\n        self._inner()\n", 0),
]


@pytest.mark.parametrize(("source", "count"), USES)
def test_private_names_in_tests_are_counted(
    source: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = GOOD + "\n\ndef _hidden():\n    return 1\n"
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_box.py").write_text(source, encoding="utf-8")
    arguments = [str(package(tmp_path, hidden)), str(tests)]
    assert budget.main(arguments) == int(count > 0)
    printed = capsys.readouterr().out
    assert (f"{count} uses of private names, limit 0" in printed) == (count > 0)
    monkeypatch.setitem(budget.PRIVATE_IN_TESTS, "test_box.py", count)
    assert budget.main(arguments) == 0
    monkeypatch.setitem(budget.PRIVATE_IN_TESTS, "test_box.py", count + 1)
    assert budget.main(arguments) == 1, "what is left may only become less"
    assert f"lower PRIVATE_IN_TESTS from {count + 1}" in capsys.readouterr().out


@pytest.mark.parametrize(("lines", "left", "expected"), [(500, None, 0), (501, None, 1), (501, 600, 0), (601, 600, 1)])
def test_a_test_file_is_short(
    lines: int, left: int | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_box.py").write_text("\n" * lines, encoding="utf-8")
    if left is not None:
        monkeypatch.setitem(budget.LONG_TESTS, "test_box.py", left)
    assert budget.main([str(package(tmp_path, GOOD)), str(tests)]) == expected


def test_a_long_test_file_that_became_short_is_taken_off_the_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test_box.py").write_text("\n", encoding="utf-8")
    monkeypatch.setitem(budget.LONG_TESTS, "test_box.py", 600)
    (tmp_path / "src").mkdir()
    assert budget.main([str(package(tmp_path / "src", GOOD)), str(tmp_path)]) == 1
    assert "remove it from LONG_TESTS" in capsys.readouterr().out


def test_fillers_are_counted_where_they_are_loop_variables() -> None:
    source = "known = 1\nfor each, (found, b) in c:\n    item = [known for known in d]\n"
    assert sorted(budget.fillers(budget.ast.parse(source))) == ["each", "found", "known"]


def test_a_vague_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert budget.main([str(package(tmp_path, GOOD, name="utils.py"))]) == 1
    assert "a name that says nothing" in capsys.readouterr().out


def test_long_functions_exceed_the_median(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = '"""M."""\ndef _f():\n' + "    x = 1\n" * 9
    assert budget.main([str(package(tmp_path, long))]) == 1
    assert "OVER" in capsys.readouterr().out


def test_docstring_comments_and_blank_lines_are_not_code() -> None:
    source = 'def f():\n    """One.\n\n    Two.\n    """\n\n    # why\n    x = """a\n\n    b"""\n    return x\n'
    node = budget.ast.parse(source).body[0]
    assert budget.body_length(node, code=budget.lines_with_code(source)) == 4


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    assert budget.main([str(tmp_path)]) == 1


@pytest.mark.parametrize(("values", "expected"), [([], 0), ([5], 5), (list(range(1, 11)), 9), ([1, 1, 1, 30], 30)])
def test_percentile(values: list[int], expected: int) -> None:
    assert budget.percentile(values, share=0.9) == expected
