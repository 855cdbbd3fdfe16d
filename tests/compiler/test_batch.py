"""``--batch``: each target takes the sizes that were asked for, or the compilation says that it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import edgekit
from edgekit.backends.batch import parse_batch
from edgekit.bundle import Bundle, Entry, read_bundle
from edgekit.compiler import CompileOptions, CompileReport
from edgekit.compiler.inputs import gather
from edgekit.errors import ConfigError, StageError, UserError
from edgekit.runtime import load
from edgekit.runtime.tensorrt import TENSORRT_RTX
from edgekit.runtime.tensorrt.building import is_installed
from edgekit.targets import load_target
from tests.compiler.world import World

with_builder = pytest.mark.skipif(not is_installed(TENSORRT_RTX), reason="tensorrt-rtx is not installed")
SIZES = (1, 4, 16)


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> CompileReport:
    """One network for a CPU and a board, in every precision, for one to sixteen images."""
    return edgekit.compile(
        world.net, target=["x86-cpu-legacy", "jetson"], task=world.task, data=world.data, samples=40, batch="1/4/16",
        precision="int8", timing=False, output=tmp_path_factory.mktemp("batch") / "m.edge", threads=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(made: CompileReport) -> Bundle:
    return read_bundle(made.output)


def images(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), np.uint8)


def entry_of(bundle: Bundle, target: str) -> Entry:
    return next(entry for entry in bundle.manifest.entries if entry.target == target)


@pytest.mark.parametrize("target", ["x86-cpu-legacy", "jetson-orin-nano"])
def test_onnx_runtime_runs_the_portable_graph_at_every_size(bundle: Bundle, target: str) -> None:
    entry = entry_of(bundle, target)
    assert entry.inputs[0].shape == (None, 16, 16, 3)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(bundle.read(entry.graph), options, providers=["CPUExecutionProvider"])
    for size in SIZES:
        batch = images(size)
        (together,) = session.run(None, {"image": batch})
        assert together.shape == (size, 4)
        single = np.concatenate([session.run(None, {"image": image[None]})[0] for image in batch])
        np.testing.assert_allclose(together, single, rtol=1e-3, atol=1e-3)


def test_the_portable_graph_leaves_the_batch_open(bundle: Bundle) -> None:
    graph = onnx.load_from_string(bundle.read(entry_of(bundle, "jetson-orin-nano").graph)).graph
    first, second = (item.type.tensor_type.shape.dim[0].dim_param for item in (*graph.input, *graph.output))
    assert first == second != ""


def test_the_device_gets_the_profile_and_not_the_target_s(bundle: Bundle) -> None:
    assert entry_of(bundle, "jetson-orin-nano").options["batch"] == [1, 4, 16]
    assert load_target("jetson").engine.get("batch") is None


def test_openvino_takes_up_to_the_largest_and_refuses_more(made: CompileReport) -> None:
    with load(made.output, target="x86-cpu-legacy", threads=1) as model:
        for size in SIZES:
            batch = images(size)
            (together,) = model.infer({"image": batch}).values()
            single = [next(iter(model.infer({"image": image[None]}).values())) for image in batch]
            np.testing.assert_allclose(together, np.concatenate(single), rtol=1e-4, atol=1e-4)
        for refused in (model.session.infer, model.session.submit):
            with pytest.raises(UserError, match="'image': a batch of 17; the engine was built for at most 16"):
                refused({"image": images(17)})


def test_what_openvino_cannot_do_is_a_finding(made: CompileReport) -> None:
    finding = "OpenVINO has no best batch size: of batch 1/4/16 it keeps the largest alone"
    assert made.targets[0].candidates[0].findings == (finding,)
    assert f"x86-cpu-legacy: {finding}" in made.warnings
    assert not any("batch" in line for line in made.targets[1].candidates[0].findings)


def test_it_is_in_the_bundle_s_history(bundle: Bundle) -> None:
    (record,) = [item for item in bundle.report()["history"]["float"] if item["stage"] == "batch"]
    assert record["details"] == {"smallest": 1, "best": 4, "largest": 16}
    assert record["summary"] == "engines take up to 16 images at once and are tuned for 4, as asked for"


@with_builder
def test_tensorrt_rtx_builds_with_the_profile(world: World, tmp_path: Path) -> None:
    report = edgekit.compile(
        world.net, target="rtx", task=world.task, data=world.data, samples=40, batch=8, precision="int8",
        output=tmp_path / "m.edge", threads=1,
    )  # fmt: skip
    bundle = read_bundle(report.output)
    (entry,) = bundle.manifest.entries
    assert entry.options["batch"] == [1, 8, 8]
    assert entry.inputs[0].shape == (None, 16, 16, 3)
    assert entry.engine is not None
    assert len(bundle.engine_files(entry.engine)["plan"]) == report.targets[0].candidates[0].engine_bytes > 0


def test_the_command_line_overrides_the_target(world: World, tmp_path: Path) -> None:
    target = tmp_path / "mine.toml"
    original = (Path(edgekit.__file__).parents[1] / "targets" / "nvidia-gpu.toml").read_text()
    target.write_text(
        original.replace('name = "nvidia-gpu"', 'name = "mine"').replace("[engine]", "[engine]\nbatch = [1, 2, 32]")
    )
    for options, sizes in (({"dynamic_batch": True}, [1, 2, 32]), ({"batch": (1, 4, 16)}, [1, 4, 16])):
        report = edgekit.compile(
            world.net, target=target, task=world.task, precision="fp16", output=tmp_path / "m.edge", threads=1,
            **options,
        )  # fmt: skip
        (entry,) = read_bundle(report.output).manifest.entries
        assert (entry.options["batch"], entry.inputs[0].shape[0]) == (sizes, None)


def test_a_batch_of_one_is_an_engine_for_one_image(world: World, tmp_path: Path) -> None:
    report = edgekit.compile(
        world.net, target=["x86-cpu-legacy", "intel-npu"], task=world.task, precision="auto", batch="1", timing=False,
        output=tmp_path / "m.edge", threads=1,
    )  # fmt: skip
    assert {entry.inputs[0].shape[0] for entry in read_bundle(report.output).manifest.entries} == {1}


def test_a_target_that_takes_one_batch_size_says_so_before_the_long_work(world: World) -> None:
    options = CompileOptions(
        targets=("x86-cpu", "intel-npu"), task=world.task, data=world.data, batch=parse_batch("1/4/16")
    )
    with pytest.raises(ConfigError, match="target 'intel-npu': engine: batch: OpenVINO's NPU takes") as caught:
        gather(options)
    assert "got 1/4/16" in caught.value.message
    assert "without --batch" in str(caught.value.hint)


def test_any_number_of_images_is_not_for_the_npu_either(world: World, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="Input 'image': a dynamic batch: OpenVINO's NPU takes engines of one batch"):
        edgekit.compile(
            world.net, target="intel-npu", task=world.task, precision="fp16", dynamic_batch=True,
            output=tmp_path / "m.edge",
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_both_ways_to_say_it_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="batch 1/8/8 and dynamic_batch exclude each other"):
        CompileOptions(batch=parse_batch("8"), dynamic_batch=True)
