"""One small network for each way in which channels hang together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["NETWORKS", "Case", "build"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and what pruning must find in it.

    Attributes:
        make: Builds it.
        narrows: Layers that must lose channels when half of the arithmetic is to go.
        stays: Layers that must not.
        sizes: Shapes of its inputs, without the batch.
    """

    make: Callable[[], nn.Module]
    narrows: Sequence[str] = ()
    stays: Sequence[str] = ()
    sizes: Sequence[tuple[int, ...]] = ((3, 16, 16),)


def build(case: Case) -> nn.Module:
    """Seeded weights, and statistics of batch norm that are not the identity."""
    torch.manual_seed(0)
    module = case.make()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
        if isinstance(part, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)) and part.weight is not None:
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    return module.eval()


def _conv(inputs: int, outputs: int, kernel: int = 3, **more: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **more)


def _unit(inputs: int, outputs: int, kernel: int = 3, **more: int) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs, kernel, **more), nn.BatchNorm2d(outputs), nn.ReLU())


class Classified(nn.Module):
    """A body of images, averaged, with a linear layer behind it."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = _conv(channels, channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.two = _conv(channels, channels)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.two(F.relu(self.norm1(self.one(x))))))


class PreActivation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.one = _conv(channels, 2 * channels)
        self.two = _conv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(F.silu(self.one(F.relu(self.norm(x)))))


class PaddedShortcut(nn.Module):
    """Subsamples and pads with channels of zeros (He et al. 2016, option A)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, 8)
        self.wide = _conv(8, 16, stride=2)
        self.after = _conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.after(F.relu(self.wide(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, gate: type[nn.Module]) -> None:
        super().__init__()
        self.before = _unit(3, channels)
        self.down = nn.Conv2d(channels, channels // 2, 1)
        self.up = nn.Conv2d(channels // 2, channels, 1)
        self.gate = gate()
        self.after = _conv(channels, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(x * self.gate(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + 8 * index), nn.ReLU(), _conv(8 + 8 * index, 8)) for index in range(3)
        )
        self.stem = _conv(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.stem(x)]
        for layer in self.layers:
            parts.append(layer(torch.cat(parts, 1)))
        return torch.cat(parts, 1)


class SplitBottlenecks(nn.Module):
    """C2f of YOLOv8: halves by chunk, all of them joined."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = _unit(3, 16, 1)
        self.inner = Residual(8)
        self.leave = _unit(24, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.enter(x).chunk(2, 1)
        return self.leave(torch.cat([one, two, self.inner(two)], 1))


class PoolPyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = _unit(3, 12, 1)
        self.leave = _unit(36, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.enter(x)
        two = F.max_pool2d(one, 5, 1, 2)
        return self.leave(torch.cat([one, two, F.max_pool2d(two, 5, 1, 2)], 1))


class Pyramid(nn.Module):
    """A feature pyramid with shared heads: two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = _unit(3, 8), _unit(8, 16, stride=2)
        self.side_low, self.side_high = nn.Conv2d(8, 12, 1), nn.Conv2d(16, 12, 1)
        self.shared = _unit(12, 12)
        self.out = _conv(12, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.low(x)
        high = self.side_high(self.high(low))
        merged = self.side_low(low) + F.interpolate(high, scale_factor=2.0, mode="nearest")
        return self.out(self.shared(merged)), self.out(self.shared(high))


class Shuffled(nn.Module):
    """A unit of ShuffleNetV2: half of the channels pass by, and all are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, 16)
        self.branch = nn.Sequential(_unit(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), _unit(8, 8, 1))
        self.after = _unit(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.stem(x).chunk(2, 1)
        joined = torch.cat([one, self.branch(two)], 1)
        size, channels, height, width = joined.shape
        mixed = (
            joined.view(size, 2, channels // 2, height, width).transpose(1, 2).reshape(size, channels, height, width)
        )
        return self.after(mixed)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = _unit(3, 8), _unit(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = _unit(16, 8)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        return self.out(self.last(torch.cat([one, self.up(two)], 1)))


class Recurrent(nn.Module):
    """Columns of an image as a sequence (Shi et al. 2015)."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.conv = _unit(3, 8)
        self.rnn = kind(8 * 16, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(24, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.head(self.rnn(x.permute(0, 3, 1, 2).flatten(2))[0])


class Attention(nn.Module):
    """A transformer block; attention as one operator, or written out."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.patch = nn.Conv2d(3, 32, 4, stride=4)
        self.position = nn.Parameter(torch.randn(1, 16, 32))
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.project = nn.Linear(32, 96), nn.Linear(32, 32)
        self.enter, self.leave = nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        size, tokens, channels = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(size, tokens, 3, 4, channels // 4).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * 8**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.project(y.transpose(1, 2).reshape(size, tokens, -1))
        x = x + self.leave(F.gelu(self.enter(self.norm2(x))))
        return self.head(x.mean(1))


class TorchAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, stride=4)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class Shared(nn.Module):
    """One convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, 12)
        self.shared = _conv(12, 12)
        self.after = _conv(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.shared(self.stem(x)))
        return self.after(F.relu(self.shared(x)))


class Tied(nn.Module):
    """An autoencoder whose decoder is the encoder's transpose: one weight in two roles."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(24, 16, bias=False)
        self.flat = nn.Sequential(_unit(3, 24), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.encode(self.flat(x))) @ self.encode.weight


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(_unit(3, 8), _unit(8, 16, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(16, 1)

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        return self.head((self.branch(one) - self.branch(two)).abs())


class NotZero(nn.Module):
    """Functions that do not keep zero before a layer that sums over channels: removing one would lose a constant."""

    def __init__(self, function: Callable[[Tensor], Tensor], *, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.one, self.two = _conv(3, 12), _conv(12, 12)
        self.last = _conv(12, 4)
        self.norm = norm if norm is not None else nn.Identity()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.two(self.function(self.norm(self.one(x))))))


class Flattened(nn.Module):
    """VGG's head: channels and pixels in one row."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_unit(3, 12), nn.MaxPool2d(4))
        self.hidden, self.head = nn.Linear(12 * 16, 20), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.body(x).flatten(1))))


class Gated(nn.Module):
    """Halves that multiply each other."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = _conv(3, 24), _conv(12, 6)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.enter(x).split(12, 1)
        return self.leave(value * torch.sigmoid(gate))


class Cascade(nn.Module):
    """Res2Net: pieces of the channels, each with the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = _unit(3, 24, 1), _unit(24, 8, 1)
        self.steps = nn.ModuleList(_unit(6, 6) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        pieces = torch.split(self.enter(x), 6, 1)
        done = [pieces[0]]
        for step, piece in zip(self.steps, pieces[1:], strict=True):
            done.append(step(piece + done[-1]))
        return self.leave(torch.cat(done, 1))


class Scaled(nn.Module):
    """Layer scale, as in ConvNeXt: channels last around linear layers, a learned scale, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 16)
        self.depth = nn.Conv2d(16, 16, 7, padding=3, groups=16)
        self.norm = nn.LayerNorm(16)
        self.enter, self.leave = nn.Linear(16, 64), nn.Linear(64, 16)
        self.gamma = nn.Parameter(torch.rand(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = (self.gamma * self.leave(F.gelu(self.enter(y)))).permute(0, 3, 1, 2)
        return self.head((x + y).mean((2, 3)))


class Standardized(nn.Module):
    """A weight that the graph computes: its layer stays, the others go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.last = _unit(3, 12), _unit(12, 12), _conv(12, 12), _conv(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.two.weight
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        return self.last(F.relu(F.conv2d(self.one(self.stem(x)), centred, self.two.bias, padding=1)))


class Unknown(nn.Module):
    """An operator without a rule: what it touches stays, the rest goes."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.last = _unit(3, 12), _conv(12, 12), _conv(12, 12), _conv(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(self.one(x))
        return self.last(F.relu(self.three(torch.cumsum(y, 1))))


class Embedding(nn.Module):
    """A normalised embedding: a norm over channels that are outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(_unit(3, 16), _unit(16, 16, stride=2))
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.head(self.body(x).mean((2, 3))))


def _plain(*, middle: nn.Module, channels: int = 16) -> nn.Module:
    return nn.Sequential(_unit(3, 16), middle, _unit(channels, 16, 1), nn.Conv2d(16, 4, 1))


def _depthwise() -> nn.Module:
    return _plain(middle=nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU6()))


def _grouped(groups: int) -> nn.Module:
    return _plain(middle=_unit(16, 16, groups=groups))


NETWORKS: dict[str, Case] = {
    "plain": Case(make=lambda: _plain(middle=_unit(16, 16)), narrows=("0.0", "1.0", "2.0"), stays=("3",)),
    "residual": Case(
        make=lambda: Classified(nn.Sequential(_unit(3, 12), Residual(12), Residual(12)), 12),
        narrows=("body.0.0", "body.1.one", "body.1.two"),
        stays=("head",),
    ),
    "pre-activation": Case(
        make=lambda: Classified(nn.Sequential(_conv(3, 8), PreActivation(8), PreActivation(8)), 8),
        narrows=("body.0", "body.1.one", "body.2.two"),
    ),
    "padded shortcut": Case(make=lambda: Classified(PaddedShortcut(), 16), narrows=("body.stem.0", "body.wide")),
    "depthwise": Case(make=_depthwise, narrows=("0.0", "1.0", "2.0")),
    "depthwise with a multiplier": Case(
        make=lambda: _plain(middle=nn.Conv2d(16, 32, 3, padding=1, groups=16), channels=32), narrows=("0.0", "1")
    ),
    "two groups": Case(make=partial(_grouped, 2), narrows=("0.0", "1.0")),
    "eight groups": Case(make=partial(_grouped, 8), narrows=("0.0", "1.0")),
    "squeeze and excite": Case(
        make=lambda: SqueezeExcite(12, nn.Sigmoid), narrows=("before.0", "down", "up"), stays=("after",)
    ),
    "hard squeeze and excite": Case(make=lambda: SqueezeExcite(12, nn.Hardsigmoid), narrows=("before.0", "down", "up")),
    "dense": Case(make=lambda: Classified(Dense(), 32), narrows=("body.stem", "body.layers.0.2", "body.layers.2.2")),
    "split bottlenecks": Case(
        make=lambda: Classified(SplitBottlenecks(), 12), narrows=("body.enter.0", "body.inner.one", "body.leave.0")
    ),
    "pool pyramid": Case(make=lambda: Classified(PoolPyramid(), 12), narrows=("body.enter.0", "body.leave.0")),
    "feature pyramid": Case(make=Pyramid, narrows=("low.0", "high.0", "side_low", "shared.0"), stays=("out",)),
    "shuffle": Case(
        make=lambda: Classified(Shuffled(), 16), narrows=("body.stem.0", "body.branch.0.0", "body.after.0")
    ),
    "U-Net": Case(make=UNet, narrows=("down1.0", "down2.0", "up", "last.0"), stays=("out",)),
    "LSTM": Case(make=lambda: Recurrent(nn.LSTM), narrows=("conv.0", "rnn.weight_ih_l0", "rnn.weight_hh_l1_reverse")),
    "GRU": Case(make=lambda: Recurrent(nn.GRU), narrows=("conv.0", "rnn.weight_ih_l0")),
    "attention": Case(make=lambda: Attention(fused=True), narrows=("qkv", "enter"), stays=("patch", "project")),
    "attention written out": Case(make=lambda: Attention(fused=False), narrows=("qkv", "enter")),
    "torch's encoder layer": Case(make=TorchAttention, narrows=("layer.linear1",)),
    "weight sharing": Case(make=Shared, narrows=("stem.0", "shared")),
    "tied weights": Case(make=Tied, narrows=("encode",)),
    "Siamese": Case(make=Siamese, narrows=("branch.0.0", "branch.1.0"), sizes=((3, 16, 16), (3, 16, 16))),
    "sigmoid before a layer": Case(make=lambda: NotZero(torch.sigmoid), narrows=("two",), stays=("one",)),
    "added constant": Case(make=lambda: NotZero(lambda x: x + 0.5), narrows=("two",), stays=("one",)),
    "exponential": Case(make=lambda: NotZero(torch.exp), narrows=("two",), stays=("one",)),
    "padded with ones": Case(
        make=lambda: NotZero(lambda x: F.pad(x, (1, 1, 1, 1), value=1.0)), narrows=("two",), stays=("one",)
    ),
    "norm without scale": Case(
        make=lambda: NotZero(torch.relu, norm=nn.BatchNorm2d(12, affine=False)), narrows=("two",), stays=("one",)
    ),
    "instance norm": Case(
        make=lambda: NotZero(torch.relu, norm=nn.InstanceNorm2d(12, affine=True)), narrows=("one", "two")
    ),
    "group norm": Case(make=lambda: NotZero(torch.relu, norm=nn.GroupNorm(4, 12)), narrows=("one", "two")),
    "one group": Case(make=lambda: NotZero(torch.relu, norm=nn.GroupNorm(1, 12)), narrows=("two",), stays=("one",)),
    "PReLU": Case(make=lambda: NotZero(nn.PReLU(12)), narrows=("one", "two")),
    "pixel shuffle": Case(make=lambda: _plain(middle=nn.PixelShuffle(2), channels=4), narrows=("0.0", "2.0")),
    "pixel unshuffle": Case(make=lambda: _plain(middle=nn.PixelUnshuffle(2), channels=64), narrows=("0.0", "2.0")),
    "flattened": Case(make=Flattened, narrows=("body.0.0", "hidden"), stays=("head",)),
    "gated halves": Case(make=Gated, narrows=("enter",), stays=("leave",)),
    "cascade": Case(make=lambda: Classified(Cascade(), 8), narrows=("body.enter.0", "body.steps.1.0")),
    "layer scale": Case(make=Scaled, narrows=("enter",)),
    "computed weight": Case(make=Standardized, narrows=("stem.0",), stays=("one.0", "two")),
    "unknown operator": Case(make=Unknown, narrows=("one.0", "three"), stays=("two",)),
    "embedding": Case(make=Embedding, narrows=("body.0.0", "body.1.0"), stays=("head",)),
}
