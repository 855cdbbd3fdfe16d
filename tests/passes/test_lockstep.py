from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgekit.errors import UserError
from edgekit.passes.aten import COMPUTE, is_call
from edgekit.passes.correct.lockstep import Lockstep, check_pair, int8_layers, why_shared
from edgekit.passes.correct.run import Run
from edgekit.passes.quantize.ops import QDQ
from edgekit.targets import QuantizeRules
from tests.networks import NETWORKS, folded, pictures
from tests.passes.pairs import quantized, two_streams


@pytest.mark.parametrize("name", NETWORKS)
def test_both_graphs_give_what_the_programs_give(name: str) -> None:
    floating = folded(name)
    program = quantized(floating)
    # Batches of different sizes, as held-out images come.
    batches = [(pictures(3, seed=1),), (pictures(1, seed=2),)]
    with torch.no_grad():
        steps = Lockstep(floating.graph, program.graph, batches)
        seen = [stop.node for stop in steps.stops(int8_layers(program.graph))]
    assert seen == list(int8_layers(program.graph))
    assert seen
    for number, batch in enumerate(batches):
        first, second = steps.outputs(number)
        assert all(torch.equal(*pair) for pair in zip(first, floating.run(*batch), strict=True))
        assert all(torch.equal(*pair) for pair in zip(second, program.run(*batch), strict=True))


def test_several_inputs_and_outputs_with_a_static_batch() -> None:
    floating, data = two_streams(1)
    program = quantized(floating, data=data)
    batches = list(data.held_out(3))
    with torch.no_grad():
        steps = Lockstep(floating.graph, program.graph, batches)
        assert sum(1 for _ in steps.stops(int8_layers(program.graph))) == 4
    for number, batch in enumerate(batches):
        first, second = steps.outputs(number)
        assert [len(first), len(second)] == [2, 2]
        assert all(torch.equal(*pair) for pair in zip(first, floating.run(*batch), strict=True))
        assert all(torch.equal(*pair) for pair in zip(second, program.run(*batch), strict=True))


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.name()] += 1
        return func(*args, **({} if kwargs is None else kwargs))


def test_each_layer_of_each_graph_runs_once_a_batch() -> None:
    floating = folded("residual")
    program = quantized(floating)
    batches = [(pictures(2, seed=1),), (pictures(2, seed=2),)]
    with torch.no_grad(), Counting() as counting:
        for stop in Lockstep(floating.graph, program.graph, batches).stops(int8_layers(program.graph)):
            for batch in range(2):
                # Asked for twice, computed once, and once only for what comes after.
                assert stop.float_output(batch) is stop.float_output(batch)
    convolutions = sum(is_call(node, COMPUTE) and "conv" in str(node.target) for node in floating.graph.graph.nodes)
    assert convolutions == 3
    assert counting.calls["aten::convolution"] == 2 * 2 * convolutions


def test_values_die_with_their_last_reader() -> None:
    program = folded("residual")
    run = Run(program.graph, [(pictures(2),), (pictures(2, seed=1),)])
    most = 0
    with torch.no_grad():
        for node in run.nodes:
            for batch in range(2):
                run.execute(node, batch)
                run.release(node, batch)
                most = max(most, len(run.held(batch)))
    # The deepest place is the residual add: the shortcut, the branch, and what is just being made of it.
    assert most <= 3
    assert len(run.held(0)) == len(run.held(1)) == 1


@pytest.mark.parametrize("activations", ["uint8-asymmetric", "int8-symmetric"])
def test_tensors_behind_a_pair_wait_as_integers_and_come_back_bit_by_bit(activations: Any) -> None:
    program = quantized(folded("depthwise"), rules=QuantizeRules(activations=activations))
    batch = (pictures(4, seed=7),)
    run = Run(program.graph, [batch])
    seen = 0
    with torch.no_grad():
        for node in run.nodes:
            before = sum(run.held(0))
            run.execute(node, 0)
            if is_call(node, {QDQ}) and not run.is_constant(node):
                direct = run.call(node, 0)
                assert torch.equal(run.value(node, 0), direct)
                assert sum(run.held(0)) - before == direct.numel()
                seen += 1
    assert seen >= 3


def test_a_change_at_one_layer_reaches_the_layers_after_it() -> None:
    floating = folded("residual")
    program = quantized(floating)
    untouched = quantized(floating)
    batch = (pictures(4),)
    inputs: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for number, stop in enumerate(
            Lockstep(floating.graph, program.graph, [batch]).stops(int8_layers(program.graph))
        ):
            inputs[stop.node.name] = stop.quantized_input(0)
            before = stop.quantized_output(0)
            if number == 0:
                stop.subtract_from_bias(torch.full((8,), 0.5, dtype=torch.float64))
                assert torch.allclose(stop.quantized_output(0), before - 0.5, atol=1e-5)
            if number == 1:
                stop.set_weight(torch.zeros_like(stop.float_weight()))
                assert not torch.equal(stop.quantized_output(0), before)
        first, second = int8_layers(program.graph)[1:3]
        for stop in Lockstep(floating.graph, untouched.graph, [batch]).stops(int8_layers(untouched.graph)):
            if stop.node.name in (first.name, second.name):
                assert not torch.equal(stop.quantized_input(0), inputs[stop.node.name])
    program.graph.recompile()
    assert not torch.equal(program.run(*batch)[0], untouched.run(*batch)[0])


def test_the_error_of_a_branch_is_that_of_the_sum() -> None:
    floating = folded("residual")
    program = quantized(floating)
    with torch.no_grad():
        steps = Lockstep(floating.graph, program.graph, [(pictures(4),)])
        sums: dict[str, torch.Tensor] = {}
        for stop in steps.stops(int8_layers(program.graph)):
            added = stop.added()
            if added is not None:
                sums[stop.node.name] = stop.error(0)
                own = stop.quantized_output(0) - stop.float_output(0)
                rest = steps._quantized.value(added[1], 0) - steps._floating.value(added[0], 0)
                assert torch.allclose(stop.error(0), own + rest)
                assert not torch.allclose(stop.error(0), own)
                # What is wanted of the layer makes the error zero.
                bias = stop.bias()
                assert bias is not None
                off = stop.quantized_output(0) - bias.reshape(1, -1, 1, 1) - stop.wanted_output(0)
                assert torch.allclose(off, stop.error(0), atol=1e-5)
    # Only the second convolution of the block goes into an add.
    assert len(sums) == 1


def test_shared_weights_are_named() -> None:
    program = quantized(folded("shared"))
    reasons = [why_shared(program.graph, node) for node in int8_layers(program.graph)]
    assert reasons[0] is None
    assert reasons[-1] is None
    assert all(reason is not None and "is read by" in reason for reason in reasons[1:3])


def test_programs_of_different_models_are_refused() -> None:
    program = quantized(folded("residual"))
    with pytest.raises(UserError, match="is not in the float program"):
        check_pair(folded("attention"), program)
    with pytest.raises(UserError, match="is quantized itself"):
        check_pair(program, program)
