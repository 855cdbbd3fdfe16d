"""Pruning by the clock: the path of choices, the fitted times, and the search for what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from edgekit.errors import ConfigError
from edgekit.passes import PassContext, run_passes
from edgekit.passes.prune import Measures, Prune, PruneOptions
from edgekit.passes.prune.arithmetic import Arithmetic
from edgekit.passes.prune.blocks import BlockPrices, find_blocks
from edgekit.passes.prune.distance import by_answers, distance_on
from edgekit.passes.prune.flow import trace
from edgekit.passes.prune.latency import CLOSE, Path, Trial, learn_times, search
from edgekit.passes.prune.plan import without
from edgekit.passes.prune.rules import TABLE
from edgekit.passes.prune.timing import REST, LayerSize, LayerSizes, LayerTimes, Sample, TimeModel
from edgekit.passes.prune.units import find_groups
from edgekit.program import Program
from edgekit.progress import SilentProgress
from tests.passes.prune.test_blocks import images, weak

CONTEXT = PassContext(progress=SilentProgress())
_CONSTANT, _PER_MAC, _PER_ELEMENT, _OVERHEAD = 2e-6, 1e-11, 1e-10, 5e-6


@dataclass
class Invented:
    """A clock of a target that takes a fixed time for a layer, a multiply-accumulate and an element."""

    given: Program
    table: dict[str, list[Sample]] = field(default_factory=dict)
    built: int = 0
    slower: float = 1.0

    def layers(self, program: Program) -> LayerTimes:
        self.built += 1
        sizes = LayerSizes(trace(program, TABLE))
        alive = sizes.everyone_alive()
        found = [sizes.size(index, alive) for index in range(len(sizes))]
        seconds = [_CONSTANT + _PER_MAC * size.macs + _PER_ELEMENT * size.elements for size in found]
        return LayerTimes(layers={sizes.name(i): seconds[i] for i in range(len(sizes))}, rest=_OVERHEAD)

    def ratio(self, program: Program) -> float:
        return self.slower * self._total(program) / self._total(self.given)

    def known(self, family: str) -> Sequence[Sample]:
        return self.table.get(family, ())

    def learned(self, samples: Mapping[str, Sequence[Sample]]) -> None:
        for family, items in samples.items():
            self.table.setdefault(family, []).extend(items)

    def _total(self, program: Program) -> float:
        times = self.layers(program)
        return sum(times.layers.values()) + times.rest


def pruned(clock: Invented, latency: float, **options: object) -> Program:
    asked = PruneOptions(latency=latency, **options)  # type: ignore[arg-type]
    return run_passes(clock.given, [Prune(options=asked, measures=Measures(batches=images, clock=clock))], CONTEXT)


@pytest.mark.parametrize("remove", ["channels", "blocks", "both"])
def test_what_is_left_takes_the_time_that_was_asked_for(remove: str) -> None:
    clock = Invented(given=weak())
    result = pruned(clock, 0.7, remove=remove)
    record = result.history[-1]
    assert clock.ratio(result) == pytest.approx(record.details["trials"][-1]["measured"])
    # A block of four is a coarse step; channels come within a few percent.
    assert clock.ratio(result) == pytest.approx(0.7, rel=0.2 if remove == "blocks" else 0.05)
    assert bool(record.details.get("removed")) == (remove == "blocks") or remove == "both"
    assert "of the time" in record.summary


def test_the_answers_move_less_than_by_an_equal_share_of_each_width() -> None:
    clock = Invented(given=weak())
    by_clock = pruned(clock, 0.7)
    options = (PruneOptions(keep=share / 100) for share in range(95, 5, -5))
    for asked in options:
        uniform = run_passes(clock.given, [Prune(options=asked)], CONTEXT)
        if clock.ratio(uniform) <= clock.ratio(by_clock):
            break
    distance = distance_on(clock.given, images)
    assert distance(by_clock) < distance(uniform)


def test_a_wrong_prediction_is_corrected_by_measuring() -> None:
    """The whole takes longer than its layers say; only the measured times know."""
    clock = Invented(given=weak(), slower=1.15)
    result = pruned(clock, 0.7)
    trials = result.history[-1].details["trials"]
    assert trials[-1]["measured"] == pytest.approx(0.7, rel=0.1)
    assert trials[-1]["predicted"] < 0.65
    assert len(trials) > 1


def test_layers_that_are_known_are_not_timed_again() -> None:
    clock = Invented(given=weak())
    pruned(clock, 0.7)
    again = Invented(given=clock.given, table=clock.table)
    flow = trace(clock.given, TABLE)
    with SilentProgress().task("", None) as bar:
        learn_times(flow, find_groups(flow), lambda units: clock.given, again, align=1, seed=0, bar=bar)
    assert again.built == 0


def test_what_cannot_be_reached_is_said() -> None:
    clock = Invented(given=weak())
    result = pruned(clock, 0.01)
    (missed,) = [item for item in result.history[-1].skipped if item.what == "pruning"]
    assert "asked for 1% of the time" in missed.why
    assert "is the least that can be reached" in missed.why


def test_a_latency_needs_images_and_a_clock() -> None:
    program, options = weak(), PruneOptions(latency=0.5)
    with pytest.raises(ConfigError, match="latency is measured on the target, and it cannot be timed here"):
        run_passes(program, [Prune(options=options, measures=Measures(batches=images))], CONTEXT)
    with pytest.raises(ConfigError, match="latency is measured on images, and there are none"):
        run_passes(program, [Prune(options=options, measures=Measures(clock=Invented(given=program)))], CONTEXT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either 'keep' or 'latency'"),
        ({"keep": 0.5, "latency": 0.5}, "either 'keep' or 'latency'"),
        ({"latency": 1.2}, "latency: expected a share above 0 and below 1"),
        ({"latency": 0.5, "importance": "magnitude"}, "leave importance and allocation out"),
        ({"keep": 0.5, "remove": "both"}, "chosen by the target's clock"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PruneOptions(**options)  # type: ignore[arg-type]
    assert message in f"{caught.value.message} {caught.value.hint}"


def test_fitted_times_are_those_of_the_clock() -> None:
    generator = np.random.default_rng(0)
    sizes = [LayerSize(macs=float(m), elements=float(e)) for m, e in generator.uniform(1e4, 1e6, (6, 2))]
    samples = [
        Sample(size=size, seconds=_CONSTANT + _PER_MAC * size.macs + _PER_ELEMENT * size.elements) for size in sizes
    ]
    model = TimeModel({"conv": samples})
    other = LayerSize(macs=3e5, elements=7e4)
    assert model.seconds("conv", other) == pytest.approx(_CONSTANT + _PER_MAC * 3e5 + _PER_ELEMENT * 7e4)
    assert model.seconds("never measured", other) == 0


def test_no_fitted_price_is_below_zero() -> None:
    """Noise must not say that a wider layer is faster."""
    samples = [
        Sample(size=LayerSize(macs=1e6, elements=1e4), seconds=10e-6),
        Sample(size=LayerSize(macs=2e6, elements=2e4), seconds=9e-6),
        Sample(size=LayerSize(macs=3e6, elements=3e4), seconds=9.5e-6),
    ]
    model = TimeModel({"conv": samples})
    small, large = LayerSize(macs=1e5, elements=1e3), LayerSize(macs=1e7, elements=1e5)
    assert 0 < model.seconds("conv", small) <= model.seconds("conv", large)


def test_sizes_follow_the_units_that_leave() -> None:
    program = weak()
    flow = trace(program, TABLE)
    group = max(find_groups(flow), key=lambda item: len(item.units))
    roots = [unit.root for unit in group.units[:2]]
    sizes = LayerSizes(flow)
    alive = sizes.everyone_alive()
    before = sum(sizes.size(index, alive).macs for index in range(len(sizes)))
    alive[roots] = False
    after = sum(sizes.size(index, alive).macs for index in range(len(sizes)))
    arithmetic = Arithmetic(flow)
    assert before == arithmetic.total
    assert after == arithmetic.left(roots)
    changed = {index for index in range(len(sizes)) if sizes.size(index, alive) != sizes.size(index, ~(alive ^ alive))}
    assert changed == sizes.touched_by(roots)


def test_the_estimate_is_what_a_small_change_moves() -> None:
    """The weights of one channel are shrunk by a hundredth: the answers move by that share of the estimate's root."""
    program = weak()
    flow = trace(program, TABLE)
    groups = find_groups(flow)
    group = groups[0]
    estimated = [by_answers(flow, [group], images, seed=seed)[group.units[0].root] for seed in range(60)]
    smaller = program.copied()
    parameters = dict(smaller.graph.named_parameters())
    with torch.no_grad():
        for part in group.units[0].parts:
            if part.weight:
                rows = parameters[part.name].index_select(part.dim, torch.from_numpy(part.index))
                parameters[part.name].index_copy_(part.dim, torch.from_numpy(part.index), 0.99 * rows)
    moved = distance_on(program, images)(smaller)
    assert float(np.mean(estimated)) == pytest.approx(moved * 1e4, rel=0.5)


class Steps:
    """A path of a hundred equal steps down to a tenth, as `search` sees one."""

    def upto(self, share: float) -> int:
        return min(100, max(0, int(np.ceil((1 - share) / 0.009))))

    def share(self, count: int) -> float:
        return 1 - 0.009 * count

    def ends(self, count: int) -> bool:
        return count >= 100


@pytest.mark.parametrize("skew", [0.6, 0.9, 1.0, 1.2, 1.8])
def test_the_search_meets_what_was_asked_for(skew: float) -> None:
    """The measured share falls with another power than the predicted one."""
    path, built = Steps(), []

    def measure(count: int) -> float:
        built.append(count)
        return float(path.share(count) ** skew)

    with SilentProgress().task("", None) as bar:
        count, trials = search(path, measure, 0.5, bar=bar)  # type: ignore[arg-type]
    assert abs(trials[-1].measured / 0.5 - 1) <= CLOSE
    assert trials[-1] == Trial(predicted=path.share(count), measured=path.share(count) ** skew)
    assert len(built) == len(set(built)) <= 6


def test_the_search_ends_where_the_path_does() -> None:
    with SilentProgress().task("", None) as bar:
        count, trials = search(Steps(), lambda count: 0.95, 0.5, bar=bar)  # type: ignore[arg-type,return-value]
    assert count in range(1, 101)
    assert trials[-1].measured == 0.95
    assert len(trials) <= 6


def test_steps_leave_in_the_order_of_their_price() -> None:
    program = weak()
    flow = trace(program, TABLE)
    groups = find_groups(flow)
    clock = Invented(given=program)
    with SilentProgress().task("", None) as bar:
        model = learn_times(
            flow, groups, lambda units: without(program, [u.root for u in units], ()), clock, align=1, seed=0, bar=bar
        )
        prices = BlockPrices(program, find_blocks(flow), distance_on(program, images), bar)
        path = Path(flow, groups, by_answers(flow, groups, images, seed=0), prices, model, align=1)
        path.upto(0.5)
    shares = [path.share(count) for count in range(path.upto(0.5) + 1)]
    assert shares == sorted(shares, reverse=True)
    # The blocks that were made weak leave first.
    _, removed = path.gone(path.upto(0.5))
    assert {block.layers[0] for block in removed[:2]} == {"body.blocks.1.one", "body.blocks.2.one"}


def test_the_rest_goes_with_the_elements() -> None:
    model = TimeModel({REST: [Sample(size=LayerSize(macs=0, elements=e), seconds=1e-6 + 1e-9 * e) for e in (1e3, 5e3)]})
    assert model.seconds(REST, LayerSize(macs=0, elements=3e3)) == pytest.approx(4e-6)
