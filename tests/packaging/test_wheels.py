from __future__ import annotations

import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import edgekit

ROOT = Path(__file__).resolve().parents[2]

LIST = """
import edgekit, edgekit.datafiles
from edgekit.augmentation import list_augmentations
from edgekit.calibration import list_recipes
from edgekit.targets import list_targets, load_target
print(edgekit.__file__)
print(edgekit.datafiles.builtin_folder("targets"))
print(*[target.name for target in list_targets()])
print(*[recipe.name for recipe in list_recipes()])
print(*[item.name for item in list_augmentations()])
print(load_target("jetson").name)
"""

pytestmark = pytest.mark.slow


def _stems(folder: str) -> str:
    return " ".join(sorted(path.stem for path in (ROOT / folder).glob("*.toml")))


def _needed(python: tuple[int, int]) -> list[str]:
    return ["tomli"] if python < (3, 11) else []


@pytest.mark.parametrize("kind", ["wheel", "wheel-of-sdist", "editable"])
def test_targets_are_found(kind, build, empty) -> None:
    empty.install("--no-deps", str(build(kind)), *_needed(sys.version_info[:2]))
    package, folder, targets, recipes, augmentations, alias = empty.run("-c", LIST).splitlines()
    inside = ROOT if kind == "editable" else empty.folder
    assert Path(package).is_relative_to(inside)
    assert Path(folder).is_relative_to(inside)
    assert targets == _stems("targets")
    assert recipes == _stems("calibration")
    assert augmentations == _stems("augmentation")
    assert alias == "jetson-orin-nano"


def test_the_wheel_of_the_sdist_is_the_wheel(build) -> None:
    with zipfile.ZipFile(build("wheel")) as first, zipfile.ZipFile(build("wheel-of-sdist")) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())
        # Not the modules: somebody may be editing them between the two builds.
        for name in (name for name in first.namelist() if "/_data/" in name or name.endswith("/METADATA")):
            assert first.read(name) == second.read(name), name


def test_the_wheel_holds_the_package_and_its_data_only(build) -> None:
    with zipfile.ZipFile(build("wheel")) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names} == {"edgekit", f"edgekit-{edgekit.__version__}.dist-info"}
    assert "edgekit/py.typed" in names
    assert f"edgekit-{edgekit.__version__}.dist-info/licenses/LICENSE" in names
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]
    source = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgekit").rglob("*.py")}
    assert source <= set(names)


def test_the_metadata_asks_for_ranges_and_for_what_a_device_lacks(build) -> None:
    with zipfile.ZipFile(build("wheel")) as wheel:
        text = wheel.read(f"edgekit-{edgekit.__version__}.dist-info/METADATA").decode()
    metadata = Parser().parsestr(text)
    assert metadata["Version"] == edgekit.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert set(metadata.get_all("Provides-Extra")) == {"compile", "cv", "dev", "openvino", "rtx", "tensorrt"}

    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    assert not [item for item in requirements if any(part.operator == "==" for part in item.specifier)]
    extras: dict[str, set[str]] = {}
    for item in requirements:
        marker = "" if item.marker is None else str(item.marker)
        extra = marker.split("extra == ")[1].strip("'\"") if "extra ==" in marker else ""
        extras.setdefault(extra, set()).add(str(item).split(" ")[0].split("<")[0].split(">")[0].split(";")[0])
    assert extras[""] == {"click", "numpy", "tomli"}
    assert extras["cv"] == {"opencv-python-headless"}
    assert extras["tensorrt"] == {"cuda-bindings"}
    assert extras["openvino"] == {"opencv-python-headless", "openvino"}
    assert extras["rtx"] == {"opencv-python-headless", "cuda-bindings", "tensorrt-rtx"}
    assert {"opencv-python-headless", "onnx", "torch"} <= extras["compile"]
