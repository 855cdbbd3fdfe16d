"""Each gate lets the right engines pass and stops the wrong ones, with the numbers, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch
from torch import nn

import edgekit
from edgekit.backends.base import Engine, PortableGraph
from edgekit.backends.openvino.backend import OpenVinoBackend
from edgekit.bundle import read_bundle
from edgekit.compiler import CompileOptions
from edgekit.compiler.candidates import Candidate
from edgekit.compiler.gates import accuracy_of, golden_gate
from edgekit.compiler.records import CandidateReport
from edgekit.errors import GateFailed, StageError
from edgekit.runtime.session import Session
from edgekit.targets import load_target
from edgekit.tasks import MetricReport
from tests.compiler.world import HERE, Changed, World, Wrapped, compile_with
from tests.conformance.goldens import GOLDENS
from tests.conformance.graphs import Golden, Scheme
from tests.conformance.reference import reference_outputs
from tests.networks import LABELS, folded


def options(world: World, output: Path, **changes: object) -> CompileOptions:
    return CompileOptions(
        **{  # type: ignore[arg-type]
            "targets": (HERE,),
            "task": world.task,
            "data": world.data,
            "samples": 40,
            "output": output,
            "threads": 1,
            "timing": False,
            **changes,
        }
    )


def damaged(graph: PortableGraph) -> PortableGraph:
    """Negates the int8 weights, which leaves a valid engine that answers otherwise."""
    model = onnx.load_from_string(graph.data)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and tensor.name.endswith("_quantized"):
            tensor.raw_data = np.negative(onnx.numpy_helper.to_array(tensor)).tobytes()
    return replace(graph, data=model.SerializeToString(deterministic=True))


def is_int8(engine: Engine) -> bool:
    """Whether the engine computes in int8, told by what stands for Q/DQ pairs in its file."""
    return b'"u8"' in engine.files["xml"] and b"FakeQuantize" in engine.files["xml"]


def on_int8(hook: Callable[[Session], Session]) -> Callable[[Session, Engine], Session]:
    return lambda session, engine: hook(session) if is_int8(engine) else session


def test_an_engine_that_disagrees_is_rejected_and_float_ships(world: World, tmp_path: Path) -> None:
    report = compile_with(
        lambda inner: Wrapped(inner=inner, given=damaged), world.net, options(world, tmp_path / "m.edge")
    )
    (target,) = report.targets
    int8 = target.candidate("int8")
    assert int8.status == "rejected"
    assert "the engine disagrees with the program: output" in int8.reason
    assert "relative L2 error" in int8.reason
    assert int8.accuracy is None, "a wrong engine is not evaluated"
    assert target.shipped in (("bf16",), ("fp32",))
    assert any(line.startswith(f"{HERE}: int8 was rejected: the engine disagrees") for line in report.warnings)
    assert [entry.precision for entry in read_bundle(report.output).manifest.entries] == [*target.shipped]


def test_a_forced_precision_that_fails_is_an_error_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    output = tmp_path / "m.edge"
    with pytest.raises(GateFailed, match=r"no candidate passed its gates\n  int8: the engine disagrees") as caught:
        compile_with(
            lambda inner: Wrapped(inner=inner, given=damaged), world.net, options(world, output, precision="int8")
        )
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_an_engine_of_another_shape_is_rejected(world: World, tmp_path: Path) -> None:
    hook = on_int8(lambda session: Changed(session, change=lambda array: array[:, :2]))
    report = compile_with(
        lambda inner: Wrapped(inner=inner, opened=hook), world.net, options(world, tmp_path / "m.edge")
    )
    assert report.targets[0].candidate("int8").status == "rejected"
    assert "expected shape (1, 4), the engine gave (1, 2)" in report.targets[0].candidate("int8").reason


def test_an_engine_that_does_not_open_is_a_failed_candidate(world: World, tmp_path: Path) -> None:
    def refuse(session: Session, engine: Engine) -> Session:
        if is_int8(engine):
            session.close()
            raise StageError("no kernel for node 'stem'")
        return session

    report = compile_with(
        lambda inner: Wrapped(inner=inner, opened=refuse), world.net, options(world, tmp_path / "m.edge")
    )
    candidate = report.targets[0].candidate("int8")
    assert (candidate.status, candidate.reason) == ("failed", "the engine does not open: no kernel for node 'stem'")
    assert report.targets[0].shipped != ("int8",)


def test_an_engine_that_answers_nan_is_rejected(world: World, tmp_path: Path) -> None:
    hook = on_int8(lambda session: Changed(session, change=lambda array: array * np.nan))
    report = compile_with(
        lambda inner: Wrapped(inner=inner, opened=hook), world.net, options(world, tmp_path / "m.edge")
    )
    assert report.targets[0].candidate("int8").status == "rejected"
    assert "relative L2 error inf" in report.targets[0].candidate("int8").reason


def test_int8_slower_than_float_is_rejected_with_ratio_and_interval(world: World, tmp_path: Path) -> None:
    hook = on_int8(lambda session: Changed(session, wait_s=0.002))
    report = compile_with(
        lambda inner: Wrapped(inner=inner, opened=hook), world.net, options(world, tmp_path / "m.edge", timing=True)
    )
    (target,) = report.targets
    int8 = target.candidate("int8")
    assert int8.status == "rejected"
    assert int8.latency is not None
    ratio = int8.latency.ratio_to_float
    assert ratio is not None
    assert ratio.low > 1.0
    assert f"time ratio {ratio.estimate:.3f} (95 % interval {ratio.low:.3f} to {ratio.high:.3f})" in int8.reason
    assert target.shipped != ("int8",)
    assert target.latency == "measured"


def test_float_slower_than_int8_is_passed_over(world: World, tmp_path: Path) -> None:
    def slow_floats(session: Session, engine: Engine) -> Session:
        return session if is_int8(engine) else Changed(session, wait_s=0.002)

    report = compile_with(
        lambda inner: Wrapped(inner=inner, opened=slow_floats),
        world.net,
        options(world, tmp_path / "m.edge", timing=True),
    )
    (target,) = report.targets
    assert target.shipped == ("int8",)
    assert "is the fastest here" in target.why
    assert {item.reason for item in target.candidates} == {"passed every gate", "passed every gate; int8 ships"}


class Unbalanced(nn.Module):
    """Knows its colours in float; in int8, channels a thousand times apart share one activation range and most vanish.

    The depthwise layer divides by the scales, so float does not notice them.
    """

    def __init__(self) -> None:
        super().__init__()
        scales = torch.logspace(0, 6, 12)[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
        self.spread = nn.Conv2d(3, 12, 1)
        self.gather = nn.Conv2d(12, 12, 1, groups=12, bias=False)
        self.head = nn.Linear(12, len(LABELS))
        with torch.no_grad():
            self.spread.weight.copy_(torch.eye(3).repeat(4, 1).reshape(12, 3, 1, 1) * scales.reshape(12, 1, 1, 1))
            self.spread.bias.copy_(2.5 * scales)
            self.gather.weight.copy_((1 / scales).reshape(12, 1, 1, 1))
            # The answer rests on the channels of the smallest scale of each colour.
            self.head.weight.zero_()
            self.head.bias.zero_()
            for color in range(3):
                smallest = min(range(color, 12, 3), key=lambda channel: float(scales[channel]))
                self.head.weight[color, smallest] = 1.0
            self.head.weight[3] = self.head.weight[:3].sum(0) / 3
            self.head.bias[3] = 0.55

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gather(torch.relu(self.spread(x))).mean((2, 3)))


def test_int8_that_ruins_the_accuracy_is_rejected_with_the_numbers(world: World, tmp_path: Path) -> None:
    report = edgekit.compile(
        Unbalanced().eval(),
        target=HERE,
        task=world.task,
        data=world.data,
        recipe="fast",  # the others repair this network
        samples=40,
        timing=False,
        output=tmp_path / "m.edge",
    )
    assert report.float_accuracy is not None
    assert report.float_accuracy.value > 0.9
    (target,) = report.targets
    int8 = target.candidate("int8")
    assert int8.status == "rejected"
    assert int8.accuracy is not None
    assert int8.accuracy.drop is not None
    assert int8.accuracy.drop.estimate > 10
    assert f"top1 drops by {int8.accuracy.drop.estimate:.2f} points (95 % interval" in int8.reason
    assert "at most 1.00 allowed" in int8.reason
    assert target.shipped != ("int8",)
    with pytest.raises(GateFailed, match="int8: top1 drops by") as caught:
        edgekit.compile(
            Unbalanced().eval(),
            target=HERE,
            task=world.task,
            data=world.data,
            recipe="fast",
            samples=40,
            precision="int8",
            output=tmp_path / "forced.edge",
        )
    assert caught.value.hint is not None
    assert "--max-drop" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["m.edge"]


class Raw(Changed):
    """Answers with what OpenVINO makes of the ONNX file as it is, without the backend's clean-up."""

    def __init__(self, inner: Session, graph: PortableGraph) -> None:
        super().__init__(inner)
        core = openvino.Core()
        self._raw = core.compile_model(core.read_model(graph.data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        return {port.get_any_name(): value.copy() for port, value in self._raw(dict(feeds)).items()}


@pytest.mark.parametrize(("raw", "status"), [(True, "rejected"), (False, "passed")])
def test_a_backend_s_wrong_kernel_is_caught(raw: bool, status: str) -> None:
    """OpenVINO computes a concatenation of signed int8 pairs wrongly; tests/conformance has the case."""
    golden = next(item for item in GOLDENS if item.name == "concat_tied")
    graph = golden.portable(Scheme(activations="int8", weight_bits=load_target(HERE).quantize.weight_bits))
    candidate, engine, images = conformance_candidate(golden, graph)
    with OpenVinoBackend().open(engine, threads=1) as session:
        checked = golden_gate(candidate, Raw(session, graph) if raw else session, images)
    assert checked.report.status == status
    assert ("the engine disagrees with the program" in checked.report.reason) == (status == "rejected")
    assert checked.report.golden_limit == candidate.golden_limit
    assert any(layer.precision == "int8" for layer in checked.report.layers)


def conformance_candidate(golden: Golden, graph: PortableGraph) -> tuple[Candidate, Engine, dict[str, Any]]:
    images = {"image": golden.images()}
    engine = OpenVinoBackend().build(graph, load_target(HERE))
    candidate = Candidate(
        precision="int8",
        program=folded("residual"),
        graph=graph,
        engine=engine,
        options=engine.options,
        golden=reference_outputs(graph.data, images),
        golden_limit=0.1,
        report=CandidateReport(precision="int8", status="passed", reason=""),
    )
    return candidate, engine, images


def test_a_layer_that_runs_otherwise_than_planned_is_a_finding() -> None:
    golden = next(item for item in GOLDENS if item.name == "concat_tied")
    graph = replace(golden.portable(Scheme(activations="float")), precision="fp32", quantized_layers=("nowhere",))
    candidate, engine, images = conformance_candidate(golden, graph)
    with OpenVinoBackend().open(engine, threads=1) as session:
        checked = golden_gate(candidate, session, images)
    assert checked.report.status == "passed"
    assert checked.report.findings == ("1 of 1 layers planned int8 ran otherwise: nowhere",)


def test_a_drop_is_measured_image_by_image() -> None:
    def report(right: list[float]) -> MetricReport:
        return MetricReport(
            name="top1", value=sum(right) / len(right), samples=len(right), per_class={}, per_sample=tuple(right)
        )

    reference, worse = report([1.0] * 99 + [0.0]), report([1.0] * 95 + [0.0] * 4 + [1.0])
    accuracy = accuracy_of(worse, reference, simulated=False)
    assert accuracy.drop is not None
    assert accuracy.drop.estimate == pytest.approx(3.0)
    assert accuracy.drop.low < 3.0 < accuracy.drop.high
    assert (accuracy.kind, accuracy.samples) == ("measured", 100)
    assert accuracy_of(reference, None, simulated=True).drop is None
