from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.cifar import MODELS
from benchmarks.models.mobilenet_small import SqueezeExcite, mobilenet_small
from benchmarks.models.vit_small import Attention, vit_small
from benchmarks.train_models import TRAINED, Recipe, augment, learning_rate, train
from benchmarks.trained import NETWORKS, calibration_pixels, float_logits, load_module
from edgekit.data import choose

_QUICK = Recipe(epochs=3, batch_size=20, peak_rate=3e-3, weight_decay=0.01, label_smoothing=0.0)


@pytest.mark.parametrize("build", [mobilenet_small, vit_small])
def test_the_networks_take_cifar_images(build) -> None:
    torch.manual_seed(0)
    model = build().eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        both = model(images)
        assert both.shape == (2, 10)
        torch.testing.assert_close(both[1:], model(images[1:]), atol=1e-5, rtol=1e-4)


def test_the_small_mobilenet_is_half_as_wide_as_the_paper_and_ends_at_4x4() -> None:
    model = mobilenet_small()
    depthwise = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    assert [conv.out_channels for conv in depthwise] == [8, 40, 48, 48, 120, 120, 64, 72, 144, 288, 288]
    assert all(conv.groups == conv.in_channels == conv.out_channels for conv in depthwise)
    assert sum(isinstance(m, SqueezeExcite) for m in model.modules()) == 9
    assert model.get_submodule("blocks")(torch.zeros(2, 8, 32, 32)).shape == (2, 48, 4, 4)


def test_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    layer, x = Attention(8, 2), torch.randn(1, 5, 8)
    query, key, value = layer.qkv(x)[0].split(8, dim=1)
    heads = [
        torch.softmax(query[:, at] @ key[:, at].T / 2.0, dim=1) @ value[:, at] for at in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(layer(x)[0], layer.project(torch.cat(heads, dim=1)), atol=1e-5, rtol=1e-5)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    recipe = Recipe(epochs=1, batch_size=1, peak_rate=2.0, weight_decay=0.0, warm_up=0.1)
    rates = [learning_rate(recipe, progress) for progress in (0.05, 0.1, 0.55, 1.0)]
    assert rates == pytest.approx([1.0, 2.0, 1.0, 0.0])


def test_augmented_images_are_the_images_moved_and_mirrored() -> None:
    image = torch.arange(1.0, 32 * 32 + 1).reshape(1, 1, 32, 32).expand(64, 3, 32, 32)
    moved = augment(image, torch.Generator().manual_seed(0))
    assert moved.shape == image.shape
    middle = moved[:, 0, 12:20, 12:20]
    rises = (middle[:, :, 1:] - middle[:, :, :-1]).flatten(1)
    assert all(row.unique().tolist() in ([1.0], [-1.0]) for row in rises)  # never mixed, never scaled
    assert 10 < int((rises[:, 0] < 0).sum()) < 54
    assert len(moved[:, 0, 16, 16].unique()) > 30


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_training_learns_and_repeats(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(80) % 2
    images = torch.randn(80, 3, 32, 32, generator=generator) * 0.2 + labels[:, None, None, None] * 2.0 - 1.0
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        model = TRAINED[name].build()
        train(model, images, labels, _QUICK)
        states.append({key: tensor.clone() for key, tensor in model.state_dict().items()})
    with torch.no_grad():
        model.train()  # batch norm by the batch: its running statistics have seen a dozen batches only
        assert float((model(images).argmax(1) == labels).float().mean()) > 0.9
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_the_stored_checkpoint_is_the_one_that_was_described(name: str) -> None:
    path = MODELS / f"{name}.pt"
    facts = json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"]
    assert facts["recipe"] == vars(TRAINED[name].recipe)
    module = load_module(NETWORKS[name], path)
    assert not module.training
    assert sum(parameter.numel() for parameter in module.parameters()) == facts["parameters"]


def test_peers_get_the_images_that_edgekit_takes(tmp_path: Path) -> None:
    # Image number i of a class has the gray value 10 i, so a value names the image.
    for label in range(10):
        folder = tmp_path / str(label)
        folder.mkdir()
        for index in range(4):
            cv2.imwrite(str(folder / f"{index}.png"), np.full((32, 32), 40 * index + label, np.uint8))
    network = NETWORKS["digits"]
    chosen = choose(network.images(tmp_path), 10, sampling="stratified", seed=3)
    expected = [(40 * int(sample.path.stem) + sample.label) / 255 for sample in chosen.samples]
    pixels = calibration_pixels(network, tmp_path, samples=10, seed=3)
    assert all(array.shape == (1, 1, 32, 32) and array.dtype == np.float32 for array in pixels)
    assert [float(array.mean()) * 0.35 + 0.3 for array in pixels] == pytest.approx(expected, abs=1e-5)


def test_batches_change_no_logits() -> None:
    torch.manual_seed(0)
    module = NETWORKS["digits"].build().eval()
    images = [np.random.default_rng(i).normal(size=(1, 1, 32, 32)).astype(np.float32) for i in range(5)]
    rows = list(float_logits(module, images, batch=2))
    assert [row.shape for row in rows] == [(1, 10)] * 5
    with torch.no_grad():
        np.testing.assert_allclose(rows[4], module(torch.from_numpy(images[4])).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_task_says_what_the_reference_computes(name: str) -> None:
    network = NETWORKS[name]
    spec = network.spec().input
    channels = len(spec.mean)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, channels), dtype=np.uint8)
    expected = (image[..., ::-1] * spec.scale - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(network.pixels(image)[0].transpose(1, 2, 0), expected, atol=1e-5)
