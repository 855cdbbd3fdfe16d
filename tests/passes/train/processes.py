"""A training that ``torchrun`` starts several times; number 0 writes the weights to the path that it is given."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from edgekit.augmentation import load_augmentation
from edgekit.data import read_folder
from edgekit.frontend import load_program
from edgekit.objectives import objective_for
from edgekit.passes.train import Feed, HeldOut, Keeping, Supervised, TrainOptions, fit
from edgekit.passes.train.mode import tensors_of
from edgekit.program import Program
from tests import networks

SPEC = networks.spec()


class NoDropout(nn.Module):
    """Dropout and augmentation draw per process, so only networks without them can be compared number by number."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = networks.conv_bn(3, 8), networks.conv_bn(8, 16, stride=2)
        self.head = nn.Linear(16, len(networks.LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.deep(F.relu(self.stem(x)))).mean((2, 3)))


def program() -> Program:
    torch.manual_seed(0)
    return load_program(NoDropout().eval(), task=SPEC)


def train(data: Path, batch_norm: str, state: Path) -> dict[str, torch.Tensor]:
    options = TrainOptions(
        epochs=3,
        batch_size=12,
        learning_rate=0.02,
        batch_norm="live" if batch_norm == "live" else "frozen",
        clip_norm=1.0,
        ema_decay=0.9,
        device="cpu",
    )
    task = objective_for(SPEC)
    images = read_folder(data, networks.LABELS)
    feed = Feed(images, SPEC.input, task, options, augmentation=load_augmentation("none"), labelled=True)
    result, report = fit(
        program(),
        feed,
        Supervised(task),
        options,
        held_out=HeldOut(images, SPEC),
        keeping=Keeping(folder=state, resume=True),
    )
    scores = [torch.tensor([epoch.held_out, epoch.losses["loss"]]) for epoch in report.epochs]
    return {**tensors_of(result.graph), "scores": torch.stack(scores), "processes": torch.tensor(report.processes)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = train(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    # Every process has the same result; each writes its own.
    torch.save({name: value.detach() for name, value in found.items()}, f"{sys.argv[4]}.{os.environ['RANK']}")
