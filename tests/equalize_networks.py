"""Networks for the tests of channel scaling, and what those tests measure."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from edgekit.calibration import Corrections, Recipe
from edgekit.frontend import load_program
from edgekit.passes import Pass, run_passes
from edgekit.passes.equalize import DropImpliedBounds, EqualizeChannels, SmoothActivations
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.passes.quantize import Quantize
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program, Record
from edgekit.targets import QuantizeRules
from tests.networks import CONTEXT, batches, pictures, spec

UINT8 = QuantizeRules(activations="uint8-asymmetric")
INT8 = QuantizeRules(activations="int8-symmetric")
RECIPE = Recipe(name="test", title="", batch_size=8)
CORRECTIONS = Corrections(equalize="all", samples=24, held_out=8)
DATA = CalibrationData(source=batches, count=32)
UNSEEN = pictures(32, seed=99)
Activation = Callable[[torch.Tensor], torch.Tensor]


class Chain(nn.Module):
    """Pointwise and depthwise convolutions by turns, with one activation after each."""

    def __init__(self, activation: Activation = F.relu) -> None:
        super().__init__()
        self.activation = activation
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.deep = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.wide = nn.Conv2d(16, 32, 1)
        self.deeper = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.point = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.stem, self.deep, self.wide, self.deeper, self.point):
            x = self.activation(layer(x))
        return self.head(x.mean((2, 3)))


class Tokens(nn.Module):
    """A layer norm that three linears read, one that one linear reads, one without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.before = nn.LayerNorm(32)
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.after = nn.LayerNorm(32)
        self.up = nn.Linear(32, 64)
        self.down = nn.Linear(64, 32)
        self.last = nn.LayerNorm(32, elementwise_affine=False)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        y = self.before(x)
        x = x + F.scaled_dot_product_attention(self.query(y), self.key(y), self.value(y))
        x = x + self.down(F.gelu(self.up(self.after(x))))
        return self.head(self.last(x)[:, 1:]).mean(1)


class Awkward(nn.Module):
    """What may lie between and around two layers: moves, grouped and transposed convolutions, linears, clamps."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.two = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(8, 12, 2, 2)
        self.three = nn.Conv2d(12, 6, 3, groups=3)
        self.slope = nn.PReLU(6)
        self.four = nn.Conv2d(6, 8, 1)
        self.five, self.six = nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(F.pad(F.max_pool2d(F.relu6(self.one(x)), 2), (1, 0, 1, 0)))
        x = self.three(F.hardtanh(self.up(F.leaky_relu(x, 0.1)), 0.0, 0.5))
        x = self.four(F.interpolate(self.slope(x), scale_factor=2.0, mode="nearest"))
        return self.six(F.relu6(self.five(x.mean((2, 3)))))


class TwoByTwo(nn.Module):
    """Two inputs and two outputs; one chain's tensor is an output too."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.left2, self.right2 = nn.Conv2d(8, 4, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = F.relu(self.left(x)), F.relu(self.right(y))
        return self.left2(x) + self.right2(y), y


Net = TypeVar("Net", bound=nn.Module)


def built(net: Net) -> Net:
    """The network with seeded weights that keep the size of what flows through."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, item in net.named_parameters():
            if item.ndim > 1:
                item.normal_(0, 1 / math.sqrt(item[0].numel()), generator=generator)
            else:
                item.normal_(1.0 if name.endswith("weight") else 0.0, 0.1, generator=generator)
    return net.eval()


def broken(net: Chain, first: str, second: str, *, shrink: bool = False) -> Chain:
    """Scales the rows of a layer by 1 to 1,000 and compensates in the next: the same function."""
    made, read = getattr(net, first), getattr(net, second)
    factors = 10 ** (3 * torch.rand(len(made.weight), generator=torch.Generator().manual_seed(1)))
    factors = 1 / factors if shrink else factors
    with torch.no_grad():
        made.weight.mul_(factors.reshape(-1, 1, 1, 1))
        made.bias.mul_(factors)
        read.weight.div_(factors.reshape((-1, 1, 1, 1) if read.groups > 1 else (1, -1, 1, 1)))
    return net


def loaded(net: nn.Module) -> Program:
    return run_passes(load_program(net.eval(), task=spec()), [FoldBatchNorm(), FoldPreprocessing()], CONTEXT)


def equalizing(rules: QuantizeRules = UINT8, data: CalibrationData = DATA) -> EqualizeChannels:
    return EqualizeChannels(rules=rules, corrections=CORRECTIONS, data=data)


def smoothing(rules: QuantizeRules = UINT8, data: CalibrationData = DATA) -> SmoothActivations:
    return SmoothActivations(rules=rules, corrections=CORRECTIONS, data=data)


def quantizing(rules: QuantizeRules = UINT8) -> list[Pass]:
    return [Quantize(rules=rules, recipe=RECIPE, data=DATA), DropImpliedBounds()]


def sqnr_db(reference: torch.Tensor, actual: torch.Tensor) -> float:
    noise = (actual - reference).double().square().sum()
    return float(10 * torch.log10(reference.double().square().sum() / noise)) if noise > 0 else math.inf


def centred(program: Program) -> torch.Tensor:
    """Outputs on unseen images without their mean: what a constant output would not get right."""
    output = program.run(UNSEEN)[0]
    return output - output.mean(0)


def int8_db(program: Program, *passes: Pass, rules: QuantizeRules = UINT8) -> float:
    return sqnr_db(centred(program), centred(run_passes(program, [*passes, *quantizing(rules)], CONTEXT)))


def record_of(program: Program, stage: str) -> Record:
    return next(item for item in program.history if item.stage == stage)


def operators(program: Program) -> list[object]:
    return [node.target for node in program.graph.graph.nodes if node.op == "call_function"]


def saturating() -> Program:
    """ReLU6 networks whose channels differ, and some of which reach six."""
    net = built(Chain(F.relu6))
    with torch.no_grad():
        for layer in (net.stem, net.wide):
            factors = 10 ** torch.linspace(-2, 1, len(layer.weight))  # type: ignore[arg-type]
            layer.weight.mul_(factors.reshape(-1, 1, 1, 1))  # type: ignore[operator, union-attr]
    return loaded(net)


@cache
def awkward() -> Program:
    return loaded(built(Awkward()))


@cache
def tokens() -> Program:
    return loaded(built(Tokens()))
