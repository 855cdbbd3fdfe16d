"""``--arch``: what is imported, from where, and what is said when it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from edgekit.errors import ModelError
from edgekit.frontend.architecture import build_architecture, import_root, parse_value

SOURCE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=2, kind="plain"):
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.kind = kind

def build(width: int) -> nn.Module:
    return Net(width)

def breaks():
    raise RuntimeError("no such depth")

def gives_dict():
    return {}

number = 3
"""


@pytest.fixture
def root(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A folder with a package of a name that no other test uses."""
    name = f"arch_{abs(hash(request.node.nodeid))}"
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(SOURCE)
    (package / "needs.py").write_text("import surely_not_installed_anywhere")
    (package / "raises.py").write_text("1 / 0")
    return tmp_path, name


def test_builds_a_class_and_a_function_with_parsed_arguments(root: tuple[Path, str]) -> None:
    path, name = root
    before = list(sys.path)
    made = build_architecture(f"{name}.nets:Net", path=path, args={"width": "5", "kind": "fancy"})
    assert isinstance(made, nn.Module)
    assert made.fc.in_features == 5
    assert made.kind == "fancy"
    assert build_architecture(f"{name}.nets:build", path=path, args={"width": "3"}).fc.in_features == 3
    assert sys.path == before


def test_the_working_folder_is_searched_without_a_path(root: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    path, name = root
    monkeypatch.chdir(path)
    assert build_architecture(f"{name}.nets:Net", path=None, args={})


@pytest.mark.parametrize("text", ["resnet", "a:b:c", ":x", "a.b:", "a b:c", "a;b:c", "../x:y"])
def test_wrong_form(text: str) -> None:
    with pytest.raises(ModelError, match=r"expected package\.module:callable"):
        build_architecture(text, path=None, args={})


@pytest.mark.parametrize(
    ("arch", "args", "words"),
    [
        ("none_of_this_name:x", {}, "no module 'none_of_this_name'"),
        ("{}.none:x", {}, r"no module '\w+\.none'"),
        ("{}.nets:Nett", {}, "did you mean 'Net'"),
        ("{}.needs:x", {}, "needs 'surely_not_installed_anywhere', which is not installed"),
        ("{}.raises:x", {}, "ZeroDivisionError"),
        ("{}.nets:number", {}, "is a int, expected a class or function"),
        ("{}.nets:Net", {"depth": "3"}, "unexpected keyword argument 'depth'.*\n.*width=2"),
        ("{}.nets:build", {}, "missing a required argument"),
        ("{}.nets:breaks", {}, "RuntimeError: no such depth"),
        ("{}.nets:Net", {"width": "wide"}, "calling it failed: TypeError"),
        ("{}.nets:gives_dict", {}, "gave a dict, expected an nn.Module"),
    ],
)
def test_what_cannot_be_built_says_why(arch: str, args: dict[str, str], words: str, root: tuple[Path, str]) -> None:
    path, name = root
    before = list(sys.path)
    with pytest.raises(ModelError, match=words):
        build_architecture(arch.format(name), path=path, args=args)
    assert sys.path == before


def test_a_module_that_is_already_imported_from_elsewhere_is_not_taken_for_it(
    root: tuple[Path, str], tmp_path: Path
) -> None:
    path, name = root
    build_architecture(f"{name}.nets:Net", path=path, args={})
    other = tmp_path / "other"
    (other / name).mkdir(parents=True)
    (other / name / "nets.py").write_text(SOURCE)
    with pytest.raises(ModelError, match="already imported from"):
        build_architecture(f"{name}.nets:Net", path=other, args={})


def test_import_root_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"), import_root(tmp_path / "none"):
        pass


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-0.5", -0.5),
        ("True", True),
        ("None", None),
        ("(1, 2)", (1, 2)),
        ("'3'", "3"),
        ("relu", "relu"),
        ("a b", "a b"),
        ("", ""),
    ],
)
def test_values_are_literals_or_text(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_values_are_never_run() -> None:
    assert parse_value("__import__('os').getcwd()") == "__import__('os').getcwd()"
