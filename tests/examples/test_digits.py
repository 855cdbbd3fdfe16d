"""The digits example: honest splits, real PNG files, and a checkpoint that reaches what its README says."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from edgekit.config import read_toml

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    names = ("model", "prepare", "train")
    sys.path.insert(0, str(DIGITS))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(DIGITS))
        for name in names:
            del sys.modules[name]


def test_splits_share_no_sample_and_calibration_is_training_data(scripts: dict[str, ModuleType]) -> None:
    _, labels = scripts["prepare"].load_frames()
    splits = {name: set(indices.tolist()) for name, indices in scripts["prepare"].split_indices(labels).items()}
    assert {name: len(indices) for name, indices in splits.items()} == {
        "train": 997,
        "calib": 300,
        "val": 200,
        "test": 600,
    }
    assert splits["train"] | splits["val"] | splits["test"] == set(range(1797))
    assert splits["calib"] < splits["train"]


def test_images_on_disk_are_the_frames(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    counts = scripts["prepare"].write_images(tmp_path)
    frames, labels = scripts["prepare"].load_frames()
    assert {split: len(list((tmp_path / split).glob("*/*.png"))) for split in counts} == counts
    paths = sorted((tmp_path / "test").glob("*/*.png"))
    for path in paths[::50]:
        index = int(path.stem)
        assert path.parent.name == str(labels[index])
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), frames[index])
    assert frames.dtype == np.uint8
    assert frames.min() == 0
    assert frames.max() == 255


def test_checkpoint_reaches_the_accuracy_of_the_readme(scripts: dict[str, ModuleType]) -> None:
    checkpoint = DIGITS / "digits.pt"
    assert checkpoint.stat().st_size < 500_000
    model = scripts["model"].digits_resnet().eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"], strict=True)
    frames, targets = scripts["prepare"].load_frames()
    inputs, labels = scripts["train"].model_inputs(frames), torch.from_numpy(targets)
    recorded = dict(
        re.findall(r"(train|val|test) top-1 accuracy: ([\d.]+) %", (DIGITS / "README.md").read_text(encoding="utf-8"))
    )
    for split, indices in scripts["prepare"].split_indices(targets).items():
        if split in recorded:
            reached = scripts["train"].accuracy(model, inputs[indices], labels[indices])
            # Arithmetic differs a little between CPUs: one image may change sides.
            assert abs(100 * reached - float(recorded.pop(split))) <= 100 / len(indices)
    assert not recorded


def test_task_spec_says_what_the_network_was_trained_on(scripts: dict[str, ModuleType]) -> None:
    spec = read_toml(DIGITS / "digits.toml")
    train = scripts["train"]
    assert spec["labels"] == [str(digit) for digit in range(10)]
    assert spec["input"]["size"] == [train.MODEL_SIZE, train.MODEL_SIZE]
    frame = np.full((48, 48), 200, np.uint8)
    normalized = (200 * spec["input"]["scale"] - spec["input"]["mean"][0]) / spec["input"]["std"][0]
    np.testing.assert_allclose(train.model_inputs(frame[None]).numpy(), normalized, rtol=1e-6)
