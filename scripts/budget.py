"""Hold sources and tests to the budget of CONTRIBUTING.md; print a table, exit 1 on a violation.

Usage: python scripts/budget.py [FOLDER [TESTS]]

A code line of a function is a line of its body that is not blank, comment or docstring; nested functions count in
their parent and on their own. A signature that a foreign base class dictates is not judged: mark the method with
`@override`. The first parameter `ctx` marks an autograd function, whose arguments torch passes by position. The
parameters of a command (`@app.command()`) are its options. By position go the things a function works on, three at
most; what tunes it is keyword-only.

A test file is short, and uses no private name of the package; what is left of older ones may only become less.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FILE_MEDIAN, FILE_LIMIT = 120, 400
FUNCTION_MEDIAN, FUNCTION_P90, FUNCTION_LIMIT = 8, 20, 50
PARAMETER_LIMIT, POSITIONAL_LIMIT = 6, 3
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
FILLERS = {"each", "found", "known", "item"}  # loop variables that do not say what they hold; counted, not forbidden
TEST_LIMIT = 500
LONG_TESTS: dict[str, int] = {}  # lines
PRIVATE_IN_TESTS = {  # how often a test file uses a private name of the package
    "activations/test_attention.py": 4,
    "activations/test_stream.py": 1,
    "cli/test_evaluate.py": 1,
    "evaluate/test_lambada.py": 1,
    "evaluate/test_perplexity.py": 3,
    "evaluate/test_speed.py": 1,
    "layers/test_kronecker.py": 2,
    "layers/test_tensor_train.py": 3,
    "linalg/test_permutation.py": 3,
    "linalg/test_svd.py": 2,
    "linalg/test_tensor_train.py": 1,
    "tasks/test_squad.py": 1,
    "train/test_head.py": 1,
}
UNFINISHED = re.compile(r"\b(TODO|FIXME)\b")
SILENT_TOKENS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


@dataclass
class Findings:
    """What was counted over all files, the private names that they define, and each violation as file:line: message."""

    file_lines: list[int] = field(default_factory=list)
    function_lines: list[int] = field(default_factory=list)
    parameters: list[int] = field(default_factory=list)
    public_names: int = 0
    fillers: int = 0
    private: set[str] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """A definition together with what encloses it."""

    node: Documented
    name: str
    public: bool
    in_class: bool
    in_function: bool


def walk(node: ast.AST, *, outer: Place) -> Iterator[Place]:
    """Yield every class and function below `node`, parents first."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | Function):
            yield from walk(child, outer=outer)
            continue
        place = Place(
            node=child,
            name=child.name,
            public=outer.public and not outer.in_function and not child.name.startswith("_"),
            in_class=isinstance(outer.node, ast.ClassDef),
            in_function=outer.in_function or isinstance(child, Function),
        )
        yield place
        yield from walk(child, outer=place)


def decorator_names(node: Documented) -> set[str]:
    """Return the last word of each decorator: `x.setter` gives `setter`."""
    decorators = [] if isinstance(node, ast.Module) else node.decorator_list
    plain = [item.func if isinstance(item, ast.Call) else item for item in decorators]
    return {ast.unparse(item).rsplit(".", 1)[-1] for item in plain}


def lines_with_code(source: str) -> set[int]:
    """Return the numbers of the lines that hold more than a comment or white space."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        line for token in tokens if token.type not in SILENT_TOKENS for line in range(token.start[0], token.end[0] + 1)
    }


def body_length(node: Function, *, code: set[int]) -> int:
    """Count the code lines of a function's body without its docstring."""
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    if not body:
        return 0
    return len(code.intersection(range(body[0].lineno, (body[-1].end_lineno or 0) + 1)))


def parameters(place: Place) -> tuple[list[str], int]:
    """Return the names of a function's parameters and how many of them may be passed by position."""
    assert isinstance(place.node, Function)
    given = place.node.args
    by_position = [item.arg for item in [*given.posonlyargs, *given.args]]
    if place.in_class and "staticmethod" not in decorator_names(place.node):
        by_position = by_position[1:]
    variable = [item.arg for item in (given.vararg, given.kwarg) if item]
    return [*by_position, *(item.arg for item in given.kwonlyargs), *variable], len(by_position)


def function_faults(place: Place, *, lines: int) -> Iterator[str]:
    """Say what is too long or too wide in one function."""
    if lines > FUNCTION_LIMIT:
        yield f"{place.name} has {lines} code lines, limit {FUNCTION_LIMIT}"
    names, by_position = parameters(place)
    if {"override", "command"} & decorator_names(place.node) or names[:1] == ["ctx"]:
        return
    if len(names) > PARAMETER_LIMIT:
        yield f"{place.name} has {len(names)} parameters, limit {PARAMETER_LIMIT}"
    if by_position > POSITIONAL_LIMIT and (place.public or place.name == "__init__"):
        yield f"{place.name} takes {by_position} parameters by position; put * after '{names[POSITIONAL_LIMIT - 1]}'"


def own_imports(node: Function, *, package: str) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports of our own package inside a function."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import) and any(item.name.split(".")[0] == package for item in child.names):
            yield child
        if isinstance(child, ast.ImportFrom) and (child.level or (child.module or "").split(".")[0] == package):
            yield child


def fillers(tree: ast.AST) -> Iterator[str]:
    """Yield the loop variables whose names say nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            yield from (name.id for name in ast.walk(node.target) if isinstance(name, ast.Name) and name.id in FILLERS)


def is_private(name: str) -> bool:
    """Say whether a name is meant for its own file."""
    return name.startswith("_") and not name.startswith("__") and name != "_"


def private_names(tree: ast.AST) -> set[str]:
    """Return the private names that a file defines: functions, classes, variables and attributes of its own objects."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | Function):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
            names.add(node.attr)
    return {name for name in names if is_private(name)}


def is_own(value: ast.AST) -> bool:
    """Say whether an expression is the object, or the class, that a method belongs to."""
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def private_uses(tree: ast.AST, *, private: set[str]) -> Iterator[int]:
    """Yield the line of each use of a private name of another file: imported, as an attribute, or by its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_own(node.value):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.]+", node.value):
            names = [node.value.rpartition(".")[2]]  # what monkeypatch takes
        else:
            continue
        yield from (node.lineno for name in names if name in private)


def check_tests(folder: Path, *, findings: Findings) -> None:
    """Note test files that are too long, and those that use private names of the package, beyond what is left."""
    for path in sorted(folder.rglob("*.py")):
        source, name = path.read_text(encoding="utf-8"), path.relative_to(folder).as_posix()
        lines, left = len(source.splitlines()), LONG_TESTS.get(name, TEST_LIMIT)
        if lines > left:
            findings.violations.append(f"{path}:{lines}: {lines} lines, limit {left}")
        elif lines <= TEST_LIMIT < left:
            findings.violations.append(f"{path}: {lines} lines; remove it from LONG_TESTS")
        uses, left = list(private_uses(ast.parse(source), private=findings.private)), PRIVATE_IN_TESTS.get(name, 0)
        if len(uses) > left:
            places = ", ".join(map(str, sorted(uses)))
            findings.violations.append(f"{path}: {len(uses)} uses of private names, limit {left}; lines {places}")
        elif len(uses) < left:
            findings.violations.append(f"{path}: {len(uses)} uses of private names; lower PRIVATE_IN_TESTS from {left}")


def check_docstring(place: Place, *, where: str, findings: Findings) -> None:
    """Count a public name and note it if nothing documents it."""
    if not place.public or {"override", "overload", "setter", "deleter"} & decorator_names(place.node):
        return
    findings.public_names += 1
    if not ast.get_docstring(place.node):
        findings.violations.append(f"{where}: {place.name} has no docstring")


def check_function(place: Place, *, path: Path, code: set[int], findings: Findings) -> None:
    """Measure one function and note its violations."""
    node = place.node
    assert isinstance(node, Function)
    lines = body_length(node, code=code)
    findings.function_lines.append(lines)
    findings.parameters.append(len(parameters(place)[0]))
    findings.violations += [f"{path}:{node.lineno}: {fault}" for fault in function_faults(place, lines=lines)]


def check_file(path: Path, *, package: str, findings: Findings) -> None:
    """Measure one file and note its violations."""
    source = path.read_text(encoding="utf-8")
    lines, code, tree = source.splitlines(), lines_with_code(source), ast.parse(source)
    findings.file_lines.append(len(lines))
    if len(lines) > FILE_LIMIT:
        findings.violations.append(f"{path}:{len(lines)}: {len(lines)} lines, limit {FILE_LIMIT}")
    if {path.stem, path.parent.name} & VAGUE_NAMES:
        findings.violations.append(f"{path}:1: a name that says nothing: {path.parent.name}/{path.stem}")
    findings.violations += [
        f"{path}:{number}: unfinished: {line.strip()}"
        for number, line in enumerate(lines, 1)
        if UNFINISHED.search(line)
    ]
    findings.fillers += len(list(fillers(tree)))
    findings.private |= private_names(tree)
    module = Place(node=tree, name=path.stem, public=True, in_class=False, in_function=False)
    places = [module, *walk(tree, outer=module)] if source.strip() else []
    imports: set[int] = set()
    for place in places:
        check_docstring(place, where=f"{path}:{getattr(place.node, 'lineno', 1)}", findings=findings)
        if isinstance(place.node, Function):
            check_function(place, path=path, code=code, findings=findings)
            imports |= {item.lineno for item in own_imports(place.node, package=package)}
    findings.violations += [f"{path}:{line}: own import inside a function" for line in sorted(imports)]


def percentile(values: list[int], *, share: float) -> int:
    """Return the smallest value that at least `share` of the values do not exceed."""
    ranked = sorted(values) or [0]
    return ranked[max(0, -(-round(share * 100) * len(ranked) // 100) - 1)]


def totals(findings: Findings) -> list[tuple[str, float, int]]:
    """Return (what, measured, allowed) for each number of the budget."""
    files, functions = findings.file_lines or [0], findings.function_lines or [0]
    return [
        ("lines per file, median", statistics.median(files), FILE_MEDIAN),
        ("lines per file, longest", max(files), FILE_LIMIT),
        ("code lines per function, median", statistics.median(functions), FUNCTION_MEDIAN),
        ("code lines per function, 90th percentile", percentile(functions, share=0.9), FUNCTION_P90),
        ("code lines per function, longest", max(functions), FUNCTION_LIMIT),
    ]


def survey(folder: Path) -> Findings:
    """Measure every Python file below `folder`, whose name is the package's."""
    findings = Findings()
    for path in sorted(folder.rglob("*.py")):
        check_file(path, package=folder.name, findings=findings)
    return findings


def main(arguments: list[str]) -> int:
    """Print the table and the violations; return the exit status."""
    root = Path(__file__).resolve().parents[1]
    folder, *tests = map(Path, arguments or [root / "src" / "kronpress", root / "tests"])
    if not any(folder.rglob("*.py")):
        print(f"no Python files in {folder}")
        return 1
    findings, failed = survey(folder), False
    for path in tests:
        check_tests(path, findings=findings)
    for what, measured, allowed in totals(findings):
        over = measured > allowed
        failed = failed or over
        print(f"{what:42} {measured:6g}  allowed {allowed:4}{'  OVER' if over else ''}")
    print(f"{'parameters, most':42} {max(findings.parameters, default=0):6}  (limit {PARAMETER_LIMIT}, see below)")
    print(f"{'files, functions, public names':42} {len(findings.file_lines)}, ", end="")
    print(f"{len(findings.function_lines)}, {findings.public_names}")
    print(f"{'loop variables ' + ', '.join(sorted(FILLERS)):42} {findings.fillers:6}")
    if tests:
        print(f"{'private names in tests, left':42} {sum(PRIVATE_IN_TESTS.values()):6}")
    print("\n".join(findings.violations) or "no violations")
    return int(failed or bool(findings.violations))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
