"""A small vision transformer for 32x32 images, in plain torch.

Source: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, equations 1 to 4: LayerNorm before attention
and before the MLP, GELU; with the mean over the patches in place of the class token (its appendix D.3). The patches of
4x4 pixels come from two convolutions with stride 2 in place of one with stride 4, which learns from few images in few
epochs: T. Xiao et al., "Early Convolutions Help Transformers See Better", NeurIPS 2021, section 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["Attention", "Layer", "VisionTransformer", "vit_small"]


class Attention(nn.Module):
    """Softmax attention of every patch to every patch, in ``heads`` heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, patches, width) to the same shape."""
        batch, patches, width = x.shape
        split = self.qkv(x).reshape(batch, patches, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        y = F.scaled_dot_product_attention(query, key, value)
        projected: torch.Tensor = self.project(y.transpose(1, 2).reshape(batch, patches, width))
        return projected


class Layer(nn.Module):
    """Attention and an MLP, each behind a LayerNorm and added to its input."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.reduce = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (N, patches, width) to the same shape."""
        x = x + self.attention(self.norm1(x))
        y: torch.Tensor = x + self.reduce(F.gelu(self.expand(self.norm2(x))))
        return y


class VisionTransformer(nn.Module):
    """Patches of 4x4 pixels, positions, layers, LayerNorm, mean over the patches, linear."""

    def __init__(self, *, size: int, width: int, depth: int, heads: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        )
        self.positions = nn.Parameter(torch.zeros(1, (size // 4) ** 2, width))
        self.layers = nn.Sequential(*(Layer(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)
        self._start()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps normalized float images (N, 3, 32, 32) to logits (N, classes)."""
        y = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        logits: torch.Tensor = self.classifier(self.norm(self.layers(y)).mean(1))
        return logits

    def _start(self) -> None:
        """Draws small normal weights, as is usual for this network."""
        nn.init.trunc_normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)


def vit_small(classes: int = 10) -> nn.Module:
    """Returns the untrained network: width 64, 4 layers, 4 heads."""
    return VisionTransformer(size=32, width=64, depth=4, heads=4, hidden=128, classes=classes)
