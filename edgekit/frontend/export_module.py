"""A live module into a :class:`~edgekit.program.Program`: export, remove writes, compare the answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from edgekit.errors import ModelError, StageError
from edgekit.frontend.agreement import TOLERANCE, disagreement, flat_tensors, random_like
from edgekit.frontend.aliasing import fake_run
from edgekit.frontend.canonical import canonicalized, opened
from edgekit.frontend.functional import functionalized
from edgekit.frontend.interface import flat_graph, other_dynamic, spec_of
from edgekit.frontend.reason import quiet, short_reason, user_line
from edgekit.program import Program, Record, Skipped
from edgekit.runtime.tasks.base import Spec

__all__ = ["IMAGE", "Source", "export_module"]

# What the runtime calls the one input of a model that has a task.
IMAGE = "image"
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model that can be run and exported.

    Attributes:
        module: What is exported; left as it is.
        inputs: Example inputs for the smallest batch that the module takes.
        name: Of the program.
        per_batch: The module was itself exported for the examples' batch and says nothing true about others: larger
            batches are compared with its answers to the parts.
        reference: What the answers are compared with, where that is not ``module``.
        records: What the loader did.
    """

    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    name: str
    per_batch: bool = False
    reference: nn.Module | None = None
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """One way to export: for any batch, or for the examples' batch only."""

    graph: fx.GraphModule
    outputs: tuple[str, ...]
    dynamic: bool
    rewritten: int
    skipped: tuple[Skipped, ...]
    worst: float


def export_module(source: Source, *, task: Spec | None) -> Program:
    """Exports a module in inference mode and checks that the graph answers as the module did.

    The module is copied first: its mode, device, dtype and buffers stay as they are. The copy is moved to the CPU and
    to float32. A dynamic batch is tried first; where the model does not allow it, the program is for the examples'
    batch, with the reason in its history.

    Raises:
        ModelError: The model does not run on the examples, or cannot be exported (the reason and the user's line are
            named).
        StageError: The exported graph answers differently.
    """
    module = _inference_copy(source.module)
    reference = module if source.reference is None else source.reference
    inputs = tuple(value.float() if value.is_floating_point() else value for value in source.inputs)
    with _plain_attention():
        _run(reference, inputs)
        image = None if task is None else IMAGE
        attempt, why = _dynamic(module, reference, inputs, source.per_batch, image)
        if attempt is None:
            attempt = _static(module, reference, inputs, image)
    skipped = (
        attempt.skipped
        if why is None
        else (*attempt.skipped, Skipped(what="dynamic batch", where=source.name, why=why))
    )
    batch = "any batch" if attempt.dynamic else f"batch {inputs[0].shape[0] if inputs[0].dim() else 1}"
    record = Record(
        stage="frontend.export",
        summary=f"exported with torch {torch.__version__} for {batch}: {len(attempt.graph.graph.nodes)} nodes",
        changed=attempt.rewritten,
        skipped=skipped,
        details={"max_relative_l2": attempt.worst, "tolerance": TOLERANCE, "dynamic_batch": attempt.dynamic},
    )
    return _program(source, attempt, task, (*source.records, record))


def _program(source: Source, attempt: _Attempt, task: Spec | None, history: tuple[Record, ...]) -> Program:
    graph = attempt.graph
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    outputs: Any = next(node for node in graph.graph.nodes if node.op == "output").args[0]
    return Program(
        graph=graph,
        inputs=tuple(spec_of(node.name, node.meta["val"], attempt.dynamic) for node in placeholders),
        outputs=tuple(
            spec_of(name, node.meta["val"], attempt.dynamic)
            for name, node in zip(attempt.outputs, outputs, strict=True)
        ),
        task=task,
        name=source.name,
        history=history,
    )


def _inference_copy(module: nn.Module) -> nn.Module:
    try:
        with quiet():
            copied = copy.deepcopy(module)
    except Exception as error:  # a module's own __deepcopy__ can raise anything
        raise ModelError(
            f"the module cannot be copied: {short_reason(error)}",
            hint="usually a tensor that is neither parameter nor buffer, as torch.nn.utils.weight_norm leaves;"
            " remove it first",
        ) from error
    if not isinstance(module, fx.GraphModule):
        copied.eval()
    return (
        copied.to("cpu", torch.float32)
        if any(_other_float(value) for value in copied.state_dict().values())
        else copied.to("cpu")
    )


def _other_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float32


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keeps ``nn.TransformerEncoderLayer`` from its fused kernel, which hides every layer inside one operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _shapes(inputs: tuple[torch.Tensor, ...]) -> str:
    return ", ".join("x".join(map(str, value.shape)) for value in inputs)


def _run(module: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> None:
    try:
        with torch.no_grad():
            answer = module(*(value.clone() for value in inputs))
    except Exception as error:  # the user's forward() can raise anything
        line = user_line(error)
        raise ModelError(
            f"the model fails on an input of {_shapes(inputs)}: {short_reason(error)}"
            + (f" (at {line})" if line else ""),
            hint="check size and channels in the task's [input] table, or the example inputs",
        ) from error
    leaves = [leaf for leaf in pytree.tree_leaves(answer) if leaf is not None]
    other = sorted({type(leaf).__name__ for leaf in leaves if not isinstance(leaf, torch.Tensor)})
    if other or not leaves:
        raise ModelError(
            f"the model returns {', '.join(other) if other else 'nothing'};"
            " expected tensors, alone or in a tuple, list or dict",
            hint="return tensors from forward()",
        )


def _dynamic(
    module: nn.Module, reference: nn.Module, inputs: tuple[torch.Tensor, ...], per_batch: bool, image: str | None
) -> tuple[_Attempt | None, str | None]:
    """Tries a dynamic batch; returns the attempt, or why it did not work."""
    if any(value.dim() == 0 for value in inputs) or len({value.shape[0] for value in inputs}) != 1:
        return None, "the inputs have no common first dimension"
    size = inputs[0].shape[0]
    compared = _by_parts(reference, size) if per_batch else reference
    twice = random_like(inputs, 2, seed=_SEED)
    try:
        with torch.no_grad():
            module(*(value.clone() for value in twice))
        exported = _exported(module, twice, tuple({0: Dim.DYNAMIC} for _ in inputs))
        why = other_dynamic(exported)
        if why is not None:
            return None, why
        rounds = [random_like(inputs, times, seed=_SEED + times) for times in (1, 2, 3)]
        return _attempt(exported, twice, compared, rounds, image, dynamic=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, the model may still work for one batch
        return None, short_reason(error)


def _static(module: nn.Module, reference: nn.Module, inputs: tuple[torch.Tensor, ...], image: str | None) -> _Attempt:
    try:
        exported = _exported(module, inputs, None)
    except Exception as error:  # torch.export raises a dozen types, the user's code any
        line = user_line(error)
        raise ModelError(
            f"torch.export cannot capture the model: {short_reason(error)}" + (f" (at {line})" if line else ""),
            hint="forward() must be one fixed graph: no if or loop on a tensor's values, no .item(), no numpy",
        ) from error
    rounds = [random_like(inputs, 1, seed=_SEED + number) for number in (1, 2)]
    attempt, why = _attempt(exported, inputs, reference, rounds, image, dynamic=False)
    if attempt is None:
        for values in rounds[:1]:
            _, unstable = disagreement(reference, reference, values)
            if unstable is not None:
                raise ModelError(
                    f"the model answers differently each time: {unstable}",
                    hint="in inference mode it must not draw random numbers; check dropout called with training=True",
                )
        raise StageError(
            f"the exported graph answers differently from the model: {why}", hint="please report this model"
        )
    return attempt


def _exported(module: nn.Module, inputs: tuple[torch.Tensor, ...], shapes: Any) -> ExportedProgram:
    # With gradients on, writes through some views are an error, and torch.no_grad() in forward() becomes a wrapper.
    with quiet(), torch.no_grad():
        return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)


def _attempt(
    exported: ExportedProgram,
    inputs: tuple[torch.Tensor, ...],
    reference: Callable[..., Any],
    rounds: list[tuple[torch.Tensor, ...]],
    image: str | None,
    *,
    dynamic: bool,
) -> tuple[_Attempt | None, str | None]:
    with quiet():
        flat, outputs = flat_graph(exported, single_input=image)
    plain = opened(flat)
    functional = functionalized(plain, fake_run(plain, inputs))
    graph = fx.GraphModule(plain, functional.graph)
    rewritten = functional.rewritten + canonicalized(graph.graph, fake_run(graph, inputs))
    # Made anew: a GraphModule takes along only the parameters and buffers that its graph names.
    graph = fx.GraphModule(graph, graph.graph)
    worst = 0.0
    for values in rounds:
        distance, why = disagreement(reference, graph, values)
        worst = max(worst, distance)
        if why is not None:
            return None, f"batch {values[0].shape[0] if values[0].dim() else 1}: {why}"
    attempt = _Attempt(
        graph=graph, outputs=outputs, dynamic=dynamic, rewritten=rewritten, skipped=functional.skipped, worst=worst
    )
    return attempt, None


def _by_parts(module: nn.Module, size: int) -> Callable[..., tuple[torch.Tensor, ...]]:
    """Returns a function that feeds a larger batch in parts of ``size`` and joins the answers."""

    def run(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parts = zip(*(torch.split(value, size) for value in inputs), strict=True)
        answers = [flat_tensors(module(*part)) for part in parts]
        return tuple(torch.cat(pieces) for pieces in zip(*answers, strict=True))

    return run
