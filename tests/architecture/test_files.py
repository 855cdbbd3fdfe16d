from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("edgekit", "tests", "examples", "benchmarks")
PYTHON = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PACKAGE = [path for path in PYTHON if path.is_relative_to(ROOT / "edgekit")]
LONGEST = 500
# A file of leftovers grows without end, and its name tells a reader nothing.
LEFTOVERS = {"utils", "util", "common", "helpers", "helper", "misc"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|raise NotImplementedError|return NotImplemented)\b")


def _named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_is_something_to_look_at() -> None:
    assert len(PACKAGE) > 20


@pytest.mark.parametrize("path", PYTHON, ids=_named)
def test_a_file_is_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{_named(path)} has {lines} lines, at most {LONGEST}: one idea a file"


def test_no_file_of_leftovers() -> None:
    assert [_named(path) for path in PYTHON if path.stem in LEFTOVERS or path.parent.name in LEFTOVERS] == []


@pytest.mark.parametrize("path", PACKAGE, ids=_named)
def test_nothing_is_left_unfinished(path: Path) -> None:
    assert UNFINISHED.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", PACKAGE, ids=_named)
def test_options_are_named(path: Path) -> None:
    """No function passes on keywords that it does not know."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    assert [node.name for node in functions if node.args.kwarg is not None] == []


@pytest.mark.parametrize("path", PACKAGE, ids=_named)
def test_nothing_is_caught_blindly(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    swallowed = [
        node.lineno
        for node in handlers
        if node.type is None or (len(node.body) == 1 and isinstance(node.body[0], ast.Pass) and _is_broad(node.type))
    ]
    assert swallowed == []


def _is_broad(kind: ast.expr) -> bool:
    return isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}
