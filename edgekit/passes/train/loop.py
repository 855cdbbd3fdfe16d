"""The loop that all training passes share."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from edgekit.config import to_dict
from edgekit.errors import StageError, UserError
from edgekit.passes.train.checkpoint import Fingerprint, State, read_state, write_state
from edgekit.passes.train.evaluation import HeldOut, Score
from edgekit.passes.train.feed import TrainBatch, TrainData, seed_of
from edgekit.passes.train.mode import has_batch_norm, inference_view, tensors_of, training_copy
from edgekit.passes.train.objective import LOSS, Objective, Seen
from edgekit.passes.train.optimizer import Pace, RunningMean, make_optimizer, rate_factor, set_rate
from edgekit.passes.train.options import TrainOptions
from edgekit.passes.train.report import EpochReport, FitReport
from edgekit.passes.train.world import World, joined_world
from edgekit.program import Program
from edgekit.progress import Progress, ProgressTask, SilentProgress

__all__ = ["Keeping", "fit"]

# Of these options the numbers do not depend.
_FREE = frozenset({"workers", "device"})
_LOWER = "lower the learning rate (a tenth is a good try), or bound the gradient (clip_norm = 1)"


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where a training keeps its state.

    Attributes:
        folder: Gets one file, ``training.pt``, renewed after each epoch.
        resume: Go on from the file that is there; begin where there is none. False refuses to lose one.
    """

    folder: Path
    resume: bool = False


def fit(
    program: Program,
    data: TrainData,
    objective: Objective,
    options: TrainOptions,
    *,
    held_out: HeldOut | None = None,
    keeping: Keeping | None = None,
    pace: Pace | None = None,
    progress: Progress | None = None,
) -> tuple[Program, FitReport]:
    """Trains a copy of a program.

    The same program, images, options and versions of torch give the same weights on a CPU with the same number of
    threads, whether the training was interrupted and resumed or not. Started by ``torchrun``, the processes share each
    batch; all of them return the same.

    Args:
        program: Left as it is.
        data: The batches; float images as the program takes them.
        objective: The losses; left as it is, its trained parameters are a copy's.
        options: How long and how.
        held_out: Images that decide which epoch is the best, and when to stop; None takes the last.
        keeping: Where the state is kept after each epoch; None keeps none.
        pace: Parameters that learn at a rate of their own.
        progress: Where progress is shown; None shows none.

    Returns:
        The trained program, with the graph and history of the given one, and what happened.

    Raises:
        StageError: The loss became NaN or infinite.
        UserError: Nothing can be trained, the options do not fit the data, or the checkpoint is of another training.
    """
    shown = SilentProgress() if progress is None else progress
    # What the user draws from torch's global generators stays what it would have been.
    with joined_world(options.device) as world, torch.random.fork_rng(devices=world.gpus):
        training = _Training(program, data, objective, options, held_out, keeping, pace, world)
        return training.run(shown if world.leads else SilentProgress())


class _Learner(nn.Module):
    """Network and objective as one module, which is what ``DistributedDataParallel`` wants."""

    def __init__(self, network: nn.Module, objective: Objective, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.objective, self._names = network, objective, names

    def forward(self, images: torch.Tensor, targets: torch.Tensor | None) -> dict[str, torch.Tensor]:
        result = self.network(images)
        values = tuple(result) if isinstance(result, (tuple, list)) else (result,)
        outputs = dict(zip(self._names, values[: len(self._names)], strict=True))
        features = dict(zip(self.objective.features, values[len(self._names) :], strict=True))
        losses: dict[str, torch.Tensor] = self.objective(
            Seen(images=images, outputs=outputs, features=features, targets=targets)
        )
        return losses


@dataclass(kw_only=True)
class _Course:
    """What is known after some epochs, as plain data."""

    epochs: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    best_epoch: int = 0
    stale: int = 0
    stopped: bool = False


class _Training:
    def __init__(
        self,
        program: Program,
        data: TrainData,
        objective: Objective,
        options: TrainOptions,
        held_out: HeldOut | None,
        keeping: Keeping | None,
        pace: Pace | None,
        world: World,
    ) -> None:
        self._program, self._data, self._options = program, data, options
        self._held_out, self._keeping, self._pace, self._world = held_out, keeping, pace, world
        if options.early_stop is not None and held_out is None:
            raise UserError("early_stop needs held-out images", hint="raise held_back, or give a held-out set")
        self._objective = copy.deepcopy(objective).to(world.device)
        self._network = training_copy(
            program.graph, batch_norm=options.batch_norm, features=objective.features, processes=world.size
        ).to(world.device)
        # Convolutions are faster so, forwards and backwards, on CPUs as on GPUs.
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        view = inference_view(self._network, program.graph)
        self._mean = None if options.ema_decay is None else copy.deepcopy(view)
        self._measured = view if self._mean is None else self._mean
        names = tuple(item.name for item in program.outputs)
        learner = _Learner(self._network, self._objective, names)
        trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
        if not any(parameter.requires_grad for parameter in self._network.parameters()):
            raise UserError(f"'{program.name}' has no parameter that can be trained")
        self._trained = trained
        own = dict(self._network.named_parameters())
        paced = [] if pace is None else [own[name] for name in pace.names]
        self._optimizer = make_optimizer(trained, options, pace=pace, paced=paced)
        self._running = (
            None
            if self._mean is None or options.ema_decay is None
            else RunningMean(self._mean, self._network, options.ema_decay)
        )
        self._learner: nn.Module = learner
        if world.size > 1:
            devices = [world.device.index] if world.device.type == "cuda" else None
            parallel = DistributedDataParallel(learner, device_ids=devices)
            # Running statistics are the same everywhere already: they are updated from sums over all processes. Set
            # here because the constructor's argument has another name in torch 2.13 than before.
            parallel.broadcast_buffers = False
            self._learner = parallel
        self._course = _Course()
        self._best: dict[str, torch.Tensor] = {}

    def run(self, progress: Progress) -> tuple[Program, FitReport]:
        options, world = self._options, self._world
        fingerprint = self._fingerprint()
        resumed = self._taken_up(fingerprint)
        first = 0 if resumed is None else resumed
        scorings = options.epochs - first + (resumed is None)
        total = max(1, (options.epochs - first) * self._data.steps + scorings * self._scoring_steps)
        with progress.task(f"training {self._program.name}", total) as bar:
            if resumed is None:
                self._course.before = self._course.best = self._course.last = self._scored(bar)
            for epoch in range(first, options.epochs):
                if self._course.stopped:
                    break
                self._epoch(epoch, bar)
                if self._keeping is not None and world.leads:
                    write_state(self._keeping.folder, self._state(epoch + 1), fingerprint)
        return self._result(), self._report(resumed)

    def _epoch(self, epoch: int, bar: ProgressTask) -> None:
        options, steps = self._options, self._data.steps
        start, sums = time.perf_counter(), dict[str, float]()
        rate = 0.0
        for step, batch in enumerate(self._data.epoch(epoch, self._world)):
            if epoch == 0 and step == 0:
                self._check_batch(batch)
            done = epoch * steps + step
            rate = options.highest_rate * rate_factor(done, options.epochs * steps, options)
            set_rate(self._optimizer, rate, share=done / (options.epochs * steps))
            # Dropout draws from here; nothing is left over from the step before.
            torch.manual_seed(seed_of(options.seed, "step", epoch, step, self._world.rank))
            losses = self._step(batch, epoch, step)
            if self._running is not None:
                self._running.update(done)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            bar.note(self._note(epoch, sums[LOSS] / (step + 1)))
            bar.advance()
        held = self._course.last = self._scored(bar)
        self._judge(epoch + 1, held)
        means = self._world.mean(torch.tensor([*sums.values()], dtype=torch.float32, device=self._world.device))
        report = EpochReport(
            epoch=epoch + 1,
            losses={name: float(value) / steps for name, value in zip(sums, means, strict=True)},
            learning_rate=rate,
            held_out=None if held is None else held["value"],
            duration_s=time.perf_counter() - start,
        )
        self._course.epochs.append(asdict(report))

    def _step(self, batch: TrainBatch, epoch: int, step: int) -> dict[str, float]:
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with self._arithmetic():
            losses = self._learner(images, batch.targets)
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(values[LOSS]):
            raise StageError(
                f"training '{self._program.name}' diverged: the loss is {values[LOSS]} in epoch {epoch + 1}, step "
                f"{step + 1} of {self._data.steps}, at a learning rate of {self._optimizer.param_groups[0]['lr']:.3g}",
                hint=_LOWER,
            )
        self._optimizer.zero_grad(set_to_none=True)
        losses[LOSS].backward()
        if self._options.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._trained, self._options.clip_norm)
        self._optimizer.step()
        return values

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Bfloat16 needs no scaling of the loss, unlike float16; a GPU without it computes in float32."""
        device = self._world.device
        wanted = self._options.precision == "auto" and device.type == "cuda"
        if wanted and torch.cuda.is_bf16_supported(including_emulation=False):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                yield
        else:
            yield

    @property
    def _scoring_steps(self) -> int:
        return 0 if self._held_out is None else self._held_out.steps

    def _scored(self, bar: ProgressTask) -> dict[str, Any] | None:
        """Measures in process 0; the others wait and hear of it."""
        if self._held_out is None:
            return None
        found: dict[str, Any] | None = None
        if self._world.leads:
            device = self._world.device
            try:
                score = self._held_out.score(self._measured, self._program, self._objective, device, bar.advance)
            except StageError as error:
                raise StageError(
                    f"'{self._program.name}' cannot be scored on the held-out images after {len(self._course.epochs)} "
                    f"whole epochs: {error.message}",
                    hint=_LOWER,
                ) from error
            found = asdict(score)
        return self._world.from_leader(found)

    def _judge(self, epoch: int, held: Mapping[str, Any] | None) -> None:
        course = self._course
        if held is None or course.best is None:
            return
        now, best = Score(**held), Score(**course.best)
        # Weights that came without a number for a score are beaten by any that have one.
        if now.beats(best) or (math.isnan(best.value) and not math.isnan(now.value)):
            course.best, course.best_epoch, course.stale = dict(held), epoch, 0
            if self._options.keep == "best":
                self._best = _copied(tensors_of(self._measured))
        else:
            course.stale += 1
            course.stopped = self._options.early_stop is not None and course.stale >= self._options.early_stop

    def _check_batch(self, batch: TrainBatch) -> None:
        live = self._options.batch_norm == "live" and has_batch_norm(self._program.graph)
        if live and len(batch.images) * self._world.size < 2:
            raise UserError(
                "a batch of one image has no statistics for batch norm to take",
                hint="raise batch_size, or set batch_norm = 'frozen'",
            )

    def _note(self, epoch: int, loss: float) -> str:
        best = self._course.best
        held = "" if best is None else f", best {best['name']} {best['value']:.4f}"
        return f"epoch {epoch + 1}/{self._options.epochs}, loss {loss:.4f}{held}"

    def _fingerprint(self) -> Fingerprint:
        options = {name: value for name, value in to_dict(self._options).items() if name not in _FREE}
        held = None if self._held_out is None else self._held_out.to_dict()
        return Fingerprint.of(
            self._program,
            {**options, "pace": to_dict(self._pace), "processes": self._world.size},
            {"training": self._data.to_dict(), "held_out": held},
            self._objective.to_dict(),
        )

    def _state(self, epoch: int) -> State:
        own = {name: value for name, value in self._objective.named_parameters() if value.requires_grad}
        return State(
            epoch=epoch,
            weights=_copied(tensors_of(self._network)),
            mean={} if self._mean is None else _copied(tensors_of(self._mean)),
            objective=_copied(own),
            optimizer=self._optimizer.state_dict(),
            best=self._best,
            notes=asdict(self._course),
        )

    def _taken_up(self, fingerprint: Fingerprint) -> int | None:
        if self._keeping is None:
            return None
        # Where machines train together, the file is on that of number 0.
        keeping, leads = self._keeping, self._world.leads
        found = read_state(keeping.folder, fingerprint, resume=keeping.resume) if leads else None
        state = self._world.from_leader(found)
        if state is None:
            return None
        _fill(tensors_of(self._network), state.weights)
        if self._mean is not None:
            _fill(tensors_of(self._mean), state.mean)
        _fill(dict(self._objective.named_parameters()), state.objective)
        self._optimizer.load_state_dict(state.optimizer)
        self._best = state.best
        self._course = _Course(**state.notes)
        return state.epoch

    def _result(self) -> Program:
        result = self._program.copied()
        if self._keeps_best and self._course.best_epoch == 0:
            return result
        _fill(tensors_of(result.graph), self._best if self._keeps_best else tensors_of(self._measured))
        return result

    @property
    def _keeps_best(self) -> bool:
        return self._options.keep == "best" and self._held_out is not None

    def _report(self, resumed: int | None) -> FitReport:
        course = self._course
        before = None if course.before is None else Score(**course.before)
        chosen = course.best if self._keeps_best else course.last
        after = None if chosen is None else Score(**chosen)
        return FitReport(
            criterion="none" if before is None else before.name,
            higher_is_better=before is None or before.higher_is_better,
            chosen_epoch=course.best_epoch if self._keeps_best else len(course.epochs),
            before=None if before is None else before.value,
            after=None if after is None else after.value,
            per_class_before={} if before is None else before.per_class,
            per_class_after={} if after is None else after.per_class,
            epochs=tuple(EpochReport(**item) for item in course.epochs),
            stopped_early=course.stopped,
            images=self._data.images,
            held_out_images=0 if self._held_out is None else len(self._held_out.dataset),
            steps_per_epoch=self._data.steps,
            seed=self._options.seed,
            processes=self._world.size,
            resumed_epoch=resumed,
        )


def _copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def _fill(tensors: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    for name, value in values.items():
        tensors[name].copy_(value)
