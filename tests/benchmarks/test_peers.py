"""Peers on a tiny network: their models are int8 and answer about as the float network does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.trained import NETWORKS

pytest.importorskip("nncf", reason="a dependency of the benchmarks only")

from benchmarks.peers import NncfEngine, OrtEngine, count_operators, nncf_engine, ort_engine


def tiny() -> nn.Module:
    """A network whose 8-bit products are exact on every x86 CPU.

    Without VNNI a CPU adds two products at a time, of neighbouring input channels, in 16 bits that saturate. One of the
    two is always 0 here: the convolution has one channel, and every second weight of the linear layer is 0.
    """
    torch.manual_seed(0)
    linear = nn.Linear(8, 10)
    with torch.no_grad():
        linear.weight[:, 1::2] = 0
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).eval()


IMAGES = [np.random.default_rng(i).normal(size=(1, 1, 16, 16)).astype(np.float32) for i in range(20)]


def assert_close_but_rounded(engine: NncfEngine | OrtEngine, module: nn.Module) -> None:
    with torch.no_grad():
        expected = np.concatenate([module(torch.from_numpy(image)).numpy() for image in IMAGES])
    found = np.concatenate([engine.logits(image) for image in IMAGES])
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-5 < error < 0.05
    assert engine.layers() == {"int8": 2}


@pytest.mark.parametrize("full", [False, True])
def test_nncf(tmp_path: Path, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNCF_CI", "1")
    module, network = tiny(), replace(NETWORKS["digits"], nncf_preset="performance")
    assert_close_but_rounded(nncf_engine(network, module, IMAGES, tmp_path, full_bias_correction=full), module)


def test_onnxruntime(tmp_path: Path) -> None:
    module = tiny()
    assert_close_but_rounded(ort_engine(module, IMAGES, tmp_path), module)


def test_operators_are_counted_by_what_they_multiply() -> None:
    kinds = ["QLinearConv", "FusedConv", "QuantizeLinear", "QGemm", "MatMul", "Add", "MatMulIntegerToFloat"]
    assert count_operators(kinds) == {"int8": 3, "fp32": 2}
