"""The learning rate's course, weight decay, the running mean, and options that check themselves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.errors import ConfigError
from edgekit.passes.train import TrainOptions
from edgekit.passes.train.optimizer import RunningMean, make_optimizer, rate_factor


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine() -> None:
    options = TrainOptions(warmup=0.1)
    course = [rate_factor(step, 100, options) for step in range(100)]
    assert course[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert course[10] == 1.0
    assert course[55] == pytest.approx(0.5)
    assert course[40] == pytest.approx(0.5 * (1 + math.cos(math.pi * 30 / 90)))
    assert 0 < course[99] < 0.001
    constant = TrainOptions(warmup=0.1, schedule="constant")
    assert [rate_factor(step, 100, constant) for step in (4, 10, 99)] == pytest.approx([0.5, 1.0, 1.0])
    assert rate_factor(0, 1, TrainOptions(warmup=0.0)) == 1.0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_biases_and_norms_do_not_decay(optimizer: Any) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    scale = nn.Parameter(torch.ones(1, 4, 1, 1))
    options = TrainOptions(optimizer=optimizer, weight_decay=0.3)
    made = make_optimizer([*network.parameters(), scale], options)
    decays = {id(item): group["weight_decay"] for group in made.param_groups for item in group["params"]}
    assert decays[id(network[0].weight)] == decays[id(network[2].weight)] == 0.3
    for vector in (network[0].bias, network[1].weight, network[1].bias, network[2].bias, scale):
        assert decays[id(vector)] == 0
    assert len(decays) == 7


def test_sgd_is_nesterov_s() -> None:
    # v = m v + g; w = w - r (g + m v), with g = 1 each step.
    weight = nn.Parameter(torch.zeros(2, 2))
    made = make_optimizer([weight], TrainOptions(learning_rate=0.1, weight_decay=0.0))
    for _ in range(2):
        weight.grad = torch.ones(2, 2)
        made.step()
    expected = -(0.1 * (1 + 0.9 * 1)) - 0.1 * (1 + 0.9 * 1.9)
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), expected))


def test_the_running_mean() -> None:
    source, mean = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    running = RunningMean(mean, source, 0.9)
    expected = 1.0
    for update, value in enumerate([2.0, 3.0, 5.0] * 50):
        with torch.no_grad():
            source.weight.fill_(value)
            assert source.running_var is not None
            source.running_var.fill_(value)
        running.update(update)
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
    assert float(mean.weight) == pytest.approx(expected, rel=1e-5)
    assert mean.running_var is not None
    assert float(mean.running_var) == pytest.approx(expected, rel=1e-5)


def test_defaults_follow_the_optimizer() -> None:
    sgd, adamw = TrainOptions(), TrainOptions(optimizer="adamw")
    assert (sgd.highest_rate, sgd.decay) == (0.01, 1e-4)
    assert (adamw.highest_rate, adamw.decay) == (1e-4, 0.01)
    assert TrainOptions(learning_rate=0.5, weight_decay=0.0).decay == 0.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"optimizer": "adam"}, "optimizer: expected one of 'sgd', 'adamw', got 'adam'"),
        ({"batch_norm": "off"}, "batch_norm: expected one of 'live', 'frozen'"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number above 0"),
        ({"weight_decay": -1.0}, "weight_decay: expected 0 or more"),
        ({"warmup": 1.0}, "warmup: expected a number from 0 to below 1"),
        ({"held_back": 1.0}, "held_back: expected a number from 0 to below 1"),
        ({"ema_decay": 1.0}, "ema_decay: expected a number between 0 and 1"),
        ({"early_stop": 0}, "early_stop: expected at least 1 epoch"),
        ({"early_stop": 2, "keep": "last"}, "early_stop goes back to the best epoch"),
    ],
)
def test_wrong_options(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainOptions(**wrong)
