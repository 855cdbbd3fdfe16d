"""Programs in both forms, for the tests of what compares them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from edgekit.calibration import Corrections, Recipe
from edgekit.frontend import load_program
from edgekit.passes import run_passes
from edgekit.passes.fold import FoldBatchNorm
from edgekit.passes.quantize import Quantize
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from edgekit.targets import QuantizeRules
from tests.networks import CONTEXT, batches

DATA = CalibrationData(source=batches, count=32)
RULES_8 = QuantizeRules(activations="uint8-asymmetric")
RULES_7 = QuantizeRules(activations="uint8-asymmetric", weight_bits=7)


def quantized(item: Program, *, rules: QuantizeRules = RULES_7, data: CalibrationData = DATA) -> Program:
    """The int8 form, with nothing corrected."""
    recipe = Recipe(name="test", title="", corrections=Corrections(equalize="off", smooth=False, bias="off"))
    return run_passes(item, [Quantize(rules=rules, recipe=recipe, data=data)], CONTEXT)


def raw(module: nn.Module, *example: torch.Tensor) -> Program:
    """A folded program without a task: float inputs."""
    item = load_program(module.eval(), task=None, example_inputs=example)
    return run_passes(item, [FoldBatchNorm()], CONTEXT)


def noise(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """(count, *shape) float32: seeded normal values whose channels are alike to their neighbours, as in pictures."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((count, *shape), generator=generator)
    return values + values.roll(1, 1) + 0.3


def data_of(*tensors: torch.Tensor, size: int = 4) -> CalibrationData:
    """Calibration data of these inputs, in batches."""

    def source() -> Iterator[tuple[torch.Tensor, ...]]:
        return zip(*(tensor.split(size) for tensor in tensors), strict=True)

    return CalibrationData(source=source, count=len(tensors[0]))


def sqnr_db(reference: torch.Tensor, actual: torch.Tensor) -> float:
    """Signal to noise, in dB."""
    return float(10 * torch.log10(reference.square().sum() / (actual - reference).square().sum()))


class TwoStreams(nn.Module):
    """Two inputs, two outputs, one bias parameter that two convolutions share."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(4, 6, 3, padding=1)
        self.right = nn.Conv2d(4, 6, 1)
        self.right.bias = self.left.bias
        self.down = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=2, bias=False)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = torch.relu(self.left(x) + self.right(y))
        return self.head(self.down(both).mean((2, 3))), both.amax((2, 3))


def two_streams(batch: int) -> tuple[Program, CalibrationData]:
    """The program; a static batch of 1, or a dynamic one."""
    torch.manual_seed(0)
    inputs = noise(32, 4, 6, 6), noise(32, 4, 6, 6, seed=1)
    item = raw(TwoStreams(), *(tensor[:batch] for tensor in inputs))
    return item, data_of(*inputs, size=batch)
