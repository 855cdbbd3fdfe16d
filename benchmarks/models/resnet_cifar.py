"""ResNets for 32x32 images, in plain torch.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2: a 3x3
convolution, then three stages of n blocks with 16, 32 and 64 channels, global average pool, linear; 6n + 2 layers.
Shortcuts are option A of the paper: where a stage begins, every second pixel is taken and the new channels are zero, so
that shortcuts have no parameters. The modules are named as in the public checkpoints for these networks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["Block", "CifarResNet", "PaddedShortcut", "resnet14", "resnet20", "resnet56"]


class PaddedShortcut(nn.Module):
    """Takes every second pixel and adds ``channels`` channels of zeros, one half before and one half after."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = channels // 2
        self.after = channels - self.before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) to (N, C + channels, H / 2, W / 2)."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm around a residual add."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity() if stride == 1 else PaddedShortcut(outputs - inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """The network with ``blocks`` blocks in each of its three stages."""

    def __init__(self, blocks: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps normalized float images (N, 3, 32, 32) to logits (N, classes)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.layer3(self.layer2(self.layer1(y)))
        logits: torch.Tensor = self.linear(F.adaptive_avg_pool2d(y, 1).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))


def resnet14(classes: int = 10) -> nn.Module:
    """Returns the untrained network with 2 blocks a stage: 21 % of the arithmetic of :func:`resnet56`."""
    return CifarResNet(2, classes)


def resnet20(classes: int = 10) -> nn.Module:
    """Returns the untrained network with 3 blocks a stage."""
    return CifarResNet(3, classes)


def resnet56(classes: int = 10) -> nn.Module:
    """Returns the untrained network with 9 blocks a stage."""
    return CifarResNet(9, classes)
