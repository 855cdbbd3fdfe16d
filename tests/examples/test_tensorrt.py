"""Every example as an NVIDIA target gets it: built by the real TensorRT-RTX builder, which needs no GPU, and compared.

What the benchmark ``tensorrt_engines`` does with 26 networks, by the same code. Nothing is run on a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.portable_graphs import checked, findings, programs
from benchmarks.trained import NETWORKS, Network, read_all
from edgekit.data import choose
from edgekit.frontend import load_program
from edgekit.passes import PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.progress import SilentProgress
from edgekit.targets import load_target
from examples.digits.prepare import write_images

pytestmark = pytest.mark.slow

CHECKPOINTS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*/*.pt"))
EXAMPLES = {name: network for name, network in NETWORKS.items() if network.checkpoint in CHECKPOINTS}
WRITERS = {"digits": write_images}
CALIBRATED, COMPARED = 64, 16


def test_every_example_is_looked_at() -> None:
    assert CHECKPOINTS
    assert [path for path in CHECKPOINTS if path not in {network.checkpoint for network in EXAMPLES.values()}] == []
    assert set(EXAMPLES) == set(WRITERS)


@pytest.fixture(scope="module", params=EXAMPLES)
def facts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    pytest.importorskip("tensorrt_rtx")
    network: Network = EXAMPLES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](folder)

    def images(split: str, count: int) -> torch.Tensor:
        chosen = choose(network.images(folder / split), count, sampling="stratified", seed=0)
        return torch.from_numpy(np.stack([image.pixels for image in read_all(network, chosen)]))

    assert network.checkpoint is not None
    loaded = load_program(network.checkpoint, task=network.spec(), arch=network.arch, arch_path=network.arch_path)
    context = PassContext(progress=SilentProgress())
    floating = run_passes(loaded, [FoldBatchNorm(), FoldPreprocessing()], context)
    target = load_target("rtx")
    made = programs(floating, target, images("calib", CALIBRATED))
    return checked({key: made[key] for key in ("int8", "fp16")}, floating, target, images("val", COMPARED))


def test_int8_and_fp16_are_built_for_one_image_and_for_a_dynamic_batch(facts: dict[str, dict[str, Any]]) -> None:
    for precision in ("int8", "fp16"):
        for batch in ("static", "dynamic"):
            assert facts[precision][batch].get("refused") is None
            assert facts[precision][batch]["engine_bytes"] > facts[precision][batch]["text_bytes"] > 0


def test_onnx_runtime_answers_as_the_programs_do(facts: dict[str, dict[str, Any]]) -> None:
    assert findings({"example": facts}) == []
    # The bound follows the noise, so the noise must be small: int8 that is broken would pass it otherwise.
    assert facts["int8"]["sqnr_db"] > 20
    assert facts["fp16"]["sqnr_db"] > 50
