"""What kornia does with a batch for each key, and the arithmetic from pixels to images."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from edgekit.augmentation import Augmentation, list_augmentations
from edgekit.errors import UserError
from edgekit.frontend import load_program
from edgekit.objectives import objective_for
from edgekit.passes import run_passes
from edgekit.passes.fold import FoldPreprocessing
from edgekit.passes.train.augment import Augmenter
from edgekit.passes.train.pixels import PixelScale, check_takes_images
from edgekit.runtime.tasks.base import ImageInput
from tests import networks

SIZE = 16
IMAGE = ImageInput(size=(SIZE, SIZE), scale=1 / 255)
MIXING = objective_for(networks.spec()).mixed
CPU = torch.device("cpu")


def _shares(count: int = 64) -> torch.Tensor:
    return networks.pictures(count).permute(0, 3, 1, 2).float() / 255


def _varied(shares: torch.Tensor, targets: torch.Tensor | None = None, *, seed: int = 0, **keys: Any) -> Any:
    augmenter = Augmenter(Augmentation(name="x", title="x", **keys), IMAGE)
    torch.manual_seed(seed)
    return augmenter(shares, targets, MIXING)


def test_off_is_off() -> None:
    shares = _shares()
    assert _varied(shares)[0] is shares


@pytest.mark.parametrize("name", [item.name for item in list_augmentations() if not item.off])
def test_the_shipped_ones_keep_shape_and_range_and_repeat_themselves(name: str) -> None:
    (item,) = (item for item in list_augmentations() if item.name == name)
    shares, augmenter = _shares(), Augmenter(item, IMAGE)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(augmenter(shares, None, MIXING)[0])
    assert results[0].shape == shares.shape
    assert results[0].dtype == torch.float32
    assert 0 <= float(results[0].min()) <= float(results[0].max()) <= 1
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    changed = (results[0] != shares).flatten(1).any(1).float().mean()
    assert float(changed) > 0.6, "most images were varied"


def test_flips_mirror_about_half_of_the_images() -> None:
    shares = _shares(200)
    found, _ = _varied(shares, flip_horizontal=0.5)
    same = (found == shares).flatten(1).all(1)
    mirrored = (found == shares.flip(3)).flatten(1).all(1)
    assert bool((same | mirrored).all())
    assert 60 < int(mirrored.sum()) < 140
    found, _ = _varied(shares, flip_vertical=1.0)
    assert torch.equal(found, shares.flip(2))


def test_a_padded_crop_is_a_window_of_the_image_with_its_black_border() -> None:
    shares = _shares(40)
    found, _ = _varied(shares, crop_padding=2)
    padded = torch.nn.functional.pad(shares, (2, 2, 2, 2))
    windows = [padded[:, :, y : y + SIZE, x : x + SIZE] for y in range(5) for x in range(5)]
    matches = torch.stack([torch.isclose(found, window, atol=1e-6).flatten(1).all(1) for window in windows])
    assert bool(matches.any(0).all()), "each image is one of the 25 windows"
    assert int(matches.any(1).sum()) > 10, "and not always the same one"


def test_light_is_added_and_contrast_multiplied() -> None:
    shares = torch.full((50, 3, SIZE, SIZE), 0.5)
    added = (_varied(shares, brightness=0.1)[0] - shares)[:, 0, 0, 0]
    assert 0.05 < float(added.abs().max()) <= 0.1 + 1e-6
    factor = (_varied(shares, contrast=0.2)[0] / shares)[:, 0, 0, 0]
    assert 0.8 - 1e-6 <= float(factor.min()) < 0.9 < 1.1 < float(factor.max()) <= 1.2 + 1e-6
    exponent = _varied(shares, gamma=0.5)[0][:, 0, 0, 0].log() / torch.tensor(0.5).log()
    assert 0.5 - 1e-4 <= float(exponent.min()) < 0.8 < 1.2 < float(exponent.max()) <= 1.5 + 1e-4


def test_noise_has_its_standard_deviation_and_cutout_its_size() -> None:
    shares = torch.full((50, 3, SIZE, SIZE), 0.5)
    assert float((_varied(shares, noise_std=0.05)[0] - shares).std()) == pytest.approx(0.05, rel=0.05)
    black = (_varied(shares, cutout=0.5)[0] == 0).all(1).flatten(1).sum(1)
    assert black.tolist() == [(SIZE // 2) ** 2] * 50


def test_rotation_shift_and_scale_move_the_image() -> None:
    shares = _shares(8)
    for keys in ({"rotation_deg": 20.0}, {"translation": 0.2}, {"scale": (1.2, 1.4)}, {"crop_area": (0.4, 0.6)}):
        found, _ = _varied(shares, **keys)  # type: ignore[arg-type]
        assert found.shape == shares.shape
        assert not torch.isclose(found, shares, atol=1e-3).flatten(1).all(1).any(), keys


def test_mixup_mixes_images_and_targets_alike() -> None:
    # Each image is one number, its class as a share of ten: what is mixed can be read off both.
    labels = torch.arange(40) % 4
    shares = (labels / 10).reshape(-1, 1, 1, 1).expand(-1, 3, SIZE, SIZE)
    targets = torch.nn.functional.one_hot(labels, 4).float()
    images, mixed = _varied(shares, targets, mixup=0.4)
    torch.testing.assert_close(images[:, 0, 0, 0], mixed @ torch.arange(4.0) / 10)
    torch.testing.assert_close(mixed.sum(1), torch.ones(40))
    assert bool((mixed.gather(1, labels[:, None]) >= 0.5 - 1e-6).all()), "its own label has the larger part"
    assert int((mixed.max(1).values < 0.99).sum()) > 10


def test_light_of_float_pixels_is_refused() -> None:
    floats = replace(IMAGE, dtype="float32")
    with pytest.raises(UserError, match="whose white is not known"):
        Augmenter(Augmentation(name="x", title="x", brightness=0.1), floats)
    assert Augmenter(Augmentation(name="x", title="x", flip_vertical=1.0), floats) is not None


@pytest.mark.parametrize("colour", ["rgb", "bgr", "gray"])
def test_pixels_become_what_folded_preprocessing_makes_of_them(colour: Any) -> None:
    channels = 1 if colour == "gray" else 3
    spec = networks.spec()
    spec = replace(
        spec,
        input=replace(
            spec.input, color=colour, channels=channels, mean=spec.input.mean[:channels], std=spec.input.std[:channels]
        ),
    )
    torch.manual_seed(0)
    program = load_program(torch.nn.Sequential(torch.nn.Conv2d(channels, 4, 3), torch.nn.Flatten()).eval(), task=spec)
    pixels = networks.pictures(5)[..., :channels].contiguous()
    scale = PixelScale(check_takes_images(program), CPU)
    shares = scale.shares(pixels)
    assert float(shares.max()) <= 1
    (expected,) = run_passes(program, [FoldPreprocessing()], networks.CONTEXT).run(pixels)
    torch.testing.assert_close(program.run(scale.normalised(shares))[0], expected, rtol=1e-4, atol=1e-5)


def test_a_program_that_does_not_take_float_images_is_refused() -> None:
    with pytest.raises(UserError, match="training needs one float32 input"):
        check_takes_images(networks.folded("residual"))
    with pytest.raises(UserError, match="has no task spec"):
        check_takes_images(replace(networks.program("residual"), task=None))


def test_kornia_is_loaded_only_when_images_are_varied() -> None:
    code = "import sys, edgekit.passes.train, edgekit.passes.distill; print('kornia' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
