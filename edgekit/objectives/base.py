"""What a task wants of a network while it trains: the loss, and how far two networks' answers are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from edgekit.data import Sample

__all__ = ["Outputs", "TaskObjective"]

Outputs = Mapping[str, torch.Tensor]
"""The program's outputs by name, each with a batch dimension."""


class TaskObjective(Protocol):
    """The training half of a task; an entry of the table in ``edgekit.objectives``.

    All values are means over the images of a batch, so that the mean over equal parts of a batch is that of the whole.
    """

    def encode(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Turns labels into what :meth:`loss` takes, one entry an image.

        Raises:
            DataError: An image has no label.
        """

    def mixed(self, targets: torch.Tensor, others: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """Returns the targets of images that were mixed, ``share`` (N,) of the first and the rest of the second."""

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Returns the task's loss, a scalar."""

    def divergence(self, outputs: Outputs, teacher: Outputs, temperature: float) -> torch.Tensor:
        """Returns how far the outputs are from a teacher's, a scalar that is zero where they agree."""

    def to_dict(self) -> dict[str, Any]:
        """Returns everything that its values depend on, as plain JSON-able data."""
