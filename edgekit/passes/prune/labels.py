"""Which elements of which dimensions must go together: integer labels in a union-find, some of them frozen.

Every dimension of every value carries one label per element. Operators say how labels flow and which are the same. A
class of labels is what can be removed at once; a frozen class stays, and remembers why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Axis", "Frozen", "IntArray", "Labels", "Value", "counted"]

IntArray = npt.NDArray[np.int64]
_FIRST_CAPACITY = 1 << 12


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Why a class stays.

    Attributes:
        where: The node or layer that holds it.
        why: One clause, such as ``it is an output of the network``.
    """

    where: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One dimension of a value.

    Attributes:
        labels: (size,) one label per element.
        zero: Whether the slice of a removed label is exactly zero once its producers are zero. Where it is not (after
            a sigmoid, say), removing it from a sum would lose a constant.
    """

    labels: IntArray
    zero: bool = True


# A dimension that carries no labels (the batch, pixels, anything of size 1) is None.
Value = tuple["Axis | None", ...]


def counted(axis: Axis | None, size: int) -> Axis | int:
    """Returns what a cost is multiplied by: the labels where there are some, else the plain size."""
    return size if axis is None else axis


class Labels:
    """A union-find over labels, vectorised where it can be."""

    def __init__(self) -> None:
        self._parent: IntArray = np.arange(_FIRST_CAPACITY, dtype=np.int64)
        self._frozen: dict[int, Frozen] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def fresh(self, count: int) -> IntArray:
        """Returns ``count`` new labels, each a class of its own."""
        end = self._count + count
        if end > len(self._parent):
            grown = np.arange(max(end, 2 * len(self._parent)), dtype=np.int64)
            grown[: self._count] = self._parent[: self._count]
            self._parent = grown
        labels = np.arange(self._count, end, dtype=np.int64)
        self._count = end
        return labels

    def find(self, labels: npt.NDArray[Any]) -> IntArray:
        """Returns the representative of each label's class; any shape."""
        roots: IntArray = self._parent[labels]
        while True:
            above = self._parent[roots]
            if np.array_equal(above, roots):
                break
            roots = above
        self._parent[labels] = roots
        return roots

    def unify(self, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> None:
        """Makes each label of ``left`` the same as the one of ``right`` beside it."""
        for a, b in zip(self.find(left).tolist(), self.find(right).tolist(), strict=True):
            one, other = self._root(a), self._root(b)
            if one == other:
                continue
            keep, gone = min(one, other), max(one, other)
            self._parent[gone] = keep
            reason = self._frozen.pop(gone, None)
            if reason is not None:
                self._frozen.setdefault(keep, reason)

    def freeze(self, labels: npt.NDArray[Any], reason: Frozen) -> None:
        """Keeps the classes of ``labels``; a class that is frozen already keeps its first reason."""
        for root in np.unique(self.find(labels)).tolist():
            self._frozen.setdefault(root, reason)

    def reason(self, root: int) -> Frozen | None:
        """Returns why a class stays, or None where it may go; ``root`` is from :meth:`find`."""
        return self._frozen.get(root)

    def _root(self, label: int) -> int:
        parent = self._parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = int(parent[label])
        return label
