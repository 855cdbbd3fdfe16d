"""Tiny seeded networks, one for each thing that passes must get right, and programs made of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from edgekit.frontend import load_program
from edgekit.passes import PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.program import Program
from edgekit.progress import SilentProgress
from edgekit.runtime.tasks.base import ImageInput
from edgekit.runtime.tasks.classification import ClassificationSpec

CONTEXT = PassContext(progress=SilentProgress())
LABELS = ("red", "green", "blue", "gray")


def spec(size: int = 16, channels: int = 3) -> ClassificationSpec:
    return ClassificationSpec(
        task="classification",
        labels=LABELS,
        input=ImageInput(
            size=(size, size),
            channels=3 if channels == 3 else 1,
            color="rgb" if channels == 3 else "gray",
            scale=1 / 255,
            mean=(0.5, 0.45, 0.4)[:channels],
            std=(0.25, 0.3, 0.2)[:channels],
        ),
    )


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


class Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.1)
        self.linear = nn.Linear(channels, len(LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.drop(x.mean((2, 3))))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.one = conv_bn(8, 8)
        self.two = conv_bn(8, 8)
        self.head = Head(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.two(F.relu(self.one(x))) + x)
        return self.head(F.max_pool2d(x, 2))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, stride=2)
        self.deep = conv_bn(8, 8, groups=8)
        self.point = conv_bn(8, 16, kernel=1)
        self.head = Head(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.point(F.relu6(self.deep(F.relu6(self.stem(x))))))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.reduce = nn.Conv2d(8, 4, 1)
        self.expand = nn.Conv2d(4, 8, 1)
        self.point = conv_bn(8, 8, kernel=1)
        self.head = Head(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.stem(x))
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(self.point(x * gate))


class Dense(nn.Module):
    """Concatenations, and batch norm before the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grow = nn.Conv2d(8, 4, 3, padding=1)
        self.last = nn.Conv2d(12, 8, 1)
        self.head = Head(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = torch.cat([x, self.grow(F.relu(self.norm(x)))], 1)
        return self.head(F.relu(self.last(y)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.classify = nn.Linear(16, len(LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v))
        return self.classify(x.mean(1))


class Upsampling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = conv_bn(3, 8, stride=2)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = Head(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.norm(self.up(F.relu(self.down(x))))))


class Shared(nn.Module):
    """One convolution with its batch norm, applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.twice = conv_bn(8, 8)
        self.head = Head(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.twice(F.relu(self.twice(x)))))


class OptionA(nn.Module):
    """A shortcut by subsampling and padding with zero channels (He et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.down = conv_bn(8, 16, stride=2)
        self.head = Head(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.down(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))))


NETWORKS: dict[str, type[nn.Module]] = {
    "residual": Residual,
    "depthwise": Depthwise,
    "squeeze-excite": SqueezeExcite,
    "dense": Dense,
    "attention": Attention,
    "upsampling": Upsampling,
    "shared": Shared,
    "option-a": OptionA,
}


def module(name: str, seed: int = 0) -> nn.Module:
    """A network with random weights and batch-norm statistics that are not the trivial ones."""
    torch.manual_seed(seed)
    net = NETWORKS[name]()
    for item in net.modules():
        if isinstance(item, nn.BatchNorm2d):
            assert item.running_mean is not None
            assert item.running_var is not None
            item.running_mean.normal_(0, 0.2)
            item.running_var.uniform_(0.5, 2)
            nn.init.uniform_(item.weight, 0.5, 1.5)
            nn.init.normal_(item.bias, 0, 0.2)
    return net.eval()


def program(name: str, seed: int = 0) -> Program:
    return load_program(module(name, seed), task=spec())


def folded(name: str, seed: int = 0) -> Program:
    return run_passes(program(name, seed), [FoldBatchNorm(), FoldPreprocessing()], CONTEXT)


def pictures(count: int, seed: int = 0, size: int = 16) -> torch.Tensor:
    """(count, size, size, 3) uint8: smooth random pictures."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 4, 4), generator=generator)
    smooth = F.interpolate(coarse, (size, size), mode="bilinear")
    noise = 0.05 * torch.randn(smooth.shape, generator=generator)
    return ((smooth + noise).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def batches(count: int = 32, seed: int = 0, size: int = 8) -> Iterator[tuple[torch.Tensor, ...]]:
    for part in pictures(count, seed).split(size):
        yield (part,)
