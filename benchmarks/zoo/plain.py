"""The three kinds of network that timm does not have, in plain torch: a U-Net, a YOLO-style detector, a CRNN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["CRNN", "Detector", "UNet"]


def _block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), act()
    )


class UNet(nn.Module):
    """Encoder, decoder with transposed convolutions, and concatenated skips.

    Source: Ronneberger et al. 2015, arXiv:1505.04597, figure 1, with batch norm and a third of the channels.
    """

    def __init__(self, width: int = 24, levels: int = 4, classes: int = 12) -> None:
        super().__init__()
        sizes = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            nn.Sequential(_block(before, size), _block(size, size))
            for before, size in zip([3, *sizes], sizes, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(size, size // 2, 2, 2) for size in sizes[:0:-1])
        self.merge = nn.ModuleList(
            nn.Sequential(_block(size, size // 2), _block(size // 2, size // 2)) for size in sizes[:0:-1]
        )
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, classes, H, W)."""
        skips = []
        for level, down in enumerate(self.down):
            x = down(x if level == 0 else self.pool(x))
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, *, add: bool) -> None:
        super().__init__()
        self.one = _block(channels, channels, act=nn.SiLU)
        self.two = _block(channels, channels, act=nn.SiLU)
        self.add = add

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.two(self.one(x))
        return x + y if self.add else y


class _C2f(nn.Module):
    def __init__(self, inputs: int, outputs: int, count: int, *, add: bool) -> None:
        super().__init__()
        self.enter = _block(inputs, outputs, 1, act=nn.SiLU)
        self.blocks = nn.ModuleList(_Bottleneck(outputs // 2, add=add) for _ in range(count))
        self.leave = _block((2 + count) * outputs // 2, outputs, 1, act=nn.SiLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class _PoolPyramid(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = _block(channels, channels // 2, 1, act=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = _block(2 * channels, channels, 1, act=nn.SiLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Detector(nn.Module):
    """The shape of YOLOv8-n: split bottlenecks with SiLU, pooled pyramid, two-way neck, three heads.

    Source: the structure as published by Ultralytics, ``yolov8.yaml`` with depth 0.33 and width 0.25; the heads give
    raw boxes and scores, without the distribution over distances.
    """

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, 16, 3, 2, act=nn.SiLU), _block(16, 32, 3, 2, act=nn.SiLU))
        self.c2 = _C2f(32, 32, 1, add=True)
        self.c3 = nn.Sequential(_block(32, 64, 3, 2, act=nn.SiLU), _C2f(64, 64, 2, add=True))
        self.c4 = nn.Sequential(_block(64, 128, 3, 2, act=nn.SiLU), _C2f(128, 128, 2, add=True))
        self.c5 = nn.Sequential(_block(128, 256, 3, 2, act=nn.SiLU), _C2f(256, 256, 1, add=True), _PoolPyramid(256))
        self.n4 = _C2f(256 + 128, 128, 1, add=False)
        self.n3 = _C2f(128 + 64, 64, 1, add=False)
        self.down3 = _block(64, 64, 3, 2, act=nn.SiLU)
        self.o4 = _C2f(64 + 128, 128, 1, add=False)
        self.down4 = _block(128, 128, 3, 2, act=nn.SiLU)
        self.o5 = _C2f(128 + 256, 256, 1, add=False)
        self.heads = nn.ModuleList(
            nn.Sequential(_block(size, 64, act=nn.SiLU), _block(64, 64, act=nn.SiLU), nn.Conv2d(64, 4 + classes, 1))
            for size in (64, 128, 256)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 4 + classes, cells of the strides 8, 16 and 32)."""
        c3 = self.c3(self.c2(self.stem(x)))
        c4 = self.c4(c3)
        c5 = self.c5(c4)
        n4 = self.n4(torch.cat([F.interpolate(c5, scale_factor=2.0), c4], 1))
        n3 = self.n3(torch.cat([F.interpolate(n4, scale_factor=2.0), c3], 1))
        o4 = self.o4(torch.cat([self.down3(n3), n4], 1))
        o5 = self.o5(torch.cat([self.down4(o4), c5], 1))
        maps = [head(item) for head, item in zip(self.heads, (n3, o4, o5), strict=True)]
        return torch.cat([item.flatten(2) for item in maps], 2)


class CRNN(nn.Module):
    """Convolutions, two bidirectional LSTMs over the columns, and a classifier: reads a line of text.

    Source: Shi et al. 2015, arXiv:1507.05717, table 1.
    """

    def __init__(self, classes: int = 37, hidden: int = 256) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            _block(3, 64),
            nn.MaxPool2d(2),
            _block(64, 128),
            nn.MaxPool2d(2),
            _block(128, 256),
            _block(256, 256),
            nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            _block(256, 512),
            _block(512, 512),
            nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            nn.Conv2d(512, 512, 2, bias=False),
            nn.BatchNorm2d(512),
            nn.ReLU(),
        )
        self.recurrent = nn.LSTM(512, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.classify = nn.Linear(2 * hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, 32, W) to (N, columns, classes)."""
        columns = self.convolutions(x).squeeze(2).transpose(1, 2)
        return self.classify(self.recurrent(columns)[0])
