from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgekit.cli.main import main

ARCHITECTURE = """
import torch
from torch import nn

class Brightness(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.pool(torch.relu(self.conv(x))).flatten(1))

def brightness(width=8):
    return Brightness(width)
"""

SPEC = """
task = "classification"
labels = ["dark", "light"]
[input]
size = [16, 16]
scale = 0.00392156862745098
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A tiny model that tells dark images from light ones, its data, and the bundle compiled from them."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def bundle(self) -> Path:
        return self.folder / "model.edge"

    @property
    def source(self) -> list[str]:
        return [
            str(self.folder / "weights.pt"),
            "--arch", "brightness:brightness",
            "--arch-path", str(self.folder),
            "--task", str(self.folder / "task.toml"),
        ]  # fmt: skip


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = Workshop(folder=tmp_path_factory.mktemp("workshop"))
    (made.folder / "brightness.py").write_text(ARCHITECTURE)
    (made.folder / "task.toml").write_text(SPEC)
    generator = torch.Generator().manual_seed(0)
    conv = torch.rand(8, 3, 3, 3, generator=generator) * 0.2
    torch.save(
        {
            "state_dict": {
                "conv.weight": conv,
                "conv.bias": torch.full((8,), 0.1),
                "head.weight": torch.stack([-torch.ones(8), torch.ones(8)]),
                "head.bias": torch.tensor([2.0, -2.0]),
            }
        },
        made.folder / "weights.pt",
    )
    pixels = np.random.default_rng(0)
    for label, low, high in (("dark", 0, 80), ("light", 170, 256)):
        (made.data / label).mkdir(parents=True)
        for number in range(40):
            image = pixels.integers(low, high, (24, 20, 3), dtype=np.uint8)
            cv2.imwrite(str(made.data / label / f"{number:02d}.png"), image)
    data = ["--data", str(made.data), "--precision", "int8", "--no-timing", "--threads", "1"]
    assert main(["compile", *made.source, *data, "-o", str(made.bundle)]) == 0
    return made


@pytest.fixture(autouse=True)
def unwrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """No width is asked for, so tables wrap nothing; pytest-xdist asks for 80 columns in its workers."""
    monkeypatch.delenv("COLUMNS", raising=False)
