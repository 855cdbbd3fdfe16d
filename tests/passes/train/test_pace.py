"""Parameters that learn at a rate of their own, and frames for programs that have their preprocessing inside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.objectives import objective_for
from edgekit.passes.train import Feed, HeldOut, Supervised, TrainOptions
from edgekit.passes.train.finetune import AS_THEY_ARE
from edgekit.passes.train.optimizer import Pace, make_optimizer, set_rate
from edgekit.passes.train.pixels import PixelScale
from edgekit.passes.train.world import World
from edgekit.runtime.tasks.base import ImageInput
from tests.networks import folded, pictures, program, spec
from tests.passes.train.coloured import coloured


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_paced_parameters_have_their_own_rate_until_their_time_is_over(optimizer: str) -> None:
    weight, step = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    options = TrainOptions(optimizer=optimizer, weight_decay=0.5)  # type: ignore[arg-type]
    made = make_optimizer([weight, step], options, pace=Pace(names=("step",), factor=10.0, until=0.5), paced=[step])
    rates = []
    for share in (0.0, 0.49, 0.5, 0.9):
        set_rate(made, 0.01, share=share)
        rates.append([group["lr"] for group in made.param_groups])
        before = step.detach().clone()
        weight.grad, step.grad = torch.ones(2, 2), torch.ones(2, 2)
        made.step()
        assert torch.equal(step.detach(), before) == (share >= 0.5)
    assert rates == [[0.01, 0.1], [0.01, 0.1], [0.01, 0.0], [0.01, 0.0]]
    assert [group["weight_decay"] for group in made.param_groups] == [0.5, 0.0]


def test_a_pace_that_ends_at_once_never_learns() -> None:
    step = nn.Parameter(torch.ones(2))
    made = make_optimizer([step], TrainOptions(), pace=Pace(names=("step",), until=0.0), paced=[step])
    set_rate(made, 0.01, share=0.0)
    assert [group["lr"] for group in made.param_groups] == [0.0]


@pytest.mark.parametrize(
    "image",
    [
        spec().input,
        replace(spec().input, color="bgr"),
        ImageInput(size=(16, 16), channels=1, color="gray", mean=(0.0,), std=(1.0,), scale=1 / 255),
        ImageInput(size=(16, 16), channels=1, color="gray", mean=(0.0,), std=(1.0,), dtype="uint16", scale=1 / 65535),
        ImageInput(size=(16, 16), channels=1, color="gray", mean=(0.0,), std=(1.0,), dtype="float32", scale=0.5),
    ],
    ids=["rgb", "bgr", "gray", "uint16", "float32"],
)
def test_frames_come_back_as_they_were(image: ImageInput) -> None:
    pixels = pictures(3)[..., : image.channels].to(getattr(torch, image.dtype))
    scale = PixelScale(image, torch.device("cpu"), frames=True)
    found = scale.normalised(scale.shares(pixels))
    assert found.dtype == pixels.dtype
    assert torch.allclose(found.float(), pixels.float(), rtol=1e-6)
    if image.dtype != "float32":
        assert torch.equal(found, pixels)
        beyond = scale.normalised(scale.shares(pixels) * 3 - 1)
        top = 255 if image.dtype == "uint8" else 65535
        assert 0 <= int(beyond.to(torch.int64).min()) <= int(beyond.to(torch.int64).max()) <= top


def test_a_program_with_its_preprocessing_inside_answers_alike_on_frames(tmp_path: Path) -> None:
    data, options, task = coloured(tmp_path, 3), TrainOptions(batch_size=6), objective_for(spec())
    answers, scores = [], []
    for item, frames in ((program("residual"), False), (folded("residual"), True)):
        feed = Feed(data, spec().input, task, options, augmentation=AS_THEY_ARE, labelled=True, frames=frames)
        batch = next(iter(feed.epoch(0, World())))
        assert batch.images.dtype == (torch.uint8 if frames else torch.float32)
        answers.append(item.run(batch.images)[0])
        held = HeldOut(data, spec(), frames=frames)
        scores.append(held.score(item.graph, item, Supervised(task), torch.device("cpu"), lambda: None).value)
    assert torch.allclose(*answers, atol=1e-4)
    assert scores[0] == scores[1]
