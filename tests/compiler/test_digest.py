"""The same inputs give the same digest: in two processes, from two folders, whatever the clock said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.bundle import read_bundle
from edgekit.compiler import CompileReport
from edgekit.compiler.golden import golden_inputs, golden_outputs
from tests.compiler.world import HERE, World
from tests.networks import folded

ROOT = Path(__file__).resolve().parents[2]


def started(world: World, folder: Path, *, name: str, hash_seed: str) -> subprocess.Popen[str]:
    folder.mkdir()
    words = [
        "compile", str(world.weights), "--arch", "tests.networks:Residual", "--task", str(world.task),
        "--data", os.path.relpath(world.data, folder), "--samples", "40", "--precision", "int8", "--threads", "1",
        "--target", HERE, "--target", "jetson", "-o", name, "--json",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    return subprocess.Popen(
        [sys.executable, "-m", "edgekit", *words], stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
    )


def test_two_processes_in_two_folders_give_one_digest(world: World, tmp_path: Path) -> None:
    processes = [
        started(world, tmp_path / "one", name="first.edge", hash_seed="1"),
        started(world, tmp_path / "two", name="second.edge", hash_seed="2"),
    ]
    first, second = (json.loads(process.communicate(timeout=300)[0]) for process in processes)
    for document in (first, second):
        assert "content_digest" in document, document  # an error says what it is
    assert first["content_digest"] == second["content_digest"]
    one, two = (read_bundle(tmp_path / part) for part in ("one/first.edge", "two/second.edge"))
    assert [(entry.target, entry.latency) for entry in one.manifest.entries] == [
        (entry.target, entry.latency) for entry in two.manifest.entries
    ]
    content = (tmp_path / "one" / "first.edge").read_bytes()
    assert str(world.folder).encode() not in content, "no path of this machine travels in a bundle"
    assert str(ROOT).encode() not in content


def test_another_seed_gives_another_digest(world: World, compiled_again: CompileReport, tmp_path: Path) -> None:
    other = edgekit.compile(
        world.net, target=HERE, task=world.task, data=world.data, samples=40, seed=1, precision="int8",
        timing=False, output=tmp_path / "m.edge", threads=1,
    )  # fmt: skip
    assert other.content_digest != compiled_again.content_digest


@pytest.fixture(scope="module")
def compiled_again(world: World, tmp_path_factory: pytest.TempPathFactory) -> CompileReport:
    return edgekit.compile(
        world.net, target=HERE, task=world.task, data=world.data, samples=40, precision="int8",
        timing=False, output=tmp_path_factory.mktemp("again") / "m.edge", threads=1,
    )  # fmt: skip


def test_the_stored_report_is_the_report_without_what_is_known_only_from_outside(
    compiled_again: CompileReport,
) -> None:
    stored = read_bundle(compiled_again.output).report()
    printed = json.loads(json.dumps(compiled_again.to_dict()))
    assert set(printed) - set(stored) == {"output", "content_digest", "bundle_bytes"}
    assert stored == {key: printed[key] for key in stored}
    assert stored["schema"] == "edgekit.compile/1"
    assert "quantize" in [record["stage"] for record in stored["history"][f"int8 1: {HERE}"]]


def test_golden_inputs_depend_on_the_seed_alone() -> None:
    program = folded("residual")
    first, second = (golden_inputs(program, count=3, seed=5) for _ in range(2))
    assert first["image"].shape == (3, 16, 16, 3)
    assert first["image"].dtype == np.uint8
    assert np.array_equal(first["image"], second["image"])
    assert not np.array_equal(golden_inputs(program, count=3, seed=6)["image"], first["image"])
    outputs = golden_outputs(program, first)
    assert {name: array.shape for name, array in outputs.items()} == {"output": (3, 4)}
    assert all(np.array_equal(outputs[name], golden_outputs(program, second)[name]) for name in outputs)
    assert len(np.unique(outputs["output"], axis=0)) == 3, "pictures that differ"
