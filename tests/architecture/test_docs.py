"""What the documentation says exists: links, commands, options, snippets, keys, targets."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import edgekit
from edgekit.calibration import Recipe
from edgekit.cli.main import VERBS, cli
from edgekit.compiler.shaping import read_stages
from edgekit.config import from_dict
from edgekit.datafiles import builtin_folder
from edgekit.runtime.tasks import ImageInput, load_spec
from edgekit.runtime.tasks.classification import ClassificationSpec
from edgekit.targets import Target, list_targets

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "examples", "benchmarks")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
# Options of other programs that the pages mention.
FOREIGN = {"--onnx", "--stronglyTyped", "--saveEngine", "--output"}


def _named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=_named)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _text(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _fenced(language: str) -> list[Any]:
    found = [(page, match[2]) for page in PAGES for match in FENCE.finditer(_text(page)) if match[1] == language]
    return [pytest.param(code, id=f"{_named(page)}-{number}") for number, (page, code) in enumerate(found)]


def _commands(page: Path) -> Iterator[list[str]]:
    """The edgekit commands of a page: lines of code blocks, and code within sentences."""
    text = _text(page)
    joined = re.sub(r"\\\n\s*", "", text)
    lines = re.findall(r"^(?: {4}|\$ )(?:\$ )?(edgekit [^\n]+)", joined, flags=re.MULTILINE)
    spans = re.findall(r"`(edgekit [^`]+)`", re.sub(r"\s*\n\s*", " ", text))
    for line in (*lines, *spans):
        # After two spaces comes an explanation.
        yield shlex.split(re.split(r" {2,}", line)[0], comments=True)


def _options(command: click.Command) -> set[str]:
    names = {name for item in command.params for name in (*item.opts, *item.secondary_opts) if name.startswith("-")}
    return names | {"-h", "--help"}


def _command(verb: str) -> click.Command:
    found = cli.get_command(click.Context(cli), verb)
    assert found is not None
    return found


def test_there_is_something_to_look_at() -> None:
    assert ROOT / "README.md" in PAGES
    assert len(PAGES) > 10
    assert sum(1 for page in PAGES for _ in _commands(page)) > 30


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(_text(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        goal = page if not name else (page.parent / name).resolve()
        if not goal.exists() or (anchor and anchor not in _anchors(goal)):
            broken.append(link)
    assert broken == []


@every_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in _commands(page):
        verb = next((word for word in words[1:] if not word.startswith("-")), None)
        known = _options(cli)
        if verb is not None and verb not in ("VERB", "..."):
            assert verb in VERBS, f"edgekit {verb}"
            known |= _options(_command(verb))
        given = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
        assert given <= known, " ".join(words)


@every_page
def test_options_in_the_text_exist(page: Path) -> None:
    """Options that stand alone, as `--max-drop`, belong to some verb."""
    known = _options(cli).union(*(_options(_command(verb)) for verb in VERBS)) | FOREIGN
    assert set(re.findall(r"`(--[a-z][a-zA-Z-]*)", _text(page))) <= known


@every_page
def test_no_path_of_one_machine(page: Path) -> None:
    assert re.findall(r"/(?:home|Users|work|root|tmp)/\w+", _text(page)) == []


@every_page
def test_lines_are_not_endless(page: Path) -> None:
    """Tables and code cannot be wrapped; everything else is."""
    long = [line for line in _text(page).splitlines() if len(line) > 120 and not line.startswith(("|", "    "))]
    assert long == []


@pytest.mark.parametrize("code", _fenced("python"))
def test_python_compiles_and_names_what_exists(code: str) -> None:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("edgekit"):
            module = importlib.import_module(node.module)
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "edgekit.compile":
            known = set(inspect.signature(edgekit.compile).parameters)
            assert {word.arg for word in node.keywords} <= known


@pytest.mark.parametrize("code", _fenced("toml"))
def test_toml_fits_its_dataclass(code: str, tmp_path: Path) -> None:
    table = tomllib.loads(code)
    if "task" in table:
        (tmp_path / "labels.txt").write_text("cat\ndog\n", encoding="utf-8")
        (tmp_path / "task.toml").write_text(code, encoding="utf-8")
        assert load_spec(tmp_path / "task.toml").task == table["task"]
    elif "stage" in table:
        (tmp_path / "recipe.toml").write_text(code, encoding="utf-8")
        read = read_stages(tmp_path / "recipe.toml")
        assert read is not None
        assert len(read.stages) == len(table["stage"])
    else:
        kind: type[Any] = Target if "backend" in table else Recipe
        assert from_dict(kind, table, where="the page").name == table["name"]


def test_every_key_of_a_task_spec_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", _text(ROOT / "docs" / "tasks.md")))
    fields = {field.name for cls in (ClassificationSpec, ImageInput) for field in dataclasses.fields(cls)}
    assert fields - {"input"} - explained == set()


def test_the_readme_lists_the_targets() -> None:
    rows = []
    for target in list_targets():
        name = f"`{target.name}`" + "".join(f" (alias `{alias}`)" for alias in target.aliases)
        where = {"here": "here", "ahead": "here, one for each precision", "device": "on the device"}[target.build]
        cells = [name, target.title, target.backend, where, ", ".join(target.precisions)]
        rows.append(f"| {' | '.join(cells)} |")
    assert "\n".join(rows) + "\n" in _text(ROOT / "README.md")


def test_every_target_and_recipe_is_in_the_changelog_or_a_page() -> None:
    told = "\n".join(_text(page) for page in PAGES)
    names = [
        path.stem for kind in ("targets", "calibration", "augmentation") for path in builtin_folder(kind).glob("*.toml")
    ]
    assert [name for name in names if f"`{name}`" not in told] == []


def test_the_contents_list_every_page() -> None:
    contents = _text(ROOT / "docs" / "README.md")
    pages = [page for page in PAGES if page.is_relative_to(ROOT / "docs") and page != ROOT / "docs" / "README.md"]
    missing = [page.relative_to(ROOT / "docs").as_posix() for page in pages]
    assert [name for name in missing if f"({name})" not in contents] == []
