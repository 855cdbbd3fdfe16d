"""Feature hints: which layers of student and teacher belong together, and the learned maps between them.

Source: Romero et al. 2015, FitNets, arXiv:1412.6550, section 2.2 (the regressor is a 1x1 convolution here).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn

from edgekit.errors import UserError
from edgekit.passes.aten import node_facts
from edgekit.passes.train.mode import feature_nodes
from edgekit.program import Program

__all__ = ["Hint", "hint_loss", "matched_hints", "projection"]


@dataclass(frozen=True, kw_only=True)
class Hint:
    """Two nodes whose values are compared.

    Attributes:
        student, teacher: Names of the nodes.
        student_channels, teacher_channels: Of their values.
        images: Whether the values are (N, C, H, W); else (N, ..., C).
    """

    student: str
    teacher: str
    student_channels: int
    teacher_channels: int
    images: bool


def matched_hints(student: Program, teacher: Program, wanted: tuple[str, ...] | int) -> tuple[Hint, ...]:
    """Returns the pairs that :class:`~edgekit.passes.distill.options.DistillOptions` asks for.

    Raises:
        UserError: A name is not there, there are too few stages, or two features do not lie over each other.
    """
    first, second = _shapes(student), _shapes(teacher)
    if isinstance(wanted, int):
        ends = [_stage_ends(shapes)[-wanted:] if wanted else [] for shapes in (first, second)]
        for program, found in zip((student, teacher), ends, strict=True):
            if len(found) < wanted:
                raise UserError(
                    f"hints = {wanted}: '{program.name}' has only {len(found)} stages of one feature size",
                    hint="ask for fewer, or name the layers",
                )
        pairs = list(zip(*ends, strict=True))
    else:
        pairs = []
        for text in wanted:
            name, _, other = text.partition("=")
            pairs.append((name.strip(), other.strip() if other else name.strip()))
    feature_nodes(student.graph, [name for name, _ in pairs])
    feature_nodes(teacher.graph, [name for _, name in pairs])
    return tuple(_hint(name, other, first, second) for name, other in pairs)


def projection(hint: Hint) -> nn.Module:
    """Returns the learned map from the student's channels to the teacher's."""
    if hint.images:
        return nn.Conv2d(hint.student_channels, hint.teacher_channels, 1)
    return nn.Linear(hint.student_channels, hint.teacher_channels)


def hint_loss(projected: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Returns the squared difference over the square of what is wanted, so that layers of any scale weigh alike."""
    wanted = wanted.float()
    return (projected.float() - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12)


def _hint(name: str, other: str, first: dict[str, torch.Size], second: dict[str, torch.Size]) -> Hint:
    mine, theirs = first.get(name), second.get(other)
    if mine is None or theirs is None or len(mine) < 2 or len(theirs) < 2:
        raise UserError(f"hint '{name}={other}': a node gives no features", hint="name a convolution or an activation")
    images = len(mine) == 4
    lies_over = mine[2:] == theirs[2:] if images else mine[:-1] == theirs[:-1]
    if len(mine) != len(theirs) or not lies_over:
        raise UserError(
            f"hint '{name}={other}': the student's features are {tuple(mine)}, the teacher's {tuple(theirs)}: all but "
            "the channels must be equal",
            hint="name layers where both networks have shrunk the image alike",
        )
    axis = 1 if images else -1
    return Hint(student=name, teacher=other, student_channels=mine[axis], teacher_channels=theirs[axis], images=images)


def _shapes(program: Program) -> dict[str, torch.Size]:
    """Returns the shapes of what float operators give for a batch of two."""
    graph = _on_meta(program.graph)
    inputs = [torch.zeros([2, *(size or 1 for size in spec.shape[1:])], device="meta") for spec in program.inputs]
    return {
        node.name: value.shape
        for node, value in node_facts(graph, *inputs).items()
        if node.op == "call_function" and value.is_floating_point()
    }


def _on_meta(graph: fx.GraphModule) -> fx.GraphModule:
    import copy

    return copy.deepcopy(graph).to("meta")


def _stage_ends(shapes: dict[str, torch.Size]) -> list[str]:
    """Returns the last node of each run of (N, C, H, W) values of one H and W, larger than one pixel."""
    ends: dict[tuple[int, int], str] = {}
    for name, shape in shapes.items():
        if len(shape) == 4 and shape[2] * shape[3] > 1:
            ends[(shape[2], shape[3])] = name
    return list(ends.values())
