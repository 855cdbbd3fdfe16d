"""The peers of the GPU benchmark do the job of edgekit's engine: on the CPU, which says nothing of their speed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.cifar import float_pixels
from benchmarks.gpu_peers import MissingPeer, onnxruntime_call, torch_call
from benchmarks.models.resnet_cifar import resnet56
from tests.conformance.goldens import GOLDENS
from tests.conformance.graphs import FLOAT
from tests.conformance.reference import reference_outputs


def test_torch_takes_the_raw_image_and_gives_the_float_network_s_logits() -> None:
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = resnet56().eval()(torch.from_numpy(float_pixels(image[0]))).numpy()
    torch.manual_seed(0)
    call = torch_call(resnet56().eval(), image, device="cpu", compiler="eager")
    np.testing.assert_allclose(call(), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(call(), call())


def test_onnx_runtime_runs_the_graph_on_the_image() -> None:
    golden = next(item for item in GOLDENS if item.name == "pool_linear")
    image, graph = golden.images()[:1], golden.portable(FLOAT)
    (expected,) = reference_outputs(graph.data, {"image": image}).values()
    call = onnxruntime_call(graph.data, image, provider="CPUExecutionProvider")
    np.testing.assert_allclose(call(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch has a GPU here")
def test_torch_without_cuda_is_a_missing_peer() -> None:
    with pytest.raises(MissingPeer, match="finds no GPU"):
        torch_call(resnet56(), np.zeros((1, 32, 32, 3), np.uint8))


def test_a_provider_that_onnx_runtime_lacks_is_a_missing_peer() -> None:
    with pytest.raises(MissingPeer, match="was built without its NoSuchProvider"):
        onnxruntime_call(b"", np.zeros((1, 32, 32, 3), np.uint8), provider="NoSuchProvider")
