"""Extract: plain files that tools take as they are, in a folder that appears whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bundle import Bundle, bundle_from_bytes, extract, read_bundle, write_bundle
from edgekit.errors import UserError


@pytest.fixture
def bundle(sample_bytes: bytes) -> Bundle:
    return bundle_from_bytes(sample_bytes, path=Path("model.edge"))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


TOP = {"README.txt", "manifest.json", "report.json", "task.json", "labels.txt"}
HERE = {"model.onnx", "model.xml", "model.bin", "entry.json", "golden/inputs/image.npy", "golden/outputs/scores.npy"}
THERE = HERE - {"model.xml", "model.bin"}


def test_the_layout_is_the_documented_one(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    written = extract(bundle, folder)
    expected = TOP | {f"x86-cpu/int8/{name}" for name in HERE} | {f"jetson-orin-nano/int8/{name}" for name in THERE}
    assert names(folder) == expected
    assert {path.relative_to(folder).as_posix() for path in written} == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_files_run_as_they_are(bundle: Bundle, tmp_path: Path) -> None:
    import onnxruntime
    import openvino as ov

    extract(bundle, tmp_path / "out")
    place = tmp_path / "out/x86-cpu/int8"
    image = np.load(place / "golden/inputs/image.npy", allow_pickle=False)
    expected = np.load(place / "golden/outputs/scores.npy", allow_pickle=False)
    compiled = ov.Core().compile_model(place / "model.xml", "CPU")
    session = onnxruntime.InferenceSession(place / "model.onnx", providers=["CPUExecutionProvider"])
    for number in range(len(image)):
        feed = {"image": image[number : number + 1]}
        np.testing.assert_allclose(compiled(feed)["scores"][0], expected[number], rtol=1e-2)
        np.testing.assert_allclose(session.run(["scores"], feed)[0][0], expected[number], rtol=1e-5)


def test_one_target_alone(bundle: Bundle, tmp_path: Path) -> None:
    extract(bundle, tmp_path / "out", "jetson-orin-nano")
    assert names(tmp_path / "out") == TOP | {f"jetson-orin-nano/int8/{name}" for name in THERE}
    assert "x86-cpu" not in (tmp_path / "out/README.txt").read_text(encoding="utf-8")


def test_an_unknown_target_names_the_nearest(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no target 'x86-cpo'") as caught:
        extract(bundle, tmp_path / "out", "x86-cpo")
    assert caught.value.hint == "did you mean 'x86-cpu'?"
    assert list(tmp_path.iterdir()) == []


def test_the_readme_says_how_to_feed_it(bundle: Bundle, tmp_path: Path) -> None:
    extract(bundle, tmp_path / "out")
    text = (tmp_path / "out/README.txt").read_text(encoding="utf-8")
    for part in (
        bundle.manifest.content_digest,
        "image: uint8, 1 x 2 x 2 x 3",
        "scores: float32, 1 x 3",
        "B, G, R",
        "2 rows (height) x 2 columns (width)",
        "letterbox",
        "Do NOT divide",
        "STRONGLY TYPED".lower(),
        "latency: unverified; accuracy: simulated",
    ):
        assert part in text


def test_labels_are_one_a_line(bundle: Bundle, tmp_path: Path) -> None:
    extract(bundle, tmp_path / "out")
    assert (tmp_path / "out/labels.txt").read_bytes() == "blue\ngrün\nred ish\n".encode()
    task = json.loads((tmp_path / "out/task.json").read_text(encoding="utf-8"))
    assert task["labels"] == ["blue", "grün", "red\nish"]


def test_entry_json_points_at_the_extracted_files(bundle: Bundle, tmp_path: Path) -> None:
    extract(bundle, tmp_path / "out")
    place = tmp_path / "out/x86-cpu/int8"
    entry = json.loads((place / "entry.json").read_text(encoding="utf-8"))
    assert entry["engine"]["files"] == {"xml": "model.xml", "bin": "model.bin"}
    assert entry["options"]["device"] == "CPU"
    for name in (entry["graph"], *entry["golden"]["inputs"].values(), *entry["golden"]["outputs"].values()):
        assert (place / name).is_file()


def test_manifest_and_report_are_byte_for_byte(bundle: Bundle, tmp_path: Path) -> None:
    extract(bundle, tmp_path / "out")
    for name in ("manifest.json", "report.json"):
        assert (tmp_path / "out" / name).read_bytes() == bundle.read(name)


def test_a_raw_model_has_no_task_files(sample: Any, tmp_path: Path) -> None:
    manifest = dataclasses.replace(sample.manifest, task=None)
    write_bundle(tmp_path / "raw.edge", manifest=manifest, files=sample.files, report={})
    extract(read_bundle(tmp_path / "raw.edge"), tmp_path / "out")
    assert not {"task.json", "labels.txt"} & names(tmp_path / "out")
    assert "This model has no task" in (tmp_path / "out/README.txt").read_text(encoding="utf-8")


def test_hostile_names_stay_inside_and_apart(forge: Any, tmp_path: Path) -> None:
    table = forge.manifest()
    for entry, name in zip(table["entries"], ("../../evil", "..\\..\\EVIL"), strict=True):
        entry["target"] = name
        entry["precision"] = "/"
        entry["inputs"][0]["name"] = "../\x1b[31mimage\n"
        entry["golden"]["inputs"] = {"../\x1b[31mimage\n": entry["golden"]["inputs"]["image"]}
    table["name"] = "a\x1b[2J\nb"
    bundle = bundle_from_bytes(forge.with_manifest(table), path=Path("model.edge"))
    folder = tmp_path / "deep" / "out"
    folder.parent.mkdir()
    written = extract(bundle, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    assert len(names(folder)) == len(written) == len(TOP) + len(HERE) + len(THERE)
    for name in names(folder):
        assert name.isprintable()
        assert ".." not in Path(name).parts
    assert "\x1b" not in (folder / "README.txt").read_text(encoding="utf-8")


def test_two_entries_of_one_target_and_precision_get_a_folder_each(forge: Any, tmp_path: Path) -> None:
    table = forge.manifest()
    table["entries"].append(table["entries"][1])
    extract(
        bundle_from_bytes(forge.with_manifest(table), path=Path("model.edge")), tmp_path / "out", "jetson-orin-nano"
    )
    assert {path.name for path in (tmp_path / "out/jetson-orin-nano").iterdir()} == {"int8", "int8-2"}


def test_a_folder_with_files_is_kept(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    extract(bundle, folder)  # an empty folder is fine
    before = names(folder)
    with pytest.raises(UserError, match="is not empty"):
        extract(bundle, folder, "x86-cpu")
    assert names(folder) == before


def test_force_replaces_an_earlier_extract_and_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    extract(bundle, folder, force=True)
    extract(bundle, folder, "x86-cpu", force=True)
    assert not (folder / "jetson-orin-nano").exists()
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("three years of work")
    with pytest.raises(UserError, match="no extract wrote this folder"):
        extract(bundle, home, force=True)
    assert (home / "thesis.txt").read_text() == "three years of work"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "home"}
