"""Three networks whose first layer reads a camera's frame: two well-known ones, and a small one on a large frame.

Random weights of torch's own initialisation; batch norms settled on pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.zoo.pictures import normalized, pictures

__all__ = ["NETWORKS", "MobileNetV2", "ResNet18", "SmallOnLarge", "settled"]


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


class _Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = _conv_bn(inputs, outputs, 3, stride), _conv_bn(outputs, outputs, 3)
        self.shortcut = nn.Identity() if inputs == outputs else _conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.two(F.relu(self.one(x))) + self.shortcut(x))


class ResNet18(nn.Module):
    """Source: He et al. 2016, arXiv:1512.03385, table 1."""

    size = (224, 224)

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
        self.stem = _conv_bn(3, 64, 7, 2)
        self.blocks = nn.Sequential(
            *(_Basic(before, after, 1 if before == after else 2) for before, after in pairwise(widths))
        )
        self.head = nn.Linear(512, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 1000)."""
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        return self.head(self.blocks(x).mean((2, 3)))


class _Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.enter = nn.Sequential(_conv_bn(inputs, hidden, 1), nn.ReLU6()) if expand > 1 else nn.Identity()
        self.deep, self.leave = _conv_bn(hidden, hidden, 3, stride, hidden), _conv_bn(hidden, outputs, 1)
        self.add = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.leave(F.relu6(self.deep(self.enter(x))))
        return x + y if self.add else y


class MobileNetV2(nn.Module):
    """Source: Sandler et al. 2018, arXiv:1801.04381, table 2."""

    size = (224, 224)

    def __init__(self) -> None:
        super().__init__()
        table = (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        blocks: list[nn.Module] = []
        before = 32
        for expand, after, count, stride in table:
            for index in range(count):
                blocks.append(_Inverted(before, after, stride if index == 0 else 1, expand))
                before = after
        self.stem, self.blocks, self.last = _conv_bn(3, 32, 3, 2), nn.Sequential(*blocks), _conv_bn(320, 1280, 1)
        self.head = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 1000)."""
        x = F.relu6(self.last(self.blocks(F.relu6(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class SmallOnLarge(nn.Module):
    """Five narrow layers on a VGA frame, as a trigger in a camera may have them."""

    size = (480, 640)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 16, 24, 32, 48)
        self.layers = nn.ModuleList(_conv_bn(before, after, 3, 2) for before, after in pairwise(widths))
        self.head = nn.Linear(48, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 2)."""
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x.mean((2, 3)))


NETWORKS: Mapping[str, Callable[[], ResNet18 | MobileNetV2 | SmallOnLarge]] = {
    "ResNet-18": ResNet18,
    "MobileNetV2": MobileNetV2,
    "small on 640x480": SmallOnLarge,
}


def settled(build: Callable[[], ResNet18 | MobileNetV2 | SmallOnLarge], *, seed: int) -> nn.Module:
    """Makes a network with seeded weights, lets its batch norms see 16 pictures, and returns it for inference."""
    torch.manual_seed(seed)
    net = build()
    for item in net.modules():
        if isinstance(item, nn.BatchNorm2d):
            item.momentum = None  # the mean over all batches
            nn.init.uniform_(item.weight, 0.5, 1.5)
            nn.init.normal_(item.bias, 0, 0.2)
    net.train()
    with torch.no_grad():
        for batch in normalized(pictures(16, net.size, seed=seed)).split(8):
            net(batch)
    return net.eval()
