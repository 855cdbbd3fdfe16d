"""How good a network is between two epochs: the task's metric on held-out images, or the loss without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from edgekit.data import Dataset, ImageStore
from edgekit.data.store import Images
from edgekit.evaluate import Answer, ReadImage, score
from edgekit.passes.train.feed import described
from edgekit.passes.train.objective import LOSS, Objective, Seen
from edgekit.passes.train.pixels import PixelScale
from edgekit.program import Program
from edgekit.runtime.tasks.base import Spec

__all__ = ["HeldOut", "Score"]

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Score:
    """A network's score on held-out images.

    Attributes:
        name: The task's metric, or ``loss``.
        value: The score.
        higher_is_better: True for metrics.
        per_class: The metric by class; empty for a loss, and without classes that have no image.
    """

    name: str
    value: float
    higher_is_better: bool
    per_class: dict[str, float] = field(default_factory=dict)

    def beats(self, other: Score) -> bool:
        """Whether this one is better; equal ones are not, nor is a score that is no number."""
        return self.value > other.value if self.higher_is_better else self.value < other.value


class HeldOut:
    """Images that are scored after each epoch.

    Args:
        dataset: With labels the task's metric is taken, without the objective's loss.
        spec: The task spec.
        workers: Threads that read images.
    """

    def __init__(self, dataset: Dataset, spec: Spec, *, workers: int = 2) -> None:
        self.dataset = dataset
        self._spec = spec
        self._store = ImageStore(dataset, spec.input, workers=workers)

    def score(
        self, network: nn.Module, program: Program, objective: Objective, device: torch.device, step: Callable[[], None]
    ) -> Score:
        """Scores a network in inference mode.

        Args:
            network: Takes float images, gives the program's outputs.
            program: Says what they are called.
            objective: Gives the loss where there are no labels.
            device: Where the network is.
            step: Called after each batch.

        Raises:
            DataError: Too many images cannot be read.
        """
        if self.dataset.labelled:
            report = score(self._spec, self._answers(network, program, device, step))
            per_class = {name: item.value for name, item in report.per_class.items() if item.value is not None}
            return Score(name=report.name, value=report.value, higher_is_better=True, per_class=per_class)
        total, count = 0.0, 0
        for _, images, outputs in self._batches(network, program, device):
            with torch.no_grad():
                seen = Seen(images=images, outputs=outputs, features={}, targets=None)
                total += float(objective(seen)[LOSS]) * len(images)
            count += len(images)
            step()
        return Score(name=LOSS, value=total / max(1, count), higher_is_better=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns what the scores depend on, for the check of checkpoints."""
        return described(self.dataset)

    @property
    def steps(self) -> int:
        """How many batches are scored."""
        return -(-len(self.dataset) // _BATCH)

    def _answers(
        self, network: nn.Module, program: Program, device: torch.device, step: Callable[[], None]
    ) -> Iterator[Answer]:
        for read, _, outputs in self._batches(network, program, device):
            arrays = {name: value.float().cpu().numpy() for name, value in outputs.items()}
            for row, index in enumerate(read.indices):
                image = ReadImage(
                    sample=self.dataset.samples[index], pixels=read.pixels[row], frame_shape=read.frame_shapes[row]
                )
                yield image, {name: array[row : row + 1] for name, array in arrays.items()}
            step()

    def _batches(
        self, network: nn.Module, program: Program, device: torch.device
    ) -> Iterator[tuple[Images, torch.Tensor, dict[str, torch.Tensor]]]:
        scale = PixelScale(self._spec.input, device)
        count = len(self.dataset)
        for read in self._store.batches(range(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)):
            if not read.indices:
                continue
            images = scale.normalised(scale.shares(torch.from_numpy(read.pixels)))
            with torch.no_grad():
                result = network(images)
            values = result if isinstance(result, (tuple, list)) else (result,)
            yield read, images, {item.name: value for item, value in zip(program.outputs, values, strict=True)}
