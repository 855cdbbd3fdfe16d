"""Tensors that the graph makes itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.passes.prune.flow import Family, Flow, named
from edgekit.passes.prune.labels import Axis, Value

__all__ = ["FAMILIES"]

_A = torch.ops.aten
_ZEROS = (_A.zeros.default, _A.new_zeros.default)
_OTHERS = (_A.ones.default, _A.full.default, _A.new_ones.default, _A.new_full.default)


def _made(flow: Flow, node: fx.Node) -> Value:
    sizes = named(node)["size"]
    zero = node.target in _ZEROS
    return tuple(
        Axis(labels=flow.labels.fresh(size), zero=zero) if isinstance(size, int) and size > 1 else None
        for size in sizes
    )


def _new_sizes(cut: Any, node: fx.Node) -> None:
    cut.resize(node, "size")


FAMILIES = (Family(title="zeros, ones and constants", operators=(*_ZEROS, *_OTHERS), rule=_made, repair=_new_sizes),)
