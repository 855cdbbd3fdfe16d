"""A small depthwise network for 32x32 images, in plain torch.

Source: A. Howard et al., "Searching for MobileNetV3", ICCV 2019, table 2 (MobileNetV3-Small): inverted bottlenecks with
a depthwise convolution, squeeze-and-excite with a hard sigmoid, hard swish. Here with half the channels (width 0.5,
rounded to multiples of 8) and fewer strides: the stem keeps the 32x32 pixels, and the last blocks have 4x4.

A depthwise convolution has one small filter per channel, whose ranges differ widely after training: the case where one
scale for a whole tensor loses accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["BLOCKS", "Bottleneck", "BottleneckSpec", "MobileNetSmall", "SqueezeExcite", "mobilenet_small"]


@dataclass(frozen=True, kw_only=True)
class BottleneckSpec:
    """One row of the paper's table: kernel, channels after expansion and at the end, and what is inside."""

    kernel: int
    expanded: int
    outputs: int
    excite: bool
    swish: bool
    stride: int


def _row(kernel: int, expanded: int, outputs: int, excite: bool, swish: bool, stride: int) -> BottleneckSpec:
    return BottleneckSpec(kernel=kernel, expanded=expanded, outputs=outputs, excite=excite, swish=swish, stride=stride)


# The paper's rows at half the channels. Their strides are 2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1 after a stem with stride 2.
BLOCKS = (
    _row(3, 8, 8, True, False, 2),
    _row(3, 40, 16, False, False, 1),
    _row(3, 48, 16, False, False, 1),
    _row(5, 48, 24, True, True, 2),
    _row(5, 120, 24, True, True, 1),
    _row(5, 120, 24, True, True, 1),
    _row(5, 64, 24, True, True, 1),
    _row(5, 72, 24, True, True, 1),
    _row(5, 144, 48, True, True, 2),
    _row(5, 288, 48, True, True, 1),
    _row(5, 288, 48, True, True, 1),
)
_STEM, _LAST, _HIDDEN = 8, 288, 512


class SqueezeExcite(nn.Module):
    """Scales each channel by a hard sigmoid of what two 1x1 convolutions make of the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(8, channels // 4)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) to the same shape."""
        weight = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.expand(weight))


class Bottleneck(nn.Module):
    """Expands by a 1x1 convolution, filters each channel, excites, projects; adds the input where shapes agree."""

    def __init__(self, inputs: int, spec: BottleneckSpec) -> None:
        super().__init__()
        activation = nn.Hardswish if spec.swish else nn.ReLU
        layers: list[nn.Module] = []
        if spec.expanded != inputs:
            layers += _normalized(inputs, spec.expanded, 1, 1, 1)
            layers.append(activation())
        layers += _normalized(spec.expanded, spec.expanded, spec.kernel, spec.stride, spec.expanded)
        layers.append(activation())
        if spec.excite:
            layers.append(SqueezeExcite(spec.expanded))
        layers += _normalized(spec.expanded, spec.outputs, 1, 1, 1)
        self.body = nn.Sequential(*layers)
        self.residual = spec.stride == 1 and inputs == spec.outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y: torch.Tensor = self.body(x)
        return x + y if self.residual else y


class MobileNetSmall(nn.Module):
    """Stem, eleven bottlenecks, a 1x1 convolution, global average pool, two linear layers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_normalized(3, _STEM, 3, 1, 1), nn.Hardswish())
        inputs, blocks = _STEM, []
        for spec in BLOCKS:
            blocks.append(Bottleneck(inputs, spec))
            inputs = spec.outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(*_normalized(inputs, _LAST, 1, 1, 1), nn.Hardswish())
        self.hidden = nn.Linear(_LAST, _HIDDEN)
        self.classifier = nn.Linear(_HIDDEN, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps normalized float images (N, 3, 32, 32) to logits (N, classes)."""
        y = F.adaptive_avg_pool2d(self.last(self.blocks(self.stem(x))), 1).flatten(1)
        logits: torch.Tensor = self.classifier(F.hardswish(self.hidden(y)))
        return logits


def _normalized(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    """Returns a convolution that keeps the size (but for the stride) and its batch norm."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


def mobilenet_small(classes: int = 10) -> nn.Module:
    """Returns the untrained network."""
    return MobileNetSmall(classes)
