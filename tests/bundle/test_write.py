"""Writing: equal content gives equal bytes, wherever and whenever; and the file appears whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.bundle import (
    FORMAT_MAJOR,
    FORMAT_MINOR,
    Entry,
    Golden,
    Manifest,
    array_bytes,
    read_bundle,
    store_name,
    write_bundle,
)
from edgekit.bundle.digest import canonical_json
from edgekit.errors import BundleError, InternalError, UserError
from edgekit.targets import Requires
from edgekit.tensorspec import TensorSpec

ROOT = Path(__file__).resolve().parents[2]
MAKE = """
import json, sys
from pathlib import Path
import numpy as np
from edgekit.bundle import FORMAT_MAJOR, FORMAT_MINOR, Entry, Golden, Manifest, array_bytes, store_name, write_bundle
from edgekit.targets import Requires
from edgekit.tensorspec import TensorSpec

def make(path, backwards=False, size=4, report={}):
    graph, array = bytes(size), array_bytes(np.arange(6, dtype=np.float32))
    g, a = store_name("graphs", graph, ".onnx"), store_name("golden", array, ".npy")
    spec = TensorSpec(name="x", dtype="float32", shape=(None, 6))
    options = {name: len(name) for name in {"alpha", "be", "gam", "delta"}}
    files = [(g, graph), (a, array)]
    entry = Entry(
        target="t", backend="b", precision="int8", graph=g, engine=None, inputs=(spec,), outputs=(spec,),
        options=dict(reversed(list(options.items()))) if backwards else options, requires=Requires(),
        golden=Golden(inputs={"x": a}, outputs={"x": a}, rel_l2=0.1), latency="unverified", accuracy="none",
    )
    manifest = Manifest(
        format=(FORMAT_MAJOR, FORMAT_MINOR), producer={"edgekit": "0"}, name="m", task=None, entries=(entry,)
    )
    files = dict(reversed(files)) if backwards else dict(files)
    return write_bundle(Path(path), manifest=manifest, files=files, report=report)
"""


def run(code: str, *arguments: str, cwd: Path, seed: str = "0") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
    return subprocess.run(
        [sys.executable, "-c", MAKE + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
    )


def test_equal_content_gives_equal_bytes_in_two_processes_and_folders(tmp_path: Path) -> None:
    digests = []
    for number, name in enumerate(("one", "two")):
        folder = tmp_path / name
        folder.mkdir()
        path = "model.edge" if number else str(folder / "model.edge")
        code = "print(make(sys.argv[1], backwards=bool(int(sys.argv[2]))).content_digest)"
        done = run(code, path, str(number), cwd=folder, seed=str(number + 1))
        assert done.returncode == 0, done.stderr
        digests.append(done.stdout)
    assert digests[0] == digests[1]
    assert (tmp_path / "one/model.edge").read_bytes() == (tmp_path / "two/model.edge").read_bytes()


def test_another_report_leaves_the_content_digest(sample: Any, tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "a", manifest=sample.manifest, files=sample.files, report={"p50_ms": 1.0})
    second = write_bundle(tmp_path / "b", manifest=sample.manifest, files=sample.files, report={"p50_ms": 2.0})
    assert first.content_digest == second.content_digest
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()
    assert read_bundle(tmp_path / "b").report() == {"p50_ms": 2.0}


def test_another_name_changes_the_content_digest(sample: Any, tmp_path: Path) -> None:
    other = dataclasses.replace(sample.manifest, name="other")
    first = write_bundle(tmp_path / "a", manifest=sample.manifest, files=sample.files, report={})
    assert (
        write_bundle(tmp_path / "b", manifest=other, files=sample.files, report={}).content_digest
        != first.content_digest
    )


def test_what_is_returned_is_what_a_reader_sees(sample: Any, tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "a.edge", manifest=sample.manifest, files=sample.files, report=sample.report)
    assert read_bundle(tmp_path / "a.edge").manifest == manifest
    assert set(manifest.files) == {*sample.files, "report.json"}


def test_the_documented_canonical_form_is_what_is_stored(sample: Any, tmp_path: Path) -> None:
    sample.write(tmp_path / "a.edge")
    data = read_bundle(tmp_path / "a.edge").read("manifest.json")
    assert canonical_json(json.loads(data), where="test") == data


def test_a_store_name_takes_the_suffix_with_or_without_its_dot() -> None:
    assert store_name("graphs", b"a", ".onnx") == store_name("graphs", b"a", "onnx")
    assert store_name("graphs", b"a", "onnx") != store_name("graphs", b"b", "onnx")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
OPTIONS = st.dictionaries(
    TEXT, st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1e9, 1e9) | st.lists(TEXT, max_size=2)
)
ARRAYS = hnp.arrays(st.sampled_from(["uint8", "float32", "int64"]), hnp.array_shapes(max_dims=3, max_side=3))


@st.composite
def entries(draw: st.DrawFn) -> tuple[Entry, dict[str, bytes]]:
    graph = draw(st.binary(max_size=20))
    names = {"graph": store_name("graphs", graph, ".onnx")}
    files = {names["graph"]: graph}
    arrays = draw(st.dictionaries(TEXT, ARRAYS, min_size=1, max_size=2))
    for key, array in arrays.items():
        data = array_bytes(array)
        names["array " + key] = store_name("golden", data, ".npy")
        files[names["array " + key]] = data
    golden = {key: names["array " + key] for key in arrays}
    specs = tuple(TensorSpec(name=key, dtype=str(array.dtype), shape=array.shape) for key, array in arrays.items())
    entry = Entry(
        target=draw(TEXT),
        backend=draw(TEXT),
        precision="int8",
        graph=names["graph"],
        engine=None,
        options=draw(OPTIONS),
        inputs=specs,
        outputs=specs,
        requires=Requires(reason=draw(TEXT)),
        golden=Golden(inputs=golden, outputs=golden, rel_l2=draw(st.floats(0, 1))),
        latency="unverified",
        accuracy="none",
    )
    return entry, files


@settings(max_examples=50, deadline=None)
@given(st.lists(entries(), min_size=1, max_size=3), TEXT, OPTIONS, OPTIONS)
def test_any_content_comes_back(made: list[tuple[Entry, dict[str, bytes]]], name: str, task: Any, report: Any) -> None:
    files = {key: data for _, some in made for key, data in some.items()}
    manifest = Manifest(
        format=(FORMAT_MAJOR, FORMAT_MINOR),
        producer={},
        name=name,
        task={"task": "t", **task},
        entries=tuple(entry for entry, _ in made),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.edge"
        written = write_bundle(path, manifest=manifest, files=files, report=report)
        bundle = read_bundle(path)
    assert bundle.manifest == written
    assert bundle.manifest.entries == manifest.entries
    assert bundle.manifest.task == manifest.task
    assert bundle.report() == report
    assert {key: bundle.read(key) for key in files} == files


def test_what_json_cannot_carry_is_named_and_nothing_is_written(sample: Any, tmp_path: Path) -> None:
    entry = dataclasses.replace(sample.manifest.entries[1], options={"scale": float("nan")})
    manifest = dataclasses.replace(sample.manifest, entries=(sample.manifest.entries[0], entry))
    with pytest.raises(BundleError, match=r"manifest: entries\.1\.options\.scale: expected a finite number"):
        write_bundle(tmp_path / "a.edge", manifest=manifest, files=sample.files, report={})
    with pytest.raises(BundleError, match=r"report\.json: p50: JSON cannot carry a value of type float32"):
        write_bundle(tmp_path / "a.edge", manifest=sample.manifest, files=sample.files, report={"p50": np.float32(1)})
    assert list(tmp_path.iterdir()) == []


def test_files_that_do_not_fit_the_manifest_are_an_internal_error(sample: Any, tmp_path: Path) -> None:
    path, extra = tmp_path / "a.edge", store_name("graphs", b"extra", ".onnx")
    first = next(iter(sample.files))
    for files, message in [
        ({**sample.files, extra: b"extra"}, f"no entry refers to {extra}"),
        ({**sample.files, extra: b"other"}, "to hold its hash"),
        ({**sample.files, "labels.txt": b"a"}, "file name 'labels.txt'"),
        ({**sample.files, "manifest.json": b"a"}, "makes manifest.json itself"),
        ({name: data for name, data in sample.files.items() if name != first}, "does not hold"),
    ]:
        with pytest.raises(InternalError) as caught:
            write_bundle(path, manifest=sample.manifest, files=files, report={})
        assert message in caught.value.message
    with pytest.raises(InternalError, match="both must be empty"):
        write_bundle(path, manifest=dataclasses.replace(sample.manifest, content_digest="x"), files={}, report={})
    with pytest.raises(InternalError, match="expected format"):
        write_bundle(
            path, manifest=dataclasses.replace(sample.manifest, format=(1, FORMAT_MINOR - 1)), files={}, report={}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_too_large_is_refused(sample: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.bundle.write.MAX_BUNDLE_BYTES", 1000)
    with pytest.raises(BundleError, match="a bundle holds at most 1,000"):
        sample.write(tmp_path / "a.edge")
    assert list(tmp_path.iterdir()) == []


def test_a_file_limit_says_what_was_needed_and_leaves_the_old_file(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="this system has no resource limits")
    assert run("make('m.edge')", cwd=tmp_path).returncode == 0
    old = (tmp_path / "m.edge").read_bytes()
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "from edgekit.errors import UserError\n"
        "try:\n    make('m.edge', size=1 << 20)\nexcept UserError as error:\n    print(error)"
    )
    done = run(code, cwd=tmp_path)
    assert "File too large" in done.stdout, done.stderr
    assert " bytes are needed" in done.stdout
    assert "free some space" in done.stdout
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"m.edge": old}


@pytest.mark.parametrize("delay_s", [0.0, 0.003, 0.01, 0.02, 0.05])
def test_an_interrupt_leaves_a_whole_file_and_nothing_else(tmp_path: Path, delay_s: float) -> None:
    code = MAKE + (
        "make('m.edge', size=1 << 20)\nprint('ready', flush=True)\n"
        "while True:\n    make('m.edge', size=1 << 20, report={'n': 1})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        errors = process.communicate()[1]
    assert "KeyboardInterrupt" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["m.edge"]
    read_bundle(tmp_path / "m.edge")


def test_a_missing_folder_is_a_user_error(sample: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        sample.write(tmp_path / "none" / "a.edge")
