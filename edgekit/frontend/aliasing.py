"""Which values of a graph share memory, found by running it on fake tensors (shapes without data)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from edgekit.errors import ModelError
from edgekit.frontend.reason import quiet

__all__ = ["Facts", "fake_run", "functional_form"]


@dataclass(kw_only=True)
class Facts:
    """What a run on fake tensors showed.

    Attributes:
        values: Node to its value: a fake tensor, a list of them, or a number. They are all kept alive, so that no two
            storages get the same identity.
        promoted: In-place node to the dtype that its functional form gives, where that differs from the tensor's own.
    """

    values: dict[fx.Node, Any] = field(default_factory=dict)
    promoted: dict[fx.Node, torch.dtype] = field(default_factory=dict)

    def storage(self, node: fx.Node) -> int | None:
        """Returns the identity of the memory behind a node's value, or None where it is no tensor."""
        value = self.values.get(node)
        return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def fake_run(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> Facts:
    """Runs ``graph`` on fake copies of ``inputs``.

    Raises:
        ModelError: An operator changes the shape of its input in place.
    """
    facts = Facts()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with quiet(), torch.no_grad(), mode:
        _Runner(graph, facts, mode).run(*(mode.from_tensor(value) for value in inputs))
    return facts


def functional_form(target: Any) -> Any | None:
    """Finds the operator that computes what an in-place one does, from the schemas: same arguments, nothing written.

    >>> functional_form(torch.ops.aten.relu_.default)
    <OpOverload(op='aten.relu', overload='default')>
    """
    schema = target._schema
    name = schema.name.partition("::")[2]
    if target.namespace != "aten" or not name.endswith("_"):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    if packet is None:
        return None
    wanted = [(arg.name, str(arg.type)) for arg in schema.arguments]
    for overload in packet.overloads():
        candidate = getattr(packet, overload)
        arguments = candidate._schema.arguments
        written = any(arg.alias_info is not None and arg.alias_info.is_write for arg in arguments)
        if not written and [(arg.name, str(arg.type)) for arg in arguments] == wanted:
            return candidate
    return None


class _Runner(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, facts: Facts, mode: FakeTensorMode) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.facts = facts
        self.mode = mode
        self.attributes: dict[int, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        before = None
        if n.op == "call_function" and isinstance(n.target, torch._ops.OpOverload):
            form = functional_form(n.target)
            if form is not None:
                args, kwargs = self.fetch_args_kwargs_from_env(n)
                before = args[0].shape
                dtype = form(*args, **kwargs).dtype
                if dtype != args[0].dtype:
                    self.facts.promoted[n] = args[0].dtype
        value = super().run_node(n)
        if before is not None and isinstance(value, torch.Tensor) and value.shape != before:
            raise ModelError(
                f"operator {n.target} changes the shape of a tensor in place",
                hint="use the form without the underscore",
            )
        self.facts.values[n] = value
        return value

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        if not isinstance(value, torch.Tensor):
            return value
        # One parameter that hangs in two places must stay one.
        if id(value) not in self.attributes:
            self.attributes[id(value)] = self.mode.from_tensor(value)
        return self.attributes[id(value)]
