"""A small residual network for 32x32 gray digits, in plain torch: what a user's own model file looks like."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["DigitsResNet", "ResidualBlock", "digits_resnet"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a residual add; a strided 1x1 projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitsResNet(nn.Module):
    """Stem, two blocks at 32 channels, one at 64, global average pool, linear."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.blocks = nn.Sequential(ResidualBlock(32, 32, 1), ResidualBlock(32, 32, 1), ResidualBlock(32, 64, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps float images (N, 1, 32, 32) to logits (N, classes)."""
        logits: torch.Tensor = self.head(self.pool(self.blocks(self.stem(x))).flatten(1))
        return logits


def digits_resnet() -> nn.Module:
    """Returns the untrained network: the callable that ``edgekit compile --arch model:digits_resnet`` asks for."""
    return DigitsResNet()
