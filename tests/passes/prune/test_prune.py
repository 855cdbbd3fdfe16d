"""The pass on one small network of each kind: exact, as far as was asked, and with the interface as it was."""

from __future__ import annotations

import pytest
import torch

from edgekit.errors import ConfigError, StageError
from edgekit.frontend import load_program
from edgekit.passes.prune import PruneOptions, prune
from edgekit.passes.prune.oracle import TOLERANCE
from edgekit.program import Program
from tests.passes.prune.networks import NETWORKS, build


def loaded(name: str) -> Program:
    case = NETWORKS[name]
    example = tuple(torch.randn(2, *size) for size in case.sizes)
    return load_program(build(case), task=None, example_inputs=example)


def pruned_by(program: Program, **options: object) -> Program:
    return prune(program, PruneOptions(**{"keep": 0.5, **options}))


def rows(program: Program, layer: str) -> int:
    parameters = dict(program.graph.named_parameters())
    found = parameters.get(f"{layer}.weight", parameters.get(layer))
    assert found is not None, f"no layer {layer} in {sorted(parameters)}"
    transposed = layer == "up" and found.dim() == 4 and found.shape[-1] == 2
    return int(found.shape[1 if transposed else 0])


@pytest.mark.parametrize("name", NETWORKS)
def test_each_kind_of_network_is_pruned_exactly(name: str) -> None:
    program = loaded(name)
    pruned = pruned_by(program)
    record = pruned.history[-1]
    assert record.details["oracle"] <= TOLERANCE
    assert (pruned.inputs, pruned.outputs) == (program.inputs, program.outputs)
    case = NETWORKS[name]
    for layer in case.narrows:
        assert rows(pruned, layer) < rows(program, layer), f"{layer} kept its width"
    for layer in case.stays:
        assert rows(pruned, layer) == rows(program, layer), f"{layer} became narrower"


@pytest.mark.parametrize("name", ["residual", "shuffle", "split bottlenecks", "attention", "LSTM", "U-Net", "cascade"])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("keep", [0.25, 0.75])
def test_other_shares_and_allocations_are_exact_too(name: str, allocation: str, keep: float) -> None:
    pruned = pruned_by(loaded(name), keep=keep, allocation=allocation)
    assert pruned.history[-1].details["oracle"] <= TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_pruned_exports_again(name: str) -> None:
    """torch.export traces the new sizes afresh: a stale one would show."""
    pruned = pruned_by(loaded(name))
    example = tuple(torch.randn(3, *size) for size in NETWORKS[name].sizes)
    again = load_program(pruned.module(), task=None, example_inputs=example)
    for mine, its in zip(pruned.run(*example), again.run(*example), strict=True):
        assert torch.allclose(mine, its, atol=1e-5)


def test_the_given_program_is_left_alone() -> None:
    program = loaded("residual")
    before = {name: value.clone() for name, value in program.graph.state_dict().items()}
    code = program.graph.code
    pruned_by(program)
    assert program.graph.code == code
    assert all(torch.equal(value, before[name]) for name, value in program.graph.state_dict().items())


def test_half_of_the_arithmetic_is_left_when_half_is_asked_for() -> None:
    record = pruned_by(loaded("residual")).history[-1]
    assert 0.4 < record.details["macs_left"] <= 0.5
    assert record.details["parameters_after"] < record.details["parameters_before"]


def test_widths_stay_multiples_of_the_alignment() -> None:
    program = loaded("plain")
    record = pruned_by(program, align=4).history[-1]
    assert all(item["after"] % 4 == 0 for item in record.details["widths"])
    assert any(item["after"] < item["before"] for item in record.details["widths"])


def test_what_cannot_be_reached_is_said() -> None:
    """Alignment keeps 16 of 16 channels: nothing can go, and the error names the reason of what is frozen."""
    with pytest.raises(StageError, match="found no channels"):
        pruned_by(loaded("plain"), align=16)
    record = pruned_by(loaded("attention"), keep=0.1).history[-1]
    assert any("is the least that can be reached" in item.why for item in record.skipped)


def test_every_layer_that_stays_has_its_reason() -> None:
    record = pruned_by(loaded("unknown operator")).history[-1]
    reasons = {item.where: item.why for item in record.skipped}
    assert "pruning has no rule for aten.cumsum.default" in reasons["two"]
    assert "output of the network" in reasons["last"]


def test_excluded_layers_stay() -> None:
    program = loaded("plain")
    pruned = pruned_by(program, exclude=("1.*",))
    assert rows(pruned, "1.0") == rows(program, "1.0")
    assert rows(pruned, "0.0") < rows(program, "0.0")


def test_a_pattern_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no layer is called 'bodi"):
        pruned_by(loaded("residual"), exclude=("bodi.*",))


def test_a_network_with_nothing_to_remove_says_why() -> None:
    program = load_program(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)).eval(), task=None, example_inputs=(torch.randn(2, 3, 8, 8),)
    )
    with pytest.raises(StageError, match="0: it is an output of the network"):
        pruned_by(program)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0.0}, "above 0 and below 1"),
        ({"keep": 1.0}, "above 0 and below 1"),
        ({"keep": float("nan")}, "above 0 and below 1"),
        ({"align": 0}, "align"),
        ({"importance": "size"}, "unknown importance"),
        ({"allocation": "uniforn"}, "unknown allocation"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PruneOptions(**{"keep": 0.5, **options})


def test_the_same_program_is_pruned_the_same_way() -> None:
    one, two = pruned_by(loaded("shuffle")), pruned_by(loaded("shuffle"))
    assert one.graph.code == two.graph.code
    assert all(
        torch.equal(mine, its)
        for mine, its in zip(one.graph.state_dict().values(), two.graph.state_dict().values(), strict=True)
    )


def test_a_shuffle_that_is_still_one_is_written_as_one() -> None:
    pruned = pruned_by(loaded("shuffle"))
    targets = [str(node.target) for node in pruned.graph.graph.nodes]
    shuffles = targets.count("aten.transpose.int") + targets.count("aten.index_select.default")
    assert shuffles == 1


def test_shuffles_that_follow_each_other() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.one(x)
            for groups in (2, 4):
                x = x.view(len(x), groups, 8 // groups, 8, 8).transpose(1, 2).flatten(1, 2)
            return self.two(x)

    program = load_program(Twice().eval(), task=None, example_inputs=(torch.randn(2, 3, 8, 8),))
    assert rows(pruned_by(program), "one") < 8


def test_a_fixed_batch_stays_fixed() -> None:
    exported = torch.export.export(build(NETWORKS["flattened"]), (torch.randn(1, 3, 16, 16),))
    program = load_program(exported.module(), task=None, example_inputs=(torch.randn(1, 3, 16, 16),))
    assert pruned_by(program).history[-1].details["oracle"] <= TOLERANCE
