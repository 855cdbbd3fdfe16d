"""fp16 with fp32 for what it hurts: the whole program, the exported graph, the candidate and its report."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

import edgekit
from edgekit.backends import get_backend
from edgekit.backends.base import Backend, Engine, PortableGraph, Rehearsal, Verdict
from edgekit.bundle import read_bundle
from edgekit.compiler.candidates import Candidate, Failure, build_candidate
from edgekit.compiler.derived import Derived
from edgekit.compiler.golden import golden_inputs
from edgekit.compiler.halving import Halved, halve
from edgekit.compiler.records import CandidateReport, HalfReport, KeptFloat, TargetReport
from edgekit.compiler.text import target_text
from edgekit.compiler.warn import target_warnings
from edgekit.config import to_dict
from edgekit.errors import StageError
from edgekit.frontend import load_program
from edgekit.passes import run_passes
from edgekit.passes.fold import FoldBatchNorm
from edgekit.passes.half import ToHalf
from edgekit.program import Program
from edgekit.targets import Target, load_target
from tests.compiler.world import SPEC, Wrapped
from tests.half_networks import HURT, folded_module, hurt
from tests.networks import CONTEXT, NETWORKS, folded
from tests.passes.test_quantize import INT8, quantized

LIMIT = 0.01
RTX = load_target("rtx")
with_builder = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs TensorRT for RTX")


def derived(program: Program) -> Derived:
    golden = golden_inputs(program, count=3, seed=0)
    return Derived(floating=program, golden=golden, evaluation=None, dynamic_batch=False, context=CONTEXT)


def halved(program: Program, limit: float = LIMIT) -> Halved:
    return derived(program).half(program, limit=limit, node_limit=LIMIT)


def kept(report: HalfReport | None) -> tuple[str, ...]:
    assert report is not None
    return tuple(item.layer if item.operator in ("conv2d", "linear") else item.operator for item in report.kept)


def stated_answers(graph: PortableGraph, golden: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """What ONNX's reference evaluator answers: numpy in the very types that the graph states, sums included."""
    evaluator = ReferenceEvaluator(onnx.load_from_string(graph.data))
    rows = [{name: array[index : index + 1] for name, array in golden.items()} for index in range(3)]
    return np.concatenate([evaluator.run(None, row)[0] for row in rows])


def plain_answers(graph: PortableGraph, golden: Mapping[str, Any]) -> list[np.ndarray[Any, Any]]:
    """What ONNX Runtime answers with every optimization off, one sample at a time."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.data, options)
    count = len(next(iter(golden.values())))
    return [
        session.run(None, {name: array[index : index + 1] for name, array in golden.items()})[0]
        for index in range(count)
    ]


def relative(expected: Any, actual: Any) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


class Pretending(Wrapped):
    """The real rules, and a builder that takes every graph: for machines without one."""

    def build(self, graph: PortableGraph, target: Target) -> Engine:
        return Engine(kind="pretended", files={}, options={}, inputs=graph.inputs, outputs=graph.outputs)


@pytest.mark.parametrize("name", HURT)
def test_exactly_what_half_hurts_stays_fp32_and_the_program_agrees(name: str) -> None:
    program = hurt(name)
    result = halved(program)
    assert kept(result.report) == HURT[name][1]
    assert result.report.distance <= LIMIT
    assert result.report.rounds == 0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of what overflows
@pytest.mark.parametrize("name", HURT)
def test_all_of_it_in_half_fails_where_the_graph_is_run_in_the_types_that_it_states(name: str) -> None:
    program = hurt(name)
    source = derived(program)
    expected = source.answers(program)["output"]
    whole = source.graph(run_passes(program, [ToHalf()], CONTEXT), RTX.portable, "fp16")
    assert not relative(expected, stated_answers(whole, source.golden)) <= LIMIT
    graph = source.graph(halved(program).program, RTX.portable, "fp16")
    assert relative(expected, stated_answers(graph, source.golden)) <= LIMIT


@pytest.mark.parametrize("name", HURT)
def test_onnx_runtime_answers_as_the_program(name: str) -> None:
    program = hurt(name)
    reference, result = derived(program), halved(program)
    graph = reference.graph(result.program, RTX.portable, "fp16")
    answers = np.concatenate(plain_answers(graph, reference.golden))
    assert relative(result.answers["output"], answers) <= LIMIT
    assert relative(reference.answers(program)["output"], answers) <= LIMIT
    model = onnx.load_from_string(graph.data)
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    values = {item.name: item.data_type for item in model.graph.initializer}
    types = [values[name] for node in layers for name in node.input if name in values]
    assert onnx.TensorProto.FLOAT16 in types
    assert (onnx.TensorProto.FLOAT in types) == (name in ("large-logits", "sum-pool"))
    assert all(verdict.supported for verdict in get_backend(RTX.backend).supports(graph, RTX))


@with_builder
@pytest.mark.parametrize("name", HURT)
def test_tensorrt_for_rtx_builds_it(name: str) -> None:
    program = hurt(name)
    outcome = build_candidate(
        "fp16", target=RTX, backend=get_backend(RTX.backend), quantized=None, derived=derived(program)
    )
    assert isinstance(outcome, Candidate)
    assert kept(outcome.report.half) == HURT[name][1]
    assert outcome.engine is not None
    assert outcome.report.engine_bytes > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_half_suits_keeps_nothing_and_is_as_before(name: str) -> None:
    program = folded(name)
    result = halved(program)
    assert result.report.kept == ()
    whole = run_passes(program, [ToHalf()], CONTEXT)
    graphs = [derived(program).graph(item, RTX.portable, "fp16").data for item in (result.program, whole)]
    assert graphs[0] == graphs[1]


def test_the_same_program_gives_the_same_graph_twice() -> None:
    graphs = []
    for _ in range(2):
        program = hurt("large-logits")
        graphs.append(derived(program).graph(halved(program).program, RTX.portable, "fp16").data)
    assert graphs[0] == graphs[1]


def test_int8_keeps_single_layers_and_needs_no_fp32_throughout() -> None:
    program = hurt("sum-pool")
    item = quantized(program, INT8)
    backend = Pretending(inner=get_backend(RTX.backend))
    outcome = build_candidate("int8", target=RTX, backend=backend, quantized=item, derived=derived(program))
    assert isinstance(outcome, Candidate)
    report = outcome.report
    assert report.findings == ()
    assert "sum" in kept(report.half)
    assert "conv2d" not in {kept_one.operator for kept_one in report.half.kept} if report.half else False
    model = onnx.load_from_string(outcome.graph.data)
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert {types[scale] for scale in scales} == {onnx.TensorProto.FLOAT}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert any(item.i == onnx.TensorProto.FLOAT16 for node in casts for item in node.attribute)
    answers = plain_answers(outcome.graph, golden_inputs(program, count=3, seed=0))
    assert relative(outcome.golden["output"], np.concatenate(answers)) <= outcome.golden_limit


class Overflowing(nn.Module):
    """Every layer gives more than float16 holds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        with torch.no_grad():
            self.stem.weight.mul_(1e6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x).mean((2, 3)))


def test_where_nothing_would_be_fp16_the_candidate_fails_and_int8_keeps_fp32_around_it() -> None:
    program = folded_module(Overflowing())
    backend = Pretending(inner=get_backend(RTX.backend))
    outcome = build_candidate("fp16", target=RTX, backend=backend, quantized=None, derived=derived(program))
    assert isinstance(outcome, Failure)
    assert "nothing would be fp16" in outcome.report.reason
    item = quantized(program, INT8)
    again = build_candidate("int8", target=RTX, backend=backend, quantized=item, derived=derived(program))
    assert isinstance(again, Candidate)
    assert again.program is item
    assert again.report.half is None
    assert "its float layers are fp32, not fp16" in again.report.findings[0]


class Amplifying(nn.Module):
    """Each step magnifies rounding a little, none beyond the limit of one node; together they go beyond it."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x).mean((2, 3))
        for _ in range(self.steps):
            y = torch.tanh(y) * 4 - 4 * torch.tanh(y * 0.9)
        return self.head(y)


def test_while_the_program_is_off_the_worst_nodes_are_added_in_a_bounded_number_of_rounds() -> None:
    program = folded_module(Amplifying(1))
    alone = halved(program, limit=1.0).report
    result = halved(program, limit=alone.distance / 2).report
    assert alone.rounds == 0
    assert 1 <= result.rounds <= 4
    if result.distance <= result.limit:
        assert {item.cause for item in result.kept} >= {"program"}
    else:
        assert result.kept == alone.kept
    never = halved(program, limit=1e-9).report
    assert never.rounds <= 4
    # What did not help is half again.
    assert never.kept == alone.kept
    assert never.distance == alone.distance


def target_report(half: HalfReport) -> TargetReport:
    candidate = CandidateReport(precision="fp16", status="shipped", reason="", half=half, float_distance=half.distance)
    return TargetReport(
        target="rtx",
        title="",
        shipped=("fp16",),
        why="",
        latency="unverified",
        verified_on="not here",
        candidates=(candidate,),
    )


def test_text_and_json_name_what_was_kept_and_why() -> None:
    report = halved(hurt("large-norm")).report
    text = target_text(target_report(report), None)
    assert "fp16: kept in fp32: norm (layer_norm): overflow: |x| reached " in text
    (item,) = to_dict(report)["kept"]
    assert (item["node"], item["layer"], item["operator"], item["cause"]) == (
        "layer_norm",
        "norm",
        "layer_norm",
        "overflow",
    )
    assert item["peak"] > 65504
    assert target_warnings(target_report(report), accuracy_known=True) == []


def test_a_long_list_is_cut_and_answers_that_are_off_are_a_warning() -> None:
    one = KeptFloat(node="n", layer="n", operator="exp", cause="overflow", peak=1e9, error=None, why="overflow")
    half = HalfReport(distance=0.02, limit=0.01, rounds=4, kept=(one,) * 10 + (replace(one, cause="input"),))
    text = target_text(target_report(half), None)
    assert text.count("kept in fp32: n (exp)") == 8
    assert "and 2 more kept in fp32" in text
    (warning,) = target_warnings(target_report(half), accuracy_known=True)
    assert "fp16 moves the fp16 answers by 2 % on the golden inputs" in warning


def test_history_names_them_too() -> None:
    (record,) = [item for item in halved(hurt("sum-pool")).program.history if item.stage == "to-half"]
    assert record.summary.endswith("2 nodes kept in float32")
    assert [(item.what, item.where) for item in record.skipped] == [("sum", "sum_1"), ("linear", "head")]
    assert all(item.why.startswith("overflow: |x| reached ") for item in record.skipped)


def test_a_compilation_ships_fp16_with_what_it_kept_in_report_and_bundle(tmp_path: Path) -> None:
    task = tmp_path / "task.toml"
    task.write_text(SPEC)
    torch.manual_seed(0)
    report = edgekit.compile(
        HURT["sum-pool"][0]().eval(),
        target=["x86-cpu", "jetson"],
        task=task,
        output=tmp_path / "model.edge",
        strict=True,
        timing=False,
        threads=1,
    )
    openvino, jetson = report.targets
    assert all(item.half is None for item in openvino.candidates)
    assert jetson.shipped == ("fp16",)
    assert kept(jetson.candidate("fp16").half) == ("sum", "head")
    assert "fp16: kept in fp32: head (linear): overflow: |x| reached " in report.to_text()
    stored = read_bundle(report.output).report()
    (item,) = [item for item in stored["targets"][1]["candidates"] if item["precision"] == "fp16"]
    assert [one["cause"] for one in item["half"]["kept"]] == ["overflow", "overflow"]
    (record,) = stored["history"]["fp16: jetson-orin-nano"]
    assert [one["where"] for one in record["skipped"]] == ["sum_1", "head"]


class Crnn(nn.Module):
    """Convolutions over a line of text, a bidirectional LSTM over its columns."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d((4, 2)))
        self.cells = nn.LSTM(32, 12, bidirectional=True, batch_first=True)
        self.classify = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = self.convolutions(x).flatten(1, 2).transpose(1, 2)
        return self.classify(self.cells(columns)[0])


def crnn() -> Program:
    torch.manual_seed(0)
    program = load_program(Crnn().eval(), task=None, example_inputs=(torch.randn(2, 3, 16, 32),))
    return run_passes(program, [FoldBatchNorm()], CONTEXT)


@with_builder
def test_tensorrt_for_rtx_takes_a_bidirectional_lstm_in_half_so_it_stays_half() -> None:
    program = crnn()
    outcome = build_candidate(
        "fp16", target=RTX, backend=get_backend(RTX.backend), quantized=None, derived=derived(program)
    )
    assert isinstance(outcome, Candidate)
    assert outcome.report.half is not None
    assert outcome.report.half.kept == ()
    assert recurrent_types(outcome.graph) == {onnx.TensorProto.FLOAT16}


def recurrent_types(graph: PortableGraph) -> set[int]:
    model = onnx.load_from_string(graph.data)
    (cells,) = [node for node in model.graph.node if node.op_type == "LSTM"]
    types = {item.name: item.data_type for item in model.graph.initializer}
    return {types[name] for name in cells.input if types.get(name, 0) in (1, 10)}


class NoHalfLstm(Pretending):
    """A builder that takes recurrent layers in float32 alone."""

    def supports(self, graph: PortableGraph, target: Target) -> tuple[Verdict, ...]:
        refused = onnx.TensorProto.FLOAT16 in recurrent_types(graph)
        return (Verdict(node="cells", operator="LSTM", supported=not refused, reason="type float16"),)

    def rehearse(self, graph: PortableGraph, target: Target) -> Rehearsal | None:
        return None


@pytest.mark.parametrize("target", ["rtx", "jetson"])
def test_a_recurrent_layer_that_the_builder_refuses_in_half_stays_fp32(target: str) -> None:
    program = crnn()
    backend: Backend = NoHalfLstm(inner=get_backend("tensorrt"))
    source = derived(program)
    outcome = build_candidate("fp16", target=load_target(target), backend=backend, quantized=None, derived=source)
    assert isinstance(outcome, Candidate)
    assert recurrent_types(outcome.graph) == {onnx.TensorProto.FLOAT}
    assert outcome.report.half is not None
    (item,) = outcome.report.half.kept
    assert (item.layer, item.operator, item.cause) == ("cells", "lstm", "refused")
    assert "type float16" in item.why
    answers = np.concatenate(plain_answers(outcome.graph, source.golden))
    assert relative(source.answers(program)["output"], answers) <= LIMIT


def test_what_is_refused_all_the_same_fails_with_the_first_refusal() -> None:
    class Refusing(Pretending):
        def supports(self, graph: PortableGraph, target: Target) -> tuple[Verdict, ...]:
            return (Verdict(node="cells", operator="LSTM", supported=False, reason="no such operator"),)

    backend = Refusing(inner=get_backend("tensorrt"))
    outcome = build_candidate("fp16", target=RTX, backend=backend, quantized=None, derived=derived(crnn()))
    assert isinstance(outcome, Failure)
    assert "no such operator" in outcome.report.reason


def test_what_torch_cannot_compute_in_half_stays_fp32() -> None:
    program = hurt("sum-pool")
    relu = torch.ops.aten.relu.default

    class NoHalfRelu(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is relu and args[0].dtype == torch.float16:
                raise RuntimeError('"relu" not implemented for Half\nmore')
            return function(*args, **({} if kwargs is None else kwargs))

    with NoHalfRelu():
        result = halved(program)
    (item,) = [item for item in result.report.kept if item.cause == "refused"]
    assert item.why == 'refused: torch cannot compute it in float16 here: "relu" not implemented for Half'


def test_an_output_that_is_no_number_whatever_is_kept_is_a_stage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    program = hurt("sum-pool")
    source = derived(program)
    answers = source.answers(program)
    broken = {name: np.full_like(array, np.nan) for name, array in answers.items()}
    monkeypatch.setattr("edgekit.compiler.halving.golden_outputs", lambda *_: broken)
    with pytest.raises(StageError, match="its output 'output' is no number"):
        halve(
            program,
            limit=LIMIT,
            node_limit=LIMIT,
            golden=source.golden,
            answers=answers,
            images=(),
            context=CONTEXT,
            refused={},
        )
