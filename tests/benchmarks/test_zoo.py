from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.zoo.pictures import normalized, pictures, write_pictures
from benchmarks.zoo.plain import CRNN, Detector, UNet
from benchmarks.zoo.torchvision_stand_in import torchvision_for_timm
from edgekit.data import read_folder, read_frame
from edgekit.runtime.tasks.base import ImageInput


@pytest.mark.parametrize(
    ("build", "size", "shape"),
    [(UNet, (64, 64), (1, 12, 64, 64)), (Detector, (64, 64), (1, 84, 84)), (CRNN, (32, 100), (1, 26, 37))],
)
def test_the_plain_networks_run(build, size: tuple[int, int], shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        assert build().eval()(torch.zeros(1, 3, *size)).shape == shape


def test_pictures_are_seeded_one_by_one() -> None:
    few, many = pictures(2, (48, 64), seed=5), pictures(4, (48, 64), seed=5)
    assert (few.dtype, few.shape) == (torch.uint8, (2, 3, 48, 64))
    assert torch.equal(few, many[:2])
    assert not torch.equal(many[2], many[3])
    assert not torch.equal(few, pictures(2, (48, 64), seed=6))


def test_pictures_have_contrast_and_smooth_parts() -> None:
    images = pictures(8, (64, 64), seed=0).float()
    assert images.std() > 20
    # Neighbours are alike, as in photographs and unlike in white noise.
    assert (images[..., 1:] - images[..., :-1]).abs().mean() < images.std() / 2


def test_normalized_is_what_networks_expect() -> None:
    gray = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert normalized(gray)[0, :, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)


def test_written_pictures_are_the_same(tmp_path: Path) -> None:
    write_pictures(tmp_path / "new", 2, (32, 48), seed=5)
    paths = [sample.path for sample in read_folder(tmp_path / "new", None).samples]
    assert len(paths) == 2
    frame = torch.from_numpy(read_frame(paths[1], ImageInput(size=(32, 48)))[..., ::-1].copy())
    assert torch.equal(frame.permute(2, 0, 1), pictures(2, (32, 48), seed=5)[1])


def test_timm_is_imported_without_torchvision_and_nothing_is_left_behind() -> None:
    pytest.importorskip("huggingface_hub")
    from importlib.util import find_spec

    if find_spec("timm") is None:
        pytest.skip("timm is not installed: benchmarks/requirements.txt")
    from benchmarks.zoo.networks import NETWORKS, make

    real = find_spec("torchvision") is not None
    module = make("regnety_002")
    assert real or not any(name.split(".")[0] == "torchvision" for name in sys.modules)
    assert torch.equal(module.stem.conv.weight, make("regnety_002").stem.conv.weight)
    norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert norms
    assert all(bool((part.running_var != 1).any()) and bool((part.running_mean != 0).any()) for part in norms)
    assert len(NETWORKS) == 26


def test_the_stand_in_goes_away() -> None:
    before = list(sys.meta_path)
    with torchvision_for_timm():
        pass
    assert sys.meta_path == before
