"""Which pairs of a quantized graph may learn their step, and which must keep one step in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from edgekit.errors import InternalError
from edgekit.passes.aten import is_call, read_tensor
from edgekit.passes.quantize.insert import moved_tensors
from edgekit.passes.quantize.ops import QDQ
from edgekit.passes.quantize.pixels import keeps_pixels
from edgekit.passes.quantize.policy import moves_only
from edgekit.program import Skipped

__all__ = ["Groups", "find_groups", "scale_of"]

_A = torch.ops.aten


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The pairs of a graph.

    Attributes:
        learned: Pairs that share a step, in graph order; most groups have one.
        fixed: Those whose step stays, with the reason.
    """

    learned: tuple[tuple[fx.Node, ...], ...]
    fixed: tuple[Skipped, ...]


def find_groups(graph: fx.GraphModule, facts: dict[fx.Node, torch.Tensor]) -> Groups:
    """Sorts the pairs of a graph.

    One step is shared by pairs that read the same scale, and by those that a concatenation puts together: without that
    an integer kernel would have to round again (rule 4). A pair that holds raw pixels is not touched: its input already
    is integers. Zero-points stay everywhere, and so does what depends on them: which side of zero a grid covers.

    Args:
        graph: Quantized.
        facts: From :func:`edgekit.passes.aten.node_facts`.

    Raises:
        InternalError: Pairs that must share a step have different ones.
    """
    pairs = [node for node in graph.graph.nodes if is_call(node, {QDQ})]
    parent: dict[fx.Node, fx.Node] = {pair: pair for pair in pairs}

    def root(pair: fx.Node) -> fx.Node:
        while parent[pair] is not pair:
            pair = parent[pair]
        return pair

    def tie(members: list[fx.Node]) -> None:
        for member in members[1:]:
            parent[root(member)] = root(members[0])

    by_scale: dict[str, list[fx.Node]] = {}
    for pair in pairs:
        by_scale.setdefault(scale_of(pair), []).append(pair)
    for members in by_scale.values():
        tie(members)
    for node in graph.graph.nodes:
        if is_call(node, {_A.cat.default}):
            tie(_behind(node))
    groups: dict[fx.Node, list[fx.Node]] = {}
    for pair in pairs:
        groups.setdefault(root(pair), []).append(pair)
    fixed: list[Skipped] = []
    learned = []
    for members in groups.values():
        _check_equal(graph, members)
        if any(keeps_pixels(graph, facts, pair) for pair in members):
            why = "it holds raw pixels: its grid is theirs"
            fixed += [Skipped(what="step", where=scale_of(pair), why=why) for pair in members]
        else:
            learned.append(tuple(members))
    return Groups(learned=tuple(learned), fixed=tuple(fixed))


def scale_of(pair: fx.Node) -> str:
    """Returns the name of the tensor that a pair reads its scale from."""
    scale = pair.args[1]
    assert isinstance(scale, fx.Node)
    return str(scale.target)


def _behind(node: fx.Node) -> list[fx.Node]:
    """Returns the pairs whose values a concatenation holds; none where one of its parts is float."""
    found: list[fx.Node] = []
    for part in moved_tensors(node):
        while moves_only(part):
            source = part.args[0]
            assert isinstance(source, fx.Node)
            part = source
        if is_call(part, {QDQ}):
            found.append(part)
        elif is_call(part, {_A.cat.default}) and (inner := _behind(part)):
            found += inner
        else:
            return []
    return found


def _check_equal(graph: fx.GraphModule, members: list[fx.Node]) -> None:
    for index, what in ((1, "scales"), (2, "zero-points")):
        first, *others = (read_tensor(graph, pair.args[index]) for pair in members)  # type: ignore[arg-type]
        if not all(torch.equal(first, other) for other in others):
            names = ", ".join(scale_of(pair) for pair in members)
            raise InternalError(f"{names}: pairs of one concatenation, with different {what}")
