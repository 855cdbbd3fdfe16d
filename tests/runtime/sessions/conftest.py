from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.runtime.tensorrt import FLAVOURS
from tests.runtime.nvidia import Gpu, bindings, install, pycuda
from tests.runtime.pretended_tensorrt import tensorrt
from tests.runtime.sessions.plans import LAYERS, network


@pytest.fixture(params=[bindings, pycuda], ids=["cuda-bindings", "pycuda"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gpu:
    """A pretended GPU, with either binding."""
    made = Gpu()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hidden: dict[str, Any] = {"cuda": None, "cuda.bindings": None} if request.param is pycuda else {"pycuda": None}
    install(monkeypatch, {**hidden, **request.param(made)})
    for flavour in FLAVOURS.values():
        install(monkeypatch, tensorrt(made, flavour.package, network, layers=LAYERS))
    return made
