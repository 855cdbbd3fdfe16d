from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import BackendMissing, BundleError, MachineMismatch, UserError
from edgekit.runtime import load
from edgekit.runtime.tasks.classification import ClassificationResult
from edgekit.targets import Requires
from tests.runtime.engines import LABELS, SIZE, EntryPlan, color_engine, solid, write_color_bundle

ROOT = Path(__file__).resolve().parents[2]
IMPOSSIBLE = Requires(cpu_flags_any=("quantum",), reason="it would be wrong")
SLOW = Requires(cpu_flags_any=("quantum",), on_mismatch="warn", reason="it is slow")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_color_bundle(tmp_path / "colors.edge")


def label(result: Any) -> str:
    assert isinstance(result, ClassificationResult)
    return result.label


def test_a_frame_of_any_size_gives_a_typed_result(bundle: Path) -> None:
    with load(str(bundle)) as model:
        assert model.spec is not None
        assert model.entry.target == "x86-cpu"
        for color in LABELS:
            for height, width in ((20, 30), (SIZE, SIZE), (301, 7)):
                result = model(solid(color, height=height, width=width))
                assert label(result) == color
                assert result.to_dict()["score"] == pytest.approx(200)


def test_a_call_is_prepare_infer_decode(bundle: Path) -> None:
    frame = solid("green")
    with load(bundle) as model:
        feeds = model.prepare(frame)
        assert {name: (a.shape, a.dtype) for name, a in feeds.items()} == {"image": ((1, SIZE, SIZE, 3), np.uint8)}
        outputs = model.infer(feeds)
        assert outputs["logits"].shape == (1, 3)
        assert model.decode(outputs, frame.shape).to_dict() == model(frame).to_dict()


def test_a_stream_gives_results_in_order_and_lets_the_camera_reuse_its_buffer(bundle: Path) -> None:
    order = [LABELS[index] for index in np.random.default_rng(0).integers(0, 3, 50)]

    def camera() -> Iterator[np.ndarray]:
        buffer = np.empty((SIZE, SIZE, 3), np.uint8)  # the model's own size: nothing is resized
        for color in order:
            buffer[...] = solid(color, height=SIZE, width=SIZE)
            yield buffer
            buffer[...] = 255

    with load(bundle) as model:
        assert [label(result) for result in model.stream(camera())] == order
        assert list(model.stream([])) == []


def test_a_stream_that_stops_early_leaves_the_model_usable(bundle: Path) -> None:
    with load(bundle) as model:
        for _ in range(20):
            stream = model.stream(solid("red") for _ in range(10))
            assert label(next(stream)) == "red"
            stream.close()  # type: ignore[attr-defined]
        assert label(model(solid("blue"))) == "blue"


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 4), np.uint8), RuntimeError("the camera is gone")])
def test_an_error_in_the_middle_of_a_stream_comes_out_and_nothing_hangs(bundle: Path, bad: Any) -> None:
    def frames() -> Iterator[np.ndarray]:
        for _ in range(5):
            yield solid("red")
        if isinstance(bad, Exception):
            raise bad
        yield bad

    with load(bundle) as model:
        for _ in range(5):
            results: list[Any] = []
            with pytest.raises((UserError, RuntimeError), match=r"alpha|camera is gone"):
                results.extend(model.stream(frames()))
            assert {label(result) for result in results} <= {"red"}
        assert label(model(solid("green"))) == "green"


def test_closing_in_the_middle_of_a_stream_ends_it_with_an_error(bundle: Path) -> None:
    model = load(bundle)
    stream = model.stream(solid("red") for _ in range(100))
    next(stream)
    model.close()
    with pytest.raises(UserError, match="closed"):
        list(stream)
    with pytest.raises(UserError, match="closed"):
        model(solid("red"))


def test_threads_share_a_model(bundle: Path) -> None:
    colors = [LABELS[index] for index in np.random.default_rng(1).integers(0, 3, 300)]
    with load(bundle, threads=1) as model, ThreadPoolExecutor(6) as workers:
        assert [label(r) for r in workers.map(lambda color: model(solid(color)), colors)] == colors

        streams: list[list[str]] = [[] for _ in range(3)]

        def run(index: int) -> None:
            streams[index] = [label(result) for result in model.stream(solid(color) for color in colors)]

        runners = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(3)]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join(timeout=60)
        assert streams == [colors] * 3


def test_a_frame_that_is_none_is_refused_with_what_was_expected(bundle: Path) -> None:
    with load(bundle) as model, pytest.raises(UserError, match="frame: expected uint8") as caught:
        model(solid("red").astype(np.float32))
    assert "got float32 (20, 30, 3)" in caught.value.message


def test_without_a_task_only_infer_works(tmp_path: Path) -> None:
    with load(write_color_bundle(tmp_path / "raw.edge", task=None)) as model:
        assert model.spec is None
        image = solid("red", height=SIZE, width=SIZE)[None]
        np.testing.assert_allclose(model.infer({"image": image})["logits"], [[0, 0, 200]], rtol=1e-5)
        for call in (lambda: model(image[0]), lambda: list(model.stream([image[0]])), lambda: model.prepare(image[0])):
            with pytest.raises(UserError, match="has no task"):
                call()


def test_gray_frames_and_gray_models(tmp_path: Path) -> None:
    task = {
        "task": "classification",
        "labels": ["gray"],
        "activation": "none",
        "input": {"size": [SIZE, SIZE], "channels": 1, "color": "gray", "mean": [0.0], "std": [1.0]},
    }
    path = write_color_bundle(tmp_path / "gray.edge", EntryPlan(engine=color_engine(channels=1)), task=task)
    with load(path) as model:
        for frame in (np.full((9, 13), 77, np.uint8), np.full((9, 13, 3), 77, np.uint8)):
            assert model(frame).to_dict()["score"] == pytest.approx(77)


def test_the_task_must_fit_the_engine(tmp_path: Path) -> None:
    task = {"task": "classification", "labels": ["a"], "input": {"size": [9, 8]}}
    with pytest.raises(BundleError, match=r"wants one input 'image' uint8 \(1, 9, 8, 3\), the engine takes"):
        load(write_color_bundle(tmp_path / "b.edge", task=task))
    task = {"task": "levitation", "labels": ["a"], "input": {"size": [SIZE, SIZE]}}
    with pytest.raises(UserError, match="unknown task 'levitation'"):
        load(write_color_bundle(tmp_path / "c.edge", task=task))


def test_a_dynamic_batch_engine_serves_single_frames(tmp_path: Path) -> None:
    path = write_color_bundle(tmp_path / "d.edge", EntryPlan(engine=color_engine(batch=None)))
    with load(path) as model:
        assert label(model(solid("green"))) == "green"
        batch = np.stack([solid(color, height=SIZE, width=SIZE) for color in LABELS])
        assert model.infer({"image": batch})["logits"].argmax(1).tolist() == [0, 1, 2]


def test_an_engine_that_misses_its_golden_outputs_is_refused(tmp_path: Path) -> None:
    path = write_color_bundle(tmp_path / "off.edge", EntryPlan(golden_offset=5.0))
    with pytest.raises(MachineMismatch, match=r"'logits': relative L2 error 0\.0\d+ .*at most 0.001") as caught:
        load(path)
    assert "self-test" in caught.value.message
    with load(path, self_test=False) as model:
        assert label(model(solid("red"))) == "red"


def test_the_first_entry_that_fits_without_a_warning_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    path = write_color_bundle(
        tmp_path / "many.edge",
        EntryPlan(target="jetson-orin-nano", engine=None, kind="tensorrt-plan"),
        EntryPlan(target="x86-cpu", requires=IMPOSSIBLE),
        EntryPlan(target="intel-npu", requires=SLOW),
        EntryPlan(target="x86-cpu-legacy"),
        EntryPlan(target="arm-cpu"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with load(path) as model:
            assert model.entry.target == "x86-cpu-legacy"
        with load(path, target="arm-cpu") as model:
            assert model.entry.target == "arm-cpu"
    with pytest.warns(RuntimeWarning, match=r"intel-npu: it needs a CPU with quantum.*it is slow"):
        load(path, target="intel-npu").close()
    with pytest.raises(MachineMismatch, match=r"x86-cpu \(fp32\): it needs a CPU with quantum.*it would be wrong"):
        load(path, target="x86-cpu")
    with pytest.raises(BackendMissing, match=r"jetson-orin-nano \(fp32\): TensorRT is not installed"):
        load(path, target="jetson")
    with pytest.raises(UserError, match="holds nothing for target 'rtx', only for arm-cpu, intel-npu"):
        load(path, target="rtx")
    with pytest.raises(UserError) as caught:
        load(path, target="arm-cp")
    assert caught.value.hint == "did you mean 'arm-cpu'?"


def test_a_warning_is_better_than_nothing(tmp_path: Path) -> None:
    path = write_color_bundle(
        tmp_path / "w.edge", EntryPlan(requires=IMPOSSIBLE), EntryPlan(target="intel-npu", requires=SLOW)
    )
    with pytest.warns(RuntimeWarning, match="quantum"), load(path) as model:
        assert model.entry.target == "intel-npu"


def test_when_nothing_fits_each_entry_says_why(tmp_path: Path) -> None:
    path = write_color_bundle(
        tmp_path / "none.edge",
        EntryPlan(target="jetson-orin-nano", requires=Requires(arch=("vax",)), engine=None, kind="tensorrt-plan"),
        EntryPlan(target="arm-cpu", requires=Requires(arch=("vax",))),
        EntryPlan(target="intel-gpu", requires=Requires(device="FPGA")),
    )
    with pytest.raises(MachineMismatch) as caught:
        load(path)
    text = caught.value.message
    assert f"jetson-orin-nano (fp32): it is made for vax, this machine is {platform.machine()}" in text
    assert f"arm-cpu (fp32): it is made for vax, this machine is {platform.machine()}" in text
    assert "intel-gpu (fp32): OpenVINO finds no FPGA here, only CPU" in text
    assert caught.value.exit_code == 2


def test_a_missing_library_has_its_own_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    path = write_color_bundle(tmp_path / "plan.edge", EntryPlan(target="rtx", kind="tensorrt-rtx-plan"))
    with pytest.raises(BackendMissing, match="TensorRT-RTX is not installed; engines of kind") as caught:
        load(path)
    assert caught.value.exit_code == 5
    assert caught.value.hint == "install it: pip install 'edgekit[rtx]'"
    assert len(caught.value.message.splitlines()) == 1


def test_a_damaged_bundle_is_refused_before_any_engine_library_is_loaded(bundle: Path) -> None:
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(bytes(data))
    code = (
        "import sys\nfrom edgekit.errors import BundleError\nfrom edgekit.runtime import load\n"
        f"try: load({str(bundle)!r})\nexcept BundleError: print('openvino' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr
    with pytest.raises(BundleError, match="missing"):
        load(bundle.parent / "missing.edge")


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="about x86 instruction sets")
def test_under_a_cap_without_vnni_an_entry_that_needs_it_is_refused_or_warned_about(tmp_path: Path) -> None:
    vnni = ("avx512_vnni", "avx_vnni", "amx_int8")
    wrong = write_color_bundle(
        tmp_path / "wrong.edge",
        EntryPlan(requires=Requires(cpu_flags_any=vnni, on_mismatch="refuse", reason="sums saturate")),
        EntryPlan(target="x86-cpu-legacy"),
    )
    slow = write_color_bundle(
        tmp_path / "slow.edge", EntryPlan(requires=Requires(cpu_flags_any=vnni, on_mismatch="warn", reason="slow"))
    )
    code = (
        "import warnings\nfrom edgekit.errors import MachineMismatch\nfrom edgekit.runtime import load\n"
        f"with load({str(wrong)!r}) as model: print(model.entry.target)\n"
        f"try: load({str(wrong)!r}, target='x86-cpu')\nexcept MachineMismatch as error: print(error.message)\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        f"    load({str(slow)!r}).close()\n"
        "print(seen[0].category.__name__, seen[0].message)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "x86-cpu-legacy"
    has_vnni = not set(vnni).isdisjoint(Path("/proc/cpuinfo").read_text().split())
    lacks = "ONEDNN_MAX_CPU_ISA=AVX2 hides it here" if has_vnni else "this one has none of them"
    assert f"{lacks} (sums saturate)" in done.stdout
    assert lines[-1].startswith("RuntimeWarning")
    assert "x86-cpu: it needs a CPU with" in lines[-1]


def test_importing_the_runtime_loads_no_inference_library() -> None:
    code = (
        "import sys, edgekit.runtime\nassert 'cv2' not in sys.modules\n"
        "edgekit.runtime.load\n"
        "print([name for name in ('openvino', 'torch', 'onnx', 'tensorrt') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_bundle_of_the_previous_format_loads_and_passes_its_self_test() -> None:
    recorded = Path(__file__).parents[1] / "bundle" / "recorded" / "format-1.0.edge"
    with load(recorded, target="x86-cpu", threads=1) as model:
        assert model.bundle.manifest.format == (1, 0)
        image = np.full((1, 2, 2, 3), 7, np.uint8)
        np.testing.assert_allclose(model.infer({"image": image})["scores"], [[7.0, 7.0, 7.0]])
