"""The trainable form of a quantized program: what may change, what must not, and the way back."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import fx

from edgekit.errors import InternalError
from edgekit.passes import run_passes
from edgekit.passes.aten import is_call, node_facts, read_tensor
from edgekit.passes.fold import FoldPixels
from edgekit.passes.qat.groups import find_groups, scale_of
from edgekit.passes.qat.trainable import baked, step_parameters, trainable
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.train.mode import has_batch_norm, training_copy
from edgekit.program import Program
from edgekit.targets import QuantizeRules
from tests.networks import CONTEXT, NETWORKS, folded, pictures
from tests.passes.test_quantize import INT8, UINT8, quantized
from tests.test_export import exported, run_plain

PIXELS = replace(UINT8, raw_pixels="fold")
SEVEN = replace(UINT8, weight_bits=7)


@functools.cache
def _int8(name: str, rules: QuantizeRules = UINT8) -> Program:
    return quantized(run_passes(folded(name), [FoldPixels(rules=rules)], CONTEXT), rules)


@functools.cache
def _learned(name: str, rules: QuantizeRules = UINT8) -> Program:
    return _trained(_int8(name, rules))


def _trained(program: Program, steps: int = 4) -> Program:
    """Everything that learns has learned something."""
    item = trainable(program)
    graph = training_copy(item.graph, batch_norm="frozen")
    optimizer = torch.optim.AdamW(graph.parameters(), lr=3e-3)
    for index in range(steps):
        optimizer.zero_grad()
        graph(pictures(8, seed=index))[0].square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        for name, parameter in item.graph.named_parameters():
            parameter.copy_(graph.get_parameter(name))
    return item


def _scales(program: Program) -> dict[str, torch.Tensor]:
    pairs = [node for node in program.graph.graph.nodes if is_call(node, {QDQ})]
    return {scale_of(pair): read_tensor(program.graph, pair.args[1]) for pair in pairs}


@pytest.mark.parametrize(
    ("name", "rules"),
    [*((name, PIXELS) for name in NETWORKS), ("residual", INT8), ("attention", INT8), ("depthwise", SEVEN)],
)
def test_trainable_answers_alike_and_baked_answers_as_what_was_trained(name: str, rules: QuantizeRules) -> None:
    program, images = _int8(name, rules), pictures(4, seed=9)
    before, code = program.run(images)[0], str(program.graph.graph)
    assert not has_batch_norm(program.graph)
    start = trainable(program)
    assert torch.equal(start.run(images)[0], before)
    trained = _learned(name, rules)
    result = baked(trained, program)
    after = result.run(images)[0]
    assert torch.equal(after, trained.run(images)[0])
    assert not torch.equal(after, before)
    assert str(result.graph.graph) == code == str(program.graph.graph)
    assert torch.equal(program.run(images)[0], before), "the given program is left as it was"
    assert all(torch.equal(baked(start, program).run(images)[0], before) for _ in range(2))


@pytest.mark.parametrize("name", ["residual", "depthwise", "dense", "attention", "shared"])
def test_all_steps_biases_and_weights_learn(name: str) -> None:
    program = _int8(name, PIXELS)
    item = _learned(name, PIXELS)
    steps = step_parameters(item)
    changed = {key: value for key, value in item.graph.named_parameters() if key in steps}
    assert len(changed) == len(steps)
    assert all(bool(value.any()) for value in changed.values())
    given = dict(program.graph.named_parameters())
    assert not any(torch.equal(value, item.graph.get_parameter(key)) for key, value in given.items())


@pytest.mark.parametrize("rules", [PIXELS, INT8, SEVEN], ids=["uint8", "int8", "7 bits"])
def test_integers_zero_points_and_axes_stay(rules: QuantizeRules) -> None:
    program = _int8("residual", rules)
    result = baked(_learned("residual", rules), program)
    before, after = ([node for node in item.graph.graph.nodes if is_call(node, {QDQ})] for item in (program, result))
    for old, new in zip(before, after, strict=True):
        assert old.args[3:] == new.args[3:]
        assert torch.equal(read_tensor(program.graph, old.args[2]), read_tensor(result.graph, new.args[2]))
    scales = _scales(result)
    assert all(bool((value > 0).all()) for value in scales.values())
    assert all(scales[name].shape == value.shape for name, value in _scales(program).items())
    limit = 63 if rules.weight_bits == 7 else 127
    model = onnx.load_from_string(exported(result).data)
    stored = [onnx.numpy_helper.to_array(item) for item in model.graph.initializer if "_quantized" in item.name]
    assert stored
    assert all(values.dtype == np.int8 and np.abs(values.astype(int)).max() <= limit for values in stored)


def test_a_concatenation_keeps_one_step_for_all_its_parts() -> None:
    program = _int8("dense")
    (cat,) = [node for node in program.graph.graph.nodes if is_call(node, {torch.ops.aten.cat.default})]
    names = [scale_of(part) for part in cat.args[0]]
    assert len(set(names)) == 2
    before, after = _scales(program), _scales(baked(_learned("dense"), program))
    assert torch.equal(after[names[0]], after[names[1]])
    assert not torch.equal(after[names[0]], before[names[0]])
    item = trainable(program)
    assert len(step_parameters(item)) == len(before) - 1


def test_steps_of_one_concatenation_that_differ_are_a_fault() -> None:
    program = _int8("dense").copied()
    (cat,) = [node for node in program.graph.graph.nodes if is_call(node, {torch.ops.aten.cat.default})]
    read_tensor(program.graph, cat.args[0][0].args[1]).mul_(2)
    with pytest.raises(InternalError, match="different scales"):
        trainable(program)


def test_a_weight_that_two_layers_share_keeps_one_step() -> None:
    program = _int8("shared")
    pair = next(node for node in program.graph.graph.nodes if is_call(node, {QDQ}) and "twice" in scale_of(node))
    assert len(pair.users) == 2
    item = trainable(program)
    assert sum("twice" in name for name in step_parameters(item)) == 1


@pytest.mark.parametrize("name", ["residual", "option-a", "attention"])
def test_the_grid_of_raw_pixels_is_not_touched(name: str) -> None:
    program = _int8(name, PIXELS)
    facts = node_facts(program.graph, pictures(1))
    (fixed,) = find_groups(program.graph, facts).fixed
    assert "raw pixels" in fixed.why
    (pair,) = [node for node in program.graph.graph.nodes if is_call(node, {QDQ}) and scale_of(node) == fixed.where]
    result = baked(_learned(name, PIXELS), program)
    assert torch.equal(_scales(result)[fixed.where], _scales(program)[fixed.where])
    # It still gives every pixel back.
    levels = torch.arange(256, dtype=torch.uint8).repeat(3).reshape(3, 16, 16).permute(1, 2, 0)[None].contiguous()
    seen = _values(result.graph, levels, pair.name)
    assert torch.equal(seen, _values(result.graph, levels, pair.args[0].name))


def _values(graph: fx.GraphModule, images: torch.Tensor, name: str) -> torch.Tensor:
    """What a node gives."""
    found: list[torch.Tensor] = []

    class Watcher(fx.Interpreter):
        def run_node(self, node: fx.Node) -> object:
            result = super().run_node(node)
            if node.name == name:
                found.append(result)
            return result

    with torch.no_grad():
        Watcher(graph).run(images)
    return found[0]


def test_a_normalised_image_that_is_quantized_as_any_tensor_learns_its_step() -> None:
    program = _int8("residual", UINT8)
    assert find_groups(program.graph, node_facts(program.graph, pictures(1))).fixed == ()


@pytest.mark.parametrize("name", ["dense", "attention"])
def test_export_is_the_same_graph_with_other_numbers(name: str) -> None:
    program = _int8(name, PIXELS)
    result = baked(_learned(name, PIXELS), program)
    given, made = exported(program), exported(result)
    before, after = (onnx.load_from_string(item.data).graph for item in (given, made))
    assert [(node.op_type, node.name, list(node.input)) for node in before.node] == [
        (node.op_type, node.name, list(node.input)) for node in after.node
    ]
    assert [(item.name, item.data_type, list(item.dims)) for item in before.initializer] == [
        (item.name, item.data_type, list(item.dims)) for item in after.initializer
    ]
    assert made.data == exported(result).data != given.data
    images = pictures(1, seed=5)
    expected, actual = result.run(images)[0].numpy(), run_plain(made, images)
    # As for every program: a tie's neighbour may be rounded otherwise once.
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < 0.03


def test_programs_that_do_not_belong_together_are_a_fault() -> None:
    with pytest.raises(InternalError, match="no parameter"):
        baked(trainable(_int8("residual")), _int8("dense"))
