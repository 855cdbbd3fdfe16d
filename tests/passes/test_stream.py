"""Streaming through a float graph: the same tensors as a plain run, whatever is written over on the way."""

from typing import Any

import pytest
import torch
from torch import fx, nn

from edgekit.frontend import load_program
from edgekit.passes.aten import is_call
from edgekit.passes.stream import Streamer

_A = torch.ops.aten


class Branches(nn.Module):
    """Results that one node reads, that two read, and that one node reads twice; sums of unlike shapes; views."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 1)
        self.third = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))  # over the convolution's result
        x = torch.minimum(x, x.new_tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1))  # over that again
        y = self.second(x)
        y = y.sigmoid() + torch.nn.functional.silu(y)  # two read it: not over it
        z = self.third(x)
        z = z + z  # twice the same
        x = torch.clamp(y + z, -1, 1) + x.mean((2, 3), keepdim=True)
        small = self.second(x.mean((2, 3), keepdim=True)) + x  # the result is larger than the first argument
        moved = self.third(small)[:, 1:]  # a view of a result
        ramp = (torch.arange(2, device=x.device) + 1) + 0.5  # integers, then no longer
        return self.head(small.mean((2, 3)) + moved.relu().sum()) + ramp


class Kept(Streamer):
    """Copies what it sees."""

    def __init__(self, graph: fx.GraphModule, **options: Any) -> None:
        super().__init__(graph, **options)
        self.seen: dict[str, torch.Tensor] = {}

    def saw(self, node: fx.Node, result: Any) -> None:
        if isinstance(result, torch.Tensor):
            self.seen[node.name] = result.clone()


class Plain(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.seen: dict[str, torch.Tensor] = {}

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if isinstance(result, torch.Tensor):
            self.seen[node.name] = result.clone()
        return result


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def graph(images: torch.Tensor) -> fx.GraphModule:
    torch.manual_seed(0)
    return load_program(Branches().eval(), task=None, example_inputs=(images[:1],)).graph


def test_every_tensor_is_that_of_a_plain_run(graph: fx.GraphModule, images: torch.Tensor) -> None:
    plain, streamed, given = Plain(graph), Kept(graph), images.clone()
    with torch.no_grad():
        plain.run(images)
    for _ in range(2):  # weights are the same after a run, too
        streamed.stream((images,))
        assert streamed.seen.keys() == plain.seen.keys()
        for name, tensor in plain.seen.items():
            assert torch.equal(streamed.seen[name], tensor), name
    assert torch.equal(images, given)


def test_a_result_that_one_node_reads_is_written_over(graph: fx.GraphModule, images: torch.Tensor) -> None:
    places: dict[str, int] = {}

    class Places(Streamer):
        def saw(self, node: fx.Node, result: Any) -> None:
            if isinstance(result, torch.Tensor):
                places[node.name] = result.data_ptr()

    Places(graph).stream((images,))
    relu = next(node for node in graph.graph.nodes if is_call(node, {_A.relu.default}))
    silu = next(node for node in graph.graph.nodes if is_call(node, {_A.silu.default}))
    assert places[relu.name] == places[relu.args[0].name]
    assert places[silu.name] != places[silu.args[0].name]


def test_arguments_of_spared_nodes_survive(graph: fx.GraphModule, images: torch.Tensor) -> None:
    relu = next(node for node in graph.graph.nodes if is_call(node, {_A.relu.default}))
    negative: list[bool] = []

    class Looks(Streamer):
        def saw(self, node: fx.Node, result: Any) -> None:
            if node is relu:
                negative.append(bool((self.fetch_args_kwargs_from_env(node)[0][0] < 0).any()))

    Looks(graph, spared={relu}).stream((images,))
    Looks(graph).stream((images,))
    assert negative == [True, False]


def test_nothing_runs_behind_the_last_node(graph: fx.GraphModule, images: torch.Tensor) -> None:
    relu = next(node for node in graph.graph.nodes if is_call(node, {_A.relu.default}))
    kept = Kept(graph, last=relu)
    kept.stream((images,))
    assert list(kept.seen)[-1] == relu.name
