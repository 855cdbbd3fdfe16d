from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import fx

from edgekit.frontend import load_program
from edgekit.passes.aten import node_facts
from edgekit.passes.quantize.policy import Plan, make_plan
from edgekit.targets import QuantizeRules
from tests.networks import folded, pictures

RULES = QuantizeRules(activations="uint8-asymmetric")


def plan_of(name: str, rules: QuantizeRules = RULES) -> tuple[fx.GraphModule, Plan]:
    graph = folded(name).graph
    return graph, make_plan(graph, node_facts(graph, pictures(2)), rules)


def kinds(plan: Plan) -> list[str]:
    return [
        f"{edge.consumer.name}[{edge.index}] <- {', '.join(site.node.name for site in edge.sites)}"
        for edge in plan.edges
    ]


def test_rule_1_one_pair_after_the_activation_hoisted_above_max_pool() -> None:
    _, plan = plan_of("residual")
    edges = kinds(plan)
    assert "one_0[0] <- relu" in edges
    assert "mean[0] <- relu_2" in edges  # not max_pool2d
    assert len(plan.weights) == 4


def test_rule_1_exception_a_linear_is_quantized_at_its_own_input() -> None:
    _, plan = plan_of("residual")
    assert "head_linear[0] <- mean" in kinds(plan)
    assert [site.role for edge in plan.edges if edge.consumer.name == "head_linear" for site in edge.sites] == [
        "linear"
    ]


def test_rule_2_both_inputs_of_a_residual_add() -> None:
    _, plan = plan_of("residual")
    edges = kinds(plan)
    assert "add[0] <- two_0" in edges
    assert "add[1] <- relu" in edges
    _, without = plan_of("residual", replace(RULES, residual_add="float"))
    assert not [edge for edge in without.edges if edge.consumer.name == "add"]
    assert [item.where for item in without.skipped] == ["add"]


def test_rule_2_a_transformers_add_stays_float() -> None:
    _, plan = plan_of("attention")
    assert not [edge for edge in plan.edges if "add" in edge.consumer.name]


def plan_for(module: torch.nn.Module, rules: QuantizeRules = RULES, size: int = 8) -> Plan:
    """The plan of a module that takes (1, 3, size, size)."""
    example = torch.randn(1, 3, size, size)
    graph = load_program(module.eval(), task=None, example_inputs=(example,)).graph
    return make_plan(graph, node_facts(graph, example), rules)


class PooledTokens(torch.nn.Module):
    """A block of PoolFormer: norm, average pool less its input, layer scale, residual add."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = torch.nn.Conv2d(3, 8, 2, 2)
        self.norm = torch.nn.GroupNorm(1, 8)
        self.scale = torch.nn.Parameter(torch.rand(8))
        self.mlp = torch.nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x)
        y = self.norm(x)
        x = x + (torch.nn.functional.avg_pool2d(y, 3, 1, 1) - y) * self.scale.view(8, 1, 1)
        return self.mlp(x).mean((2, 3))


def test_rule_2_layer_scale_counts_in_any_shape() -> None:
    plan = plan_for(PooledTokens())
    assert not [edge for edge in plan.edges if "add" in edge.consumer.name]
    assert "layer scale" in next(item.why for item in plan.skipped if item.what == "add")


def test_rule_3_a_pool_behind_a_norm_stays_float() -> None:
    plan = plan_for(PooledTokens())
    assert {edge.consumer.name for edge in plan.edges} == {"patch", "mlp", "mean"}
    assert "a pool after a norm" in next(item.why for item in plan.skipped if item.what == "avg_pool2d")


def test_rule_2_reaches_through_slices_and_zero_padding() -> None:
    _, plan = plan_of("option-a")
    assert "add[1] <- relu" in kinds(plan)


def test_rule_4_concatenated_tensors_share_a_scale_and_nothing_follows() -> None:
    graph, plan = plan_of("dense")
    (cat,) = [node for node in graph.graph.nodes if "cat" in node.name]
    assert not [site for edge in plan.edges for site in edge.sites if site.node is cat]
    tied = next(group for group in plan.groups if len(group) == 2)
    assert {site.node.name for site in tied} == {node.name for node in cat.args[0]}  # type: ignore[union-attr]


def test_rule_5_squeeze_excite_whole_or_not_at_all() -> None:
    _, plan = plan_of("squeeze-excite")
    consumers = {edge.consumer.name for edge in plan.edges}
    assert consumers == {"stem_0", "point_0", "mean", "head_linear"}
    assert {item.where for item in plan.skipped} == {"adaptive_avg_pool2d", "reduce", "expand"}
    _, whole = plan_of("squeeze-excite", replace(RULES, squeeze_excite="int8"))
    assert {edge.consumer.name for edge in whole.edges} == consumers | {
        "adaptive_avg_pool2d",
        "reduce",
        "expand",
        "mul",
    }
    assert not whole.skipped


@pytest.mark.parametrize(
    ("activation", "int8"), [("silu", False), ("spelled", False), ("relu", True), ("hardswish", True)]
)
def test_rule_5_by_activation(activation: str, int8: bool) -> None:
    class Gated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.reduce, self.expand = (torch.nn.Conv2d(*pair, 1) for pair in ((3, 8), (8, 4), (4, 8)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            x = x * torch.sigmoid(x) if activation == "spelled" else getattr(torch.nn.functional, activation)(x)
            gate = torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
            return (x * gate).mean((2, 3))

    plan = plan_for(Gated(), replace(RULES, squeeze_excite="by-activation"))
    consumers = {edge.consumer.name for edge in plan.edges}
    assert ({"reduce", "expand"} <= consumers) == int8
    assert any(name.startswith("mul") for name in consumers) == int8
    assert bool(plan.skipped) != int8


def test_rule_5_arithmetic_inside_the_branch_is_no_gate() -> None:
    class Swish(torch.nn.Module):
        """The gate's activations are spelled out, as exporters of other frameworks do it."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.reduce, self.expand = (torch.nn.Conv2d(*pair, 1) for pair in ((3, 8), (8, 4), (4, 8)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.stem(x))
            y = self.reduce(x.mean((2, 3), keepdim=True))
            y = self.expand(y * torch.sigmoid(y))
            return (x * (torch.clamp(y + 3, 0, 6) * 0.1666)).mean((2, 3))

    plan = plan_for(Swish(), replace(RULES, squeeze_excite="int8"))
    products = [edge.consumer.name for edge in plan.edges if edge.consumer.name.startswith("mul")]
    assert products == ["mul_2", "mul_2"]
    assert {"mean", "reduce", "expand"} <= {edge.consumer.name for edge in plan.edges}


class SpelledAttention(torch.nn.Module):
    """Attention as two matrix products around a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1, 2)
        scores = torch.matmul(self.query(x), self.key(x).transpose(1, 2)) / 8**0.5
        return torch.matmul(scores.softmax(-1), self.value(x))


def test_rule_7_queries_times_keys_alone() -> None:
    _, plan = plan_of("attention", replace(RULES, attention_matmul="scores"))
    attention = [edge for edge in plan.edges if edge.consumer.name == "scaled_dot_product_attention"]
    assert [edge.index for edge in attention] == [0, 1]
    # Symmetric, as a matrix product wants them, and where they are read.
    assert [site.role for edge in attention for site in edge.sites] == ["linear", "linear"]
    assert not plan.skipped


def test_rule_7_in_attention_that_is_spelled_out() -> None:
    def products(mode: str) -> list[str]:
        plan = plan_for(SpelledAttention(), replace(RULES, attention_matmul=mode))
        return [edge.consumer.name for edge in plan.edges if edge.consumer.name.startswith("matmul")]

    assert products("float") == []
    assert products("scores") == ["matmul", "matmul"]
    assert products("int8") == ["matmul", "matmul", "matmul_1", "matmul_1"]
    plan = plan_for(SpelledAttention(), replace(RULES, attention_matmul="scores"))
    assert [item.where for item in plan.skipped] == ["matmul_1"]


def test_rule_7_attention_only_in_its_linears() -> None:
    _, plan = plan_of("attention")
    assert {edge.consumer.name for edge in plan.edges} == {"patch", "qkv", "out", "classify"}
    assert [item.what for item in plan.skipped] == ["scaled_dot_product_attention"]


def test_depthwise_as_the_target_says() -> None:
    _, plan = plan_of("depthwise")
    assert "deep_0" in {node.name for node, _ in plan.weights}
    _, left = plan_of("depthwise", replace(RULES, depthwise="float"))
    assert "deep_0" not in {node.name for node, _ in left.weights}
    assert [(item.where, item.why) for item in left.skipped] == [
        ("deep_0", "the target runs depthwise convolutions faster in float")
    ]


def test_transposed_convolutions_scale_along_axis_one() -> None:
    _, plan = plan_of("upsampling")
    assert {node.name: axis for node, axis in plan.weights} == {"down_0": 0, "up": 1, "head_linear": 0}


def test_every_site_is_in_exactly_one_group() -> None:
    for name in ("residual", "dense", "attention", "option-a"):
        _, plan = plan_of(name)
        sites = {site for edge in plan.edges for site in edge.sites}
        grouped = [site for group in plan.groups for site in group]
        assert len(grouped) == len(set(grouped))
        assert set(grouped) == sites


def test_a_weight_that_is_computed_stays_float_with_its_reason() -> None:
    class Standardized(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.nn.functional.conv2d(x, self.weight - self.weight.mean())
            return x.mean((2, 3))

    item = load_program(Standardized(), task=None, example_inputs=(torch.randn(1, 3, 8, 8),))
    plan = make_plan(item.graph, node_facts(item.graph, torch.randn(1, 3, 8, 8)), RULES)
    assert [skipped.why for skipped in plan.skipped] == ["its weight is computed, not a parameter"]
    assert not plan.weights
