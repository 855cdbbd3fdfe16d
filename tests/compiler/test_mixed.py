"""int8 that drops too far: the layers that cost most go back to float, and the report shows the way there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edgekit
from edgekit.bundle import read_bundle
from edgekit.cli.history import candidates_text
from edgekit.compiler import CompileReport
from edgekit.errors import ConfigError, GateFailed
from edgekit.runtime import load
from tests.compiler.world import HERE, World, make_world, model_inputs
from tests.networks import Head, conv_bn


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.spread = conv_bn(8, 16)
        self.gather = conv_bn(16, 8)
        self.head = Head(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.gather(F.relu(self.spread(F.relu(self.stem(x)))))))


def broken() -> nn.Module:
    """Trained, then one tensor's channels scaled by 1 to 30,000, and back in the next layer: float is the same."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = Plain()
    inputs, labels = model_inputs(24, seed=9)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    net.eval()
    factors = torch.logspace(0, 4.5, 16)
    with torch.no_grad():
        net.spread[1].weight *= factors
        net.spread[1].bias *= factors
        net.gather[0].weight /= factors.view(1, -1, 1, 1)
    test, truth = model_inputs(16, seed=10)
    assert (net(test).argmax(1) == truth).float().mean() > 0.98
    return net


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def compiled(world: World, output: Path, **options: object) -> CompileReport:
    return edgekit.compile(
        broken(),
        target=HERE,
        task=world.task,
        data=world.data,
        output=output,
        recipe="fast",
        samples=40,
        threads=1,
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def mixed(world: World, tmp_path_factory: pytest.TempPathFactory) -> CompileReport:
    return compiled(world, tmp_path_factory.mktemp("mixed") / "m.edge", precision="mixed")


def test_the_guilty_layer_goes_back_and_the_rest_ships_in_int8(mixed: CompileReport) -> None:
    (target,) = mixed.targets
    int8, candidate = target.candidate("int8"), target.candidate("mixed")
    assert (int8.status, int8.gate) == ("rejected", "accuracy")
    assert candidate.status == "shipped"
    assert target.shipped == ("mixed",)
    assert candidate.steps[-1].layers == ("gather.0",)
    assert candidate.layer_counts() == {"fp32": 1, "int8": 3}
    assert candidate.findings == ()
    with load(mixed.output, threads=1) as model:
        ran = {layer.name: layer.precision for layer in model.session.layers() if layer.compute}
    assert ran == {"stem.0": "int8", "spread.0": "int8", "gather.0": "fp32", "head.linear": "int8"}


def test_the_report_ranks_layers_and_says_what_each_return_cost(mixed: CompileReport) -> None:
    candidate = mixed.targets[0].candidate("mixed")
    assert {item.layer for item in candidate.ranking} == {"stem.0", "spread.0", "gather.0", "head.linear"}
    first = candidate.ranking[0]
    assert first.layer == "gather.0"
    assert first.drop is not None
    assert first.drop.low > 0
    assert first.sqnr_db is not None
    assert all(first.sqnr_db < item.sqnr_db for item in candidate.ranking[1:] if item.sqnr_db is not None)
    step = candidate.steps[-1]
    assert step.passed
    assert step.drop is not None
    assert step.p50_ms is not None
    assert step.p50_ms > 0
    assert step.time_to_int8 is not None
    (record,) = [item for item in mixed.history[f"mixed: {HERE}"] if item.stage == "return-to-float"]
    skipped = record.skipped
    assert [item.where for item in skipped] == ["gather.0"]
    assert "number 1 of those that cost most" in skipped[0].why


def test_inspect_shows_the_mixed_candidate_and_its_steps(mixed: CompileReport) -> None:
    stored = read_bundle(mixed.output).report()
    text = candidates_text(stored["targets"][0])
    assert "mixed" in text
    assert "gather.0" in text


def test_a_generous_budget_needs_no_mixing(world: World, tmp_path: Path) -> None:
    report = compiled(world, tmp_path / "m.edge", precision="mixed", max_drop=100.0)
    assert report.targets[0].shipped == ("int8",)
    assert "int8 needs no layer in float" in report.targets[0].why


def test_auto_offers_mixed_beside_float(world: World, tmp_path: Path) -> None:
    report = compiled(world, tmp_path / "m.edge")
    statuses = {item.precision: item.status for item in report.targets[0].candidates}
    assert statuses["int8"] == "rejected"
    assert statuses["mixed"] in ("shipped", "passed", "rejected")
    assert statuses["fp32"] in ("shipped", "passed")


def test_int8_alone_is_not_mixed_and_says_so(world: World, tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match="top1 drops by") as caught:
        compiled(world, tmp_path / "m.edge", precision="int8", timing=False)
    assert caught.value.hint is not None
    assert "mixed" in caught.value.hint
    assert not (tmp_path / "m.edge").exists()


def test_mixed_without_images_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mixed needs calibration images"):
        edgekit.compile(broken(), target="x86-cpu", task=world.task, precision="mixed", output=tmp_path / "m.edge")
