"""Tiny networks, one for each thing that an export can get wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.runtime.tasks.base import ImageInput

IMAGE = (1, 3, 8, 8)


class Task:
    """The least that is a task spec."""

    task = "classification"
    input = ImageInput(size=(8, 8))


def seeded(module: type[nn.Module], *args: int) -> nn.Module:
    """Builds a module with seeded weights and batch-norm statistics that are not the identity."""
    torch.manual_seed(0)
    made = module(*args)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return made


class Small(nn.Module):
    """Convolution, batch norm, in-place activation, dropout, linear."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.conv(x)))
        return self.fc(self.drop(x.mean((2, 3))))


class OptionA(nn.Module):
    """A residual block whose shortcut subsamples and pads channels (He et al. 2016, option A)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        out = self.bn(self.conv2(x))
        out += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        out = F.avg_pool2d(F.relu(out), out.size()[3])
        return self.linear(out.view(out.size(0), -1))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 6, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.act = nn.Hardswish(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.depthwise(F.relu6(self.expand(x), inplace=True))).flatten(1)


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.down = nn.Conv2d(4, 2, 1)
        self.up = nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x), inplace=True)
        gate = torch.sigmoid(self.up(F.relu_(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return (x * gate).mean((2, 3))


class Crnn(nn.Module):
    """Convolution, columns as time steps, bidirectional LSTM, as text recognition does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.lstm = nn.LSTM(32, 5, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        steps = x.permute(0, 3, 1, 2).reshape(x.shape[0], x.shape[3], -1)
        return self.head(self.lstm(steps)[0]).log_softmax(-1)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        return self.head((x + mixed).mean(1))


class Encoder(nn.Module):
    """torch's own transformer layer, which has a fused inference kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2)[:, :, :8]).mean(1)


class Shared(nn.Module):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 8)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x.mean((1, 2)))))


class Named(nn.Module):
    """Returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor | list[Tensor] | None]:
        y = self.conv(x)
        return {"logits": y.mean((2, 3)), "aux": None, "levels": [y, y.amax((2, 3))]}


class OneBatch(nn.Module):
    """Bakes batch 1 into a view."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.view(1, -1))


class TwoInputs(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        return left - right, (left * right).sum(1)
