from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.cifar import TASK, float_pixels
from benchmarks.models.resnet_cifar import PaddedShortcut, resnet20, resnet56
from edgekit.runtime.tasks import load_spec


@pytest.mark.parametrize(("build", "parameters"), [(resnet20, 269_722), (resnet56, 853_018)])
def test_the_networks_have_the_size_of_the_paper(build, parameters: int) -> None:
    # Table 6 of the paper: 0.27 and 0.85 million.
    model = build().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_names_are_those_of_the_public_checkpoints() -> None:
    names = set(resnet20().state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer3.2.bn2.bias", "linear.weight"} <= names
    assert not any("shortcut" in name for name in names)


def test_the_shortcut_takes_every_second_pixel_and_pads_channels() -> None:
    x = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    y = PaddedShortcut(2)(x)
    assert y.shape == (1, 4, 2, 2)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, 0].any()
    assert not y[:, 3].any()


def test_the_task_says_what_the_reference_computes() -> None:
    spec = load_spec(TASK).input
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = (image[..., ::-1] * spec.scale - np.array(spec.mean)) / np.array(spec.std)
    pixels = float_pixels(image)
    assert (pixels.shape, pixels.dtype) == ((1, 3, 32, 32), np.float32)
    np.testing.assert_allclose(pixels[0].transpose(1, 2, 0), expected, atol=1e-5)
