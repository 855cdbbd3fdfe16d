"""What the pruning benchmark makes of what was measured, and how its worker judges one network."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import pruning, pruning_worker
from benchmarks.zoo.networks import Network
from edgekit.errors import ModelError, StageError
from edgekit.frontend import load_program
from edgekit.passes.prune import multiply_accumulates
from edgekit.program import Program
from tests.networks import Residual

EXACT = {"status": "exact", "macs_left": 0.5, "difference": 2e-15, "seconds": 1.25}
RUNS = {"status": "runs", "macs_left": 0.61, "seconds": 0.5}


def rows(**edgekit: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"edgekit": item, "torch_pruning": RUNS} for name, item in edgekit.items()}


def declined(count: int) -> dict[str, dict[str, Any]]:
    return rows(**{f"net{number}": {"status": "declined", "reason": "no"} for number in range(count)})


def test_nothing_is_missed_where_all_bounds_hold() -> None:
    networks = {**rows(resnet18=EXACT, resnet50={**EXACT, "seconds": 9.9}), **declined(3)}
    assert pruning.findings(networks) == []


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        (rows(vgg11={"status": "wrong", "reason": "changed what it computes"}), "vgg11 came out wrong"),
        (rows(vgg11={"status": "failed", "reason": "no export"}), "vgg11 failed: no export"),
        (declined(4), "4 were declined: net0, net1, net2, net3"),
        (rows(resnet50={**EXACT, "seconds": 10.04}), "ResNet-50 took 10.0 s"),
    ],
)
def test_a_bound_that_is_missed(networks: dict[str, Any], expected: str) -> None:
    assert pruning.findings(networks) == [expected]


def test_what_torch_pruning_does_is_no_bound_of_ours() -> None:
    failed = {"status": "failed", "reason": "AttributeError: no"}
    assert pruning.findings({"vgg11": {"edgekit": EXACT, "torch_pruning": failed}}) == []


def test_the_page_says_what_was_measured() -> None:
    networks = {
        **rows(resnet18=EXACT, vit_tiny={**EXACT, "macs_left": 0.9}),
        **declined(1),
        "crnn": {"edgekit": EXACT, "torch_pruning": {"status": "failed", "reason": "no"}},
        "detector": {"edgekit": EXACT, "torch_pruning": {**RUNS, "macs_left": None}},
    }
    result = {
        "results": {"networks": networks, "findings": ["vgg11 came out wrong"]},
        "settings": {"keep": 0.5, "torch_pruning": "1.6.1"},
    }
    text = pruning.to_markdown(result)
    assert "| resnet18 | 0.500 | 1.2 | 2e-15 | 0.610 | 0.5 |" in text
    assert "| net0 | declined | - | - | 0.610 | 0.5 |" in text
    assert "| crnn | 0.500 | 1.2 | 2e-15 | failed | - |" in text
    assert "| detector | 0.500 | 1.2 | 2e-15 | not counted | 0.5 |" in text
    # The declined one is not exact, and vit_tiny is, but keeps more than it was asked to.
    assert "Exact: 4 of 5; 3 of them reach 50% of the MACs, 1 keep more" in text
    assert "Torch-Pruning 1.6.1 gives a network that runs on 4 of 5" in text
    assert text.endswith("Bounds: MISSED: vgg11 came out wrong.")
    assert pruning.to_markdown({**result, "results": {"networks": networks, "findings": []}}).endswith("Bounds: kept.")


def test_no_network_is_named_twice() -> None:
    names = [*pruning.TIMM, *pruning.OWN]
    assert len(names) == len(set(names)) == 80


def module() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


EXAMPLE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def program_of(network: nn.Module) -> Program:
    return load_program(network, task=None, example_inputs=(EXAMPLE,))


def test_our_side_prunes_exactly_and_leaves_the_program_as_it_is() -> None:
    program = program_of(module())
    before = multiply_accumulates(program)
    found = pruning_worker.ours(program, 0.5)
    assert found["status"] == "exact"
    assert 0 < found["macs_left"] <= 0.55
    assert 0 <= found["difference"] < 1e-9
    assert found["seconds"] > 0
    assert multiply_accumulates(program) == before


@pytest.mark.parametrize(
    ("message", "status"),
    [("pruning changed what 'net' computes: by 0.3", "wrong"), ("no channel can leave 'net'", "declined")],
)
def test_a_wrong_result_is_told_from_one_that_was_declined(
    message: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Program:
        raise StageError(message)

    monkeypatch.setattr(pruning_worker, "run_passes", refuse)
    assert pruning_worker.ours(program_of(module()), 0.5) == {"status": status, "reason": message}


def test_what_the_oracle_says_is_what_the_worker_looks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # A surgery that spoils a weight: the real oracle speaks, and the worker must hear "wrong".
    surgery = importlib.import_module("edgekit.passes.prune.prune")
    cut = surgery.cut_out

    def spoiled(*arguments: Any, **options: Any) -> Any:
        result = cut(*arguments, **options)
        graph = result if isinstance(result, torch.fx.GraphModule) else result.graph
        with torch.no_grad():
            next(graph.parameters()).add_(1.0)
        return result

    monkeypatch.setattr(surgery, "cut_out", spoiled)
    found = pruning_worker.ours(program_of(module()), 0.5)
    assert found["status"] == "wrong"
    assert "changed what" in found["reason"]


def test_the_other_side_prunes_a_copy() -> None:
    pytest.importorskip("torch_pruning")
    network = module()
    given = {name: value.clone() for name, value in network.state_dict().items()}
    found = pruning_worker.theirs(network, EXAMPLE, 0.5, multiply_accumulates(program_of(network)))
    assert found["status"] == "runs"
    assert 0.3 < found["macs_left"] < 0.8  # 0.293 of the channels of each layer is about half of the arithmetic
    assert found["seconds"] > 0
    assert all(torch.equal(value, given[name]) for name, value in network.state_dict().items())


class Mixing(nn.Module):
    """A head whose output is as wide as a layer that may shrink: what comes out of a pruning has another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(F.relu(self.one(x)))


class Counting(nn.Module):
    """Knows its own width by heart, as some networks do, and fails when it is another."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.one(x))
        return self.last(self.two(y * torch.ones(8, 1, 1)).mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "reason"), [(Mixing(), "outputs of [[2, 5"), (Counting(), "RuntimeError")], ids=["shape", "error"]
)
def test_what_does_not_run_as_before_failed(network: nn.Module, reason: str) -> None:
    pytest.importorskip("torch_pruning")
    found = pruning_worker.theirs(network.eval(), EXAMPLE, 0.5, 1.0)
    assert found["status"] == "failed"
    assert found["reason"].startswith(reason)


@pytest.mark.parametrize(
    ("outputs", "shapes"),
    [(torch.zeros(2, 3), [[2, 3]]), ([torch.zeros(1), torch.zeros(4, 5)], [[1], [4, 5]]), ((torch.zeros(2),), [[2]])],
)
def test_the_shapes_of_outputs_of_every_form(outputs: Any, shapes: list[list[int]]) -> None:
    assert pruning_worker._shapes(outputs) == shapes


def answered(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    task = {"network": "tiny", "own": True, "keep": 0.5, "threads": torch.get_num_threads()}
    monkeypatch.setattr(pruning_worker, "NETWORKS", {"tiny": Network(build=module, size=(16, 16))})
    monkeypatch.setattr(pruning_worker, "make_network", lambda network, _: network.build())
    monkeypatch.setattr(sys, "argv", ["pruning_worker", json.dumps(task)])
    pruning_worker.main()
    facts: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return facts


def test_the_worker_answers_for_both_sides(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning_worker, "theirs", lambda *_: RUNS)
    facts = answered(capsys, monkeypatch)
    assert facts["edgekit"]["status"] == "exact"
    assert facts["torch_pruning"] == RUNS


def test_a_network_that_cannot_be_read_is_not_given_to_the_other_side(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Program:
        raise ModelError("it cannot be exported")

    monkeypatch.setattr(pruning_worker, "load_program", refuse)
    facts = answered(capsys, monkeypatch)
    assert facts["edgekit"] == {"status": "failed", "reason": "it cannot be exported"}
    assert facts["torch_pruning"] == {"status": "not tried"}
