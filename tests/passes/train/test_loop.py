"""The loop: it learns, repeats itself, keeps the best, stops, resumes, and says when it cannot."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.augmentation import load_augmentation
from edgekit.data import Dataset, read_folder
from edgekit.errors import DataError, StageError, UserError
from edgekit.objectives import objective_for
from edgekit.passes import PassContext, run_passes
from edgekit.passes.train import (
    LOSS,
    Feed,
    FineTune,
    FitReport,
    HeldOut,
    Keeping,
    Objective,
    Seen,
    Supervised,
    TrainBatch,
    TrainImages,
    TrainOptions,
    fine_tune,
    fit,
)
from edgekit.passes.train.checkpoint import CHECKPOINT
from edgekit.passes.train.finetune import AS_THEY_ARE
from edgekit.passes.train.mode import tensors_of
from edgekit.passes.train.world import World
from edgekit.program import Program
from edgekit.progress import TerminalProgress
from tests import networks
from tests.passes.train.coloured import coloured

SPEC = networks.spec()
TASK = objective_for(SPEC)
# Four epochs of three steps, with all that has a state: momentum, running mean, dropout, augmentation.
OPTIONS = TrainOptions(epochs=4, batch_size=12, learning_rate=0.05, ema_decay=0.9, clip_norm=5.0, seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return coloured(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return coloured(tmp_path_factory.mktemp("held"), 5, seed=1)


@functools.cache
def _program(name: str) -> Program:
    """Exporting takes longer than training here, and a training leaves its program as it is."""
    return networks.program(name)


def _feed(data: Dataset, options: TrainOptions = OPTIONS, augmentation: str = "none") -> Feed:
    return Feed(data, SPEC.input, TASK, options, augmentation=load_augmentation(augmentation), labelled=True)


def _fit(
    data: Dataset,
    options: TrainOptions = OPTIONS,
    held_out: Dataset | None = None,
    keeping: Keeping | None = None,
    objective: Objective | None = None,
    augmentation: str = "cifar",
    network: str = "residual",
) -> tuple[Program, FitReport]:
    held = None if held_out is None else HeldOut(held_out, SPEC)
    wanted = Supervised(TASK) if objective is None else objective
    feed = _feed(data, options, augmentation)
    return fit(_program(network), feed, wanted, options, held_out=held, keeping=keeping)


def _same(first: Program, second: Program) -> bool:
    mine, theirs = tensors_of(first.graph), tensors_of(second.graph)
    return mine.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_it_learns_and_leaves_the_given_program_alone(data: Dataset, others: Dataset) -> None:
    program = networks.program("residual")
    code, history = str(program.graph.graph), program.history
    drawn = torch.random.get_rng_state()
    result, report = fit(
        program, _feed(data), Supervised(TASK), replace(OPTIONS, ema_decay=None), held_out=HeldOut(others, SPEC)
    )
    assert _same(program, networks.program("residual"))
    assert str(program.graph.graph) == code == str(result.graph.graph)
    assert (result.inputs, result.outputs, result.history) == (program.inputs, program.outputs, history)
    assert torch.equal(torch.random.get_rng_state(), drawn), "the caller's random state is untouched"
    assert report.criterion == "top1"
    assert report.before is not None
    assert report.after is not None
    assert report.before < 0.5 < 0.9 < report.after
    losses = [epoch.losses[LOSS] for epoch in report.epochs]
    assert losses[-1] < 0.7 * losses[0]
    assert report.per_class_after.keys() == set(networks.LABELS)
    assert report.steps_per_epoch == 40 // 12
    # What is reported is what the result does.
    assert HeldOut(others, SPEC).score(
        result.graph, result, Supervised(TASK), torch.device("cpu"), lambda: None
    ).value == pytest.approx(report.after)


@pytest.mark.parametrize("network", ["depthwise", "attention"])
def test_adamw_learns_too(data: Dataset, others: Dataset, network: str) -> None:
    options = TrainOptions(epochs=6, batch_size=8, optimizer="adamw", learning_rate=0.01)
    _, report = _fit(data, options, others, augmentation="light", network=network)
    assert report.after is not None
    assert report.after > 0.7


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(data: Dataset) -> None:
    torch.manual_seed(1)
    first, _ = _fit(data)
    torch.manual_seed(2)
    assert _same(first, _fit(data)[0])
    assert not _same(first, _fit(data, replace(OPTIONS, seed=4))[0])


class _Interrupting(Supervised):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, steps: int) -> None:
        super().__init__(TASK)
        self.left = steps

    def forward(self, seen: Seen) -> dict[str, torch.Tensor]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().forward(seen)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("steps", [4, 8])
def test_interrupted_and_resumed_is_bit_for_bit_uninterrupted(
    data: Dataset, others: Dataset, tmp_path: Path, steps: int, optimizer: Any
) -> None:
    options = replace(OPTIONS, optimizer=optimizer, learning_rate=0.02)
    whole, expected = _fit(data, options, others)
    folder = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        _fit(data, options, others, Keeping(folder=folder), _Interrupting(steps))
    assert [path.name for path in folder.iterdir()] == [CHECKPOINT]
    resumed, report = _fit(data, options, others, Keeping(folder=folder, resume=True))
    assert _same(whole, resumed)
    assert report.resumed_epoch == steps // 3
    assert report.to_details() == expected.to_details()
    # Once more: everything is done already.
    again, report = _fit(data, options, others, Keeping(folder=folder, resume=True))
    assert _same(whole, again)
    assert report.resumed_epoch == 4


def test_resuming_where_nothing_was_begins(data: Dataset, tmp_path: Path) -> None:
    begun, report = _fit(data, keeping=Keeping(folder=tmp_path / "new", resume=True))
    assert report.resumed_epoch is None
    assert _same(begun, _fit(data)[0])


def test_a_checkpoint_is_not_lost_and_not_mixed_up(data: Dataset, others: Dataset, tmp_path: Path) -> None:
    keeping = Keeping(folder=tmp_path)
    options = replace(OPTIONS, epochs=1)
    _fit(data, options, keeping=keeping)
    with pytest.raises(UserError, match=r"training\.pt: holds an earlier training"):
        _fit(data, options, keeping=keeping)
    resuming = replace(keeping, resume=True)
    with pytest.raises(UserError, match=r"different are epochs \(1 there, 2 here\); seed \(3 there, 5 here\)"):
        _fit(data, replace(options, epochs=2, seed=5), keeping=resuming)
    with pytest.raises(UserError, match="different are the images"):
        _fit(others, options, keeping=resuming)
    with pytest.raises(UserError, match="different are the program or its weights"):
        _fit(data, options, keeping=resuming, network="depthwise")
    with pytest.raises(UserError, match="different are the losses, or the teacher"):
        _fit(data, options, keeping=resuming, objective=Supervised(replace(TASK, focal_gamma=1.0)))
    (tmp_path / CHECKPOINT).write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        _fit(data, options, keeping=resuming)


def test_a_checkpoint_that_would_run_code_is_refused(data: Dataset, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"format": 1, "weights": Harmful()}, tmp_path / CHECKPOINT)
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        _fit(data, keeping=Keeping(folder=tmp_path, resume=True))
    assert not (tmp_path / "ran").exists()


class _Scores(HeldOut):
    """Held-out scores that are told, not measured."""

    def __init__(self, dataset: Dataset, values: list[float]) -> None:
        super().__init__(dataset, SPEC)
        self.values = iter(values)

    def score(self, *arguments: Any) -> Any:
        return replace(super().score(*arguments), value=next(self.values))


def _scored(data: Dataset, others: Dataset, values: list[float], options: TrainOptions) -> tuple[Program, FitReport]:
    program = _program("residual")
    return fit(program, _feed(data), Supervised(TASK), options, held_out=_Scores(others, values))


def test_the_best_epoch_is_returned_the_first_of_equal_ones(data: Dataset, others: Dataset) -> None:
    options = replace(OPTIONS, ema_decay=None)
    best, report = _scored(data, others, [0.1, 0.5, 0.7, 0.7, 0.6], options)
    assert (report.chosen_epoch, report.before, report.after) == (2, 0.1, 0.7)
    last, report = _scored(data, others, [0.1, 0.5, 0.7, 0.7, 0.6], replace(options, keep="last"))
    assert (report.chosen_epoch, report.after) == (4, 0.6)
    assert not _same(best, last)


def test_weights_that_training_did_not_better_are_returned_as_given(data: Dataset, others: Dataset) -> None:
    result, report = _scored(data, others, [0.9, 0.5, 0.7, 0.7, 0.6], OPTIONS)
    assert _same(result, _program("residual"))
    assert (report.chosen_epoch, report.after) == (0, 0.9)
    assert "none were better" in report.summary


def test_early_stop_goes_back_to_the_best(data: Dataset, others: Dataset) -> None:
    options = replace(OPTIONS, epochs=9, early_stop=2, ema_decay=None)
    result, report = _scored(data, others, [0.1, 0.5, 0.4, 0.3, 0.9], options)
    assert (report.chosen_epoch, len(report.epochs), report.stopped_early) == (1, 3, True)
    assert "stopped early" in report.summary
    with pytest.raises(UserError, match="early_stop needs held-out images"):
        _fit(data, options)
    assert not _same(result, _program("residual"))


def test_the_running_mean_is_what_is_returned(data: Dataset) -> None:
    plain, _ = _fit(data, replace(OPTIONS, ema_decay=None))
    mean, _ = _fit(data, replace(OPTIONS, ema_decay=0.99))
    first = _program("residual")

    def moved(program: Program) -> float:
        now, before = (tensors_of(item.graph)["head.linear.weight"] for item in (program, first))
        return float((now - before).detach().norm())

    assert 0 < moved(mean) < moved(plain)


def test_frozen_batch_norm_keeps_its_statistics_and_live_moves_them(data: Dataset) -> None:
    before = dict(_program("residual").graph.named_buffers())
    frozen = dict(_fit(data, replace(OPTIONS, batch_norm="frozen"))[0].graph.named_buffers())
    live = dict(_fit(data, OPTIONS)[0].graph.named_buffers())
    assert all(torch.equal(value, frozen[name]) for name, value in before.items())
    statistics = [name for name in before if "running" in name]
    assert len(statistics) == 6
    assert not any(torch.equal(before[name], live[name]) for name in statistics)


def test_live_batch_norm_needs_more_than_one_image(data: Dataset) -> None:
    one = replace(OPTIONS, batch_size=1, epochs=1)
    with pytest.raises(UserError, match="a batch of one image has no statistics"):
        _fit(data, one)
    _, report = _fit(data, replace(one, batch_norm="frozen", learning_rate=0.001))
    assert report.steps_per_epoch == 40


def test_a_training_that_diverges_says_where_and_what_to_do(data: Dataset) -> None:
    with pytest.raises(StageError, match=r"diverged: the loss is (nan|inf) in epoch \d, step \d of 3") as caught:
        _fit(data, replace(OPTIONS, learning_rate=1e18, warmup=0.0))
    assert caught.value.hint is not None
    assert "lower the learning rate" in caught.value.hint


def test_weights_that_are_no_numbers_after_the_last_step_are_noticed(data: Dataset, others: Dataset) -> None:
    options = replace(OPTIONS, learning_rate=1e30, warmup=0.0, batch_size=40, ema_decay=None, clip_norm=None)
    with pytest.raises(StageError, match="cannot be scored on the held-out images after 0 whole epochs"):
        _fit(data, options, others)


def test_gradients_are_bounded(data: Dataset) -> None:
    options = TrainOptions(epochs=1, batch_size=40, momentum=0.0, warmup=0.0, learning_rate=1.0, weight_decay=0.0)
    first = _program("attention")

    def step(options: TrainOptions) -> float:
        result, _ = _fit(data, options, network="attention", augmentation="none")
        mine, theirs = dict(result.graph.named_parameters()), dict(first.graph.named_parameters())
        return float(torch.stack([(value - theirs[name]).norm() for name, value in mine.items()]).detach().norm())

    assert step(replace(options, clip_norm=0.01)) == pytest.approx(0.01, rel=1e-3)
    assert step(options) > 0.02


def test_what_is_frozen_is_not_trained(data: Dataset) -> None:
    program = networks.program("residual")
    for name, parameter in program.graph.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    result, _ = fit(program, _feed(data), Supervised(TASK), OPTIONS)
    before = dict(program.graph.named_parameters())
    moved = {name for name, value in result.graph.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"head.linear.weight", "head.linear.bias"}
    program.graph.requires_grad_(False)
    with pytest.raises(UserError, match="no parameter that can be trained"):
        fit(program, _feed(data), Supervised(TASK), OPTIONS)


def test_any_source_of_batches_will_do() -> None:
    class Numbers:
        images, steps = 8, 2

        def epoch(self, epoch: int, world: World) -> Iterator[TrainBatch]:
            generator = torch.Generator().manual_seed(epoch)
            for _ in range(2):
                yield TrainBatch(images=torch.randn(4, 3, 16, 16, generator=generator), targets=torch.eye(4))

        def to_dict(self) -> dict[str, Any]:
            return {}

    _, report = fit(_program("depthwise"), Numbers(), Supervised(TASK), TrainOptions(epochs=2))
    assert (len(report.epochs), report.criterion, report.after) == (2, "none", None)
    assert "nothing was held out" in report.summary


def test_the_bar_shows_how_it_goes(data: Dataset, others: Dataset) -> None:
    stream = io.StringIO()
    ticks = iter(range(10_000))
    progress = TerminalProgress(stream, delay_s=0.0, clock=lambda: float(next(ticks)))
    fit(
        _program("residual"),
        _feed(data),
        Supervised(TASK),
        replace(OPTIONS, epochs=2),
        held_out=HeldOut(others, SPEC),
        progress=progress,
    )
    assert "training Residual [" in stream.getvalue()
    assert "s left, epoch 2/2, loss " in stream.getvalue()
    assert "best top1 0." in stream.getvalue()


def test_the_pass_holds_images_back_and_leaves_a_record(data: Dataset) -> None:
    program = _program("residual")
    options = replace(OPTIONS, epochs=2, held_back=0.25)
    result = run_passes(
        program, [FineTune(images=TrainImages(data=data, balanced=True), options=options)], networks.CONTEXT
    )
    record = result.history[-1]
    assert record.stage == "fine-tune"
    assert record.summary.startswith("2 epochs on 30 images; top1 on 10 held-out images 0.")
    assert [item["epoch"] for item in record.details["epochs"]] == [1, 2]
    assert record.details["seed"] == 3
    assert set(record.details["per_class_before"]) == set(networks.LABELS)
    assert "duration_s" not in str(record.details)
    assert _same(result, fine_tune(program, TrainImages(data=data, balanced=True), options))


def test_data_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images found"):
        read_folder(tmp_path / "empty", networks.LABELS)
    with pytest.raises(DataError, match="the data set is empty"):
        _feed(Dataset(samples=(), classes=networks.LABELS))
    flat = coloured(tmp_path / "flat", 2, labelled=False)
    with pytest.raises(DataError, match="have no labels, and the loss or the balancing needs them"):
        fine_tune(_program("residual"), TrainImages(data=flat), OPTIONS)


def test_classes_in_another_order_than_the_labels_are_refused(data: Dataset) -> None:
    alphabetic = read_folder(data.samples[0].path.parents[1], None)
    assert alphabetic.classes == tuple(sorted(networks.LABELS))
    with pytest.raises(DataError, match=r"not the task's labels .*, or in another order"):
        fine_tune(_program("residual"), TrainImages(data=alphabetic), OPTIONS)


def test_an_unreadable_image_is_left_out_and_named(tmp_path: Path) -> None:
    data = coloured(tmp_path, 10)
    data.samples[3].path.write_bytes(b"no image")
    result = FineTune(images=TrainImages(data=data), options=replace(OPTIONS, epochs=1, held_back=0.0)).run(
        _program("residual"), PassContext(progress=networks.CONTEXT.progress)
    )
    (named,) = result.program.history[-1].details["unreadable"]
    assert named.startswith(f"blue/{data.samples[3].path.name}: ")


def test_a_small_set_is_one_batch(data: Dataset) -> None:
    feed = _feed(data, replace(OPTIONS, batch_size=1000))
    assert feed.steps == 1
    (batch,) = feed.epoch(0, World())
    assert batch.images.shape == (40, 3, 16, 16)
    assert batch.targets is not None
    assert np.allclose(batch.targets.sum(0), 10)
    assert AS_THEY_ARE.off
