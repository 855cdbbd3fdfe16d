"""``edgekit build`` and ``load`` where the device builds: a pretended GPU, and a stand-in for the builder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgekit
from edgekit.bench.build import BuildReport, build_here
from edgekit.cli.main import main
from edgekit.errors import BackendMissing, StageError, UserError
from edgekit.progress import SilentProgress
from edgekit.runtime import load
from edgekit.runtime.tensorrt import TENSORRT
from edgekit.runtime.tensorrt.engines import machine_facts
from edgekit.runtime.tensorrt.learned import LearnedCache
from tests.compiler.world import World, make_world
from tests.runtime.nvidia import Gpu, bindings, install
from tests.runtime.pretended_tensorrt import stand_in_builder, tensorrt

ROOT = Path(__file__).resolve().parents[2]
VERSION = "10.3.0"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device")
    world: World = make_world(folder)
    report = edgekit.compile(
        world.net,
        task=world.task,
        data=world.data,
        target="nvidia-gpu",
        samples=40,
        output=folder / "m.edge",
        timing=False,
    )
    return Path(report.output)


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    made = Gpu()
    install(monkeypatch, {"pycuda": None, **bindings(made), **tensorrt(made, "tensorrt", None, version=VERSION)})
    stand_in_builder(tmp_path, "tensorrt")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds.txt"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


def builds(folder: Path) -> list[int]:
    path = folder / "builds.txt"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def built(bundle: Path, **keys: object) -> BuildReport:
    return build_here(bundle, target=None, trust_plan=False, cache_dir=None, progress=SilentProgress(), **keys)  # type: ignore[arg-type]


def test_every_candidate_is_built_checked_timed_and_the_fastest_taken(gpu: Gpu, bundle: Path, tmp_path: Path) -> None:
    report = built(bundle)
    assert [item.precision for item in report.entries] == ["int8", "fp16"]
    for item in report.entries:
        assert item.status in ("chosen", "passed")
        assert item.why_built == "it was not built here before"
        assert item.p50_ms is not None
        assert item.golden
    assert report.machine["library"] == f"TensorRT {VERSION}"
    assert len(builds(tmp_path)) == 2
    again = built(bundle)
    assert [item.why_built for item in again.entries] == ["", ""]
    assert len(builds(tmp_path)) == 2
    assert (gpu.live, gpu.retained) == ({}, 0)


def test_the_choice_is_what_load_takes_until_the_machine_changes(
    gpu: Gpu, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(bundle) as model:
        assert model.entry.precision == "int8"
    monkeypatch.setenv("SLOW_INT8", "1")
    report = built(bundle)
    assert report.chosen == "fp16"
    assert [item.status for item in report.entries] == ["passed", "chosen"]
    with load(bundle) as model:
        assert model.entry.precision == "fp16"
    sys.modules["cuda.bindings.driver"].cuDriverGetVersion = lambda: (0, 13020)  # type: ignore[attr-defined]
    assert len(builds(tmp_path)) == 2
    with load(bundle) as model:
        assert model.entry.precision == "int8"
    assert len(builds(tmp_path)) == 3
    assert "driver was 13.1, is 13.2" in built(bundle).entries[1].why_built


def known(folder: Path) -> list[int]:
    """The graphs that the timing cache of the last build knew, by their sizes."""
    found: list[int] = json.loads((folder / "builds.known").read_text())
    return found


def timings(folder: Path) -> Path:
    (found,) = (folder / "cache" / "edgekit" / "tensorrt" / "timings").glob("*.learned")
    return found


def test_timings_of_kernels_go_from_one_build_to_the_next(
    gpu: Gpu, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(bundle)
    assert len(known(tmp_path)) == 1
    for engine in (tmp_path / "cache").rglob("*.engine"):
        engine.unlink()
    report = built(bundle)
    assert len(known(tmp_path)) == 3
    assert [item.why_built for item in report.entries] == ["it was not built here before"] * 2
    sys.modules["cuda.bindings.driver"].cuDriverGetVersion = lambda: (0, 13020)  # type: ignore[attr-defined]
    load(bundle).close()
    assert known(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "its content is not what was written"),
        (b"no timing cache", "Failed to deserialize timing cache"),
        (b'["another GPU"]', "the timing cache is of another GPU"),
    ],
)
def test_an_unusable_timing_cache_is_dropped_with_the_reason(
    gpu: Gpu, bundle: Path, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is None:
        load(bundle).close()
        timings(tmp_path).write_bytes(timings(tmp_path).read_bytes()[:-1])
        next((tmp_path / "cache").rglob("*.engine")).unlink()
    else:
        folder = tmp_path / "cache" / "edgekit" / "tensorrt" / "timings"
        LearnedCache(folder, limit_bytes=1000).keep(machine_facts(TENSORRT), content)
    report = built(bundle)
    assert reason in report.entries[0].why_built
    assert "timed anew" in report.entries[0].why_built
    assert report.entries[1].why_built == "it was not built here before"
    assert len(known(tmp_path)) == 1


def test_engines_and_choice_may_be_kept_elsewhere(
    gpu: Gpu, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW_INT8", "1")
    folder = tmp_path / "elsewhere"
    progress = SilentProgress()
    report = build_here(bundle, target="nvidia-gpu", trust_plan=False, cache_dir=folder, progress=progress)
    assert report.chosen == "fp16"
    with load(bundle, cache_dir=folder, build=False) as model:
        assert model.entry.precision == "fp16"
    assert not (tmp_path / "cache").exists()


def test_an_engine_that_answers_wrongly_is_not_chosen(gpu: Gpu, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRONG_INT8", "1")
    report = built(bundle)
    assert report.chosen == "fp16"
    assert report.entries[0].status == "failed"
    assert "fails its self-test" in report.entries[0].reason


def test_load_builds_nothing_where_it_is_told_so(gpu: Gpu, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no engine for this machine .* was built from this graph yet") as caught:
        load(bundle, build=False)
    assert "edgekit build" in str(caught.value.hint)
    assert builds(tmp_path) == []


def test_short_memory_is_met_with_less_workspace(
    gpu: Gpu, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKSPACE_MIB", "2048")
    load(bundle).close()
    assert builds(tmp_path) == [4096, 2048]
    monkeypatch.setenv("WORKSPACE_MIB", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(StageError, match="tried again with a workspace of 2048 MiB and level 2, then 1024 MiB"):
        load(bundle)


LOAD = """
import sys
import pytest
from edgekit.runtime import load
from tests.runtime.nvidia import Gpu, bindings, install
from tests.runtime.pretended_tensorrt import tensorrt
gpu = Gpu()
install(pytest.MonkeyPatch(), {"pycuda": None, **bindings(gpu), **tensorrt(gpu, "tensorrt", None, version="10.3.0")})
with load(sys.argv[1]) as model:
    print(model.entry.precision)
"""


def test_two_processes_that_load_one_bundle_build_once(gpu: Gpu, bundle: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "BUILD_SECONDS": "2", "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    # The stand-in must not be found by the loading processes themselves, which pretend the library in memory.
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD, str(bundle)],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert out.split() == ["int8"], err
    assert len(builds(tmp_path)) == 1


def test_the_verb_says_what_it_chose(gpu: Gpu, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(bundle), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "edgekit.build/1"
    assert document["target"] == "nvidia-gpu"
    assert {item["status"] for item in document["entries"]} == {"chosen", "passed"}
    assert main(["build", str(bundle)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^nvidia-gpu: (int8|fp16) is used on this machine from now on$", out, re.M)
    assert "Pretended GPU" in out


def test_without_a_gpu_the_verb_ends_with_the_code_of_a_missing_backend(
    gpu: Gpu, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.count = 0
    assert main(["build", str(bundle)]) == 5
    err = capsys.readouterr().err
    assert err.splitlines()[0] == (
        f"error: {bundle}: nothing in it runs on this machine: nvidia-gpu (int8, fp16): the NVIDIA driver finds no GPU"
    )
    with pytest.raises(BackendMissing):
        load(bundle)
