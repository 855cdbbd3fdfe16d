"""ResNet-56 pruned and trained again: what is left of its accuracy, and how much faster it is than NNCF's int8.

    python -m benchmarks recovery --checkpoint resnet56-4bfd9763.th --data train --test test --work DIR [--record]

Every network is made by ``edgekit.compile`` in a process of its own, from the public checkpoint, with the stages below,
and ends as an int8 engine. All are trained in the same way: distillation from the checkpoint mixed with the labels, the
same epochs, rate and augmentation; rate, ranking and batch were chosen on training images that are held back. The
checkpoint was trained on the original images and these are JPEG copies, so training alone gains points: the unpruned
network, trained like the others, is the baseline beside the checkpoint as it is. The best epoch is chosen on training
images that are held back; test images are looked at once, at the end.

Widths at equal time: for each seed a network is pruned uniformly, by magnitude, to half of the arithmetic, and another
one by the target's clock to the time that the first was measured to take.

Then all engines and NNCF's int8 of the unpruned network (the faster of its two presets in each process), which take
the same raw images, are timed in the way of ``nncf_latency``, with static batches of 1 and 16.

Finished parts are kept in ``--work``: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from benchmarks.cifar import CALIBRATION_IMAGES, add_inputs, describe_inputs, read_images, read_spec
from benchmarks.engine_worker import PROPERTIES
from benchmarks.exact import require_exact_products
from benchmarks.fresh import run_fresh
from benchmarks.intervals import process_ratio_interval
from benchmarks.keeping import digest, kept
from benchmarks.record import add_output, cell, document, markdown_table, publish
from benchmarks.sides import opening_order, process_ratios
from edgekit.bundle import read_bundle
from edgekit.config import to_dict
from edgekit.data import read_frame

NAME = "recovery"
BATCHES = (1, 16)
SEEDS = (0, 1, 2)
TRAINING: Mapping[str, Any] = {
    "do": "distill",
    "batch_size": 128,
    "learning_rate": 0.02,
    "temperature": 4.0,
    "alpha": 0.5,
    "augmentation": "cifar",
}
_BY_ANSWERS: Mapping[str, Any] = {"do": "prune", "importance": "taylor", "allocation": "global", "align": 8}
UNPRUNED, HALF, THIRD, BLOCKS = "unpruned", "half", "third", "blocks"
PRUNINGS: Mapping[str, Mapping[str, Any] | None] = {
    UNPRUNED: None,
    HALF: {**_BY_ANSWERS, "keep": 0.5},
    THIRD: {**_BY_ANSWERS, "keep": 0.333},
    BLOCKS: {"do": "prune", "keep": 0.55, "remove": "blocks"},
}
UNIFORM: Mapping[str, Any] = {"do": "prune", "keep": 0.5, "importance": "magnitude", "align": 8}
_RIVALS = ("nncf-performance-uint8", "nncf-mixed-uint8")
_MOST_BELOW, _MOST_FOR_INT8 = 0.5, 0.3
_RATIOS = ((HALF, 1, 0.90), (HALF, 16, 0.75), (BLOCKS, 1, 0.65))
_LONGEST_S = 1800.0


def findings(networks: Mapping[str, Any], seeds: Mapping[str, Any], ratios: Mapping[str, Any]) -> list[str]:
    """Returns the bounds that are missed, each as a sentence.

    Args:
        networks: What the worker answered, by name.
        seeds: The same for the seeds: ``uniform`` and ``latency``, lists of equal length.
        ratios: By batch and name: the interval of a network's time over NNCF's.
    """
    value = {name: 100 * item["float"]["value"] for name, item in networks.items()}
    missed = []
    for name in (HALF, BLOCKS):
        if value[name] < value[UNPRUNED] - _MOST_BELOW:
            missed.append(f"{name}: {value[name]:.2f} %, more than {_MOST_BELOW} below {value[UNPRUNED]:.2f} %")
    given = 100 * networks[THIRD]["checkpoint"]
    if value[THIRD] < given:
        missed.append(f"{THIRD}: {value[THIRD]:.2f} %, below the checkpoint's {given:.2f} %")
    for name, item in networks.items():
        lost = value[name] - 100 * item["int8"]["value"]
        if lost > _MOST_FOR_INT8:
            missed.append(f"{name}: int8 loses {lost:.2f} points, more than {_MOST_FOR_INT8}")
        if item["seconds"] > _LONGEST_S:
            missed.append(f"{name}: {item['seconds'] / 60:.0f} minutes")
    for name, batch, bound in _RATIOS:
        ratio = ratios[str(batch)][name]["estimate"]
        if ratio > bound:
            missed.append(f"{name}, batch {batch}: {ratio:.3f} of NNCF's time, more than {bound:.2f}")
    worse = [number for number, gain in enumerate(gains(seeds)) if gain <= 0]
    if worse:
        missed.append(f"chosen by the clock is not better with seed {', '.join(map(str, worse))}")
    return missed


def gains(seeds: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[float]:
    """Returns for each seed what the choice by the clock is above the uniform one, in points."""
    pairs = zip(seeds["latency"], seeds["uniform"], strict=True)
    return [100 * (mine["float"]["value"] - its["float"]["value"]) for mine, its in pairs]


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results = result["results"]
    networks, seeds, ratios = results["networks"], results["seeds"], results["ratios"]
    whole = networks[UNPRUNED]["macs"]
    rows = [("the checkpoint as it is", "1.000", f"{100 * networks[UNPRUNED]['checkpoint']:.2f} %", "", "", "", "")]
    for name, item in networks.items():
        drop = item["float"]["drop"]
        rows.append(
            (
                name,
                f"{item['macs'] / whole:.3f}",
                f"{100 * item['float']['value']:.2f} %",
                f"{-drop['estimate']:+.2f} [{-drop['high']:+.2f}, {-drop['low']:+.2f}]",
                f"{100 * item['int8']['value']:.2f} %",
                *(cell(ratios[str(batch)][name], ".3f") for batch in BATCHES),
            )
        )
    heads = ("network", "MACs", "float", "against the checkpoint", "int8", "time / NNCF, batch 1", "batch 16")
    seeded = [
        (
            f"seed {number}",
            f"{100 * its['float']['value']:.2f} %",
            f"{100 * mine['float']['value']:.2f} %",
            f"{its['latency']['ratio']['estimate']:.3f}",
            f"{mine['latency']['ratio']['estimate']:.3f}",
            f"{ratios['1'][f'latency {number}']['estimate'] / ratios['1'][f'uniform {number}']['estimate']:.3f}",
        )
        for number, (its, mine) in enumerate(zip(seeds["uniform"], seeds["latency"], strict=True))
    ]
    seeded_heads = ("", "uniform", "by the clock", "time, uniform", "time, by the clock", "clock / uniform, again")
    difference = gains(seeds)
    settings, found = result["settings"], results["findings"]
    return (
        f"{markdown_table(heads, rows)}\n\n"
        f"Trained for {settings['epochs']} epochs on {settings['data_images']} images; top-1 "
        f"on {settings['test_images']} test images, one seed, the difference with its paired 95 % interval; "
        f"training and compiling took {_minutes(networks.values())} a network on {settings['threads']} threads.\n\n"
        f"{markdown_table(seeded_heads, seeded)}\n\nTrained for {settings['seed_epochs']} epochs. By the clock against "
        f"uniform: {np.mean(difference):+.2f} points in the mean over the seeds, standard deviation "
        f"{np.std(difference, ddof=1):.2f}. Times here are shares of the unpruned engine's, each measured in its own "
        "compilation; the last column compares the finished engines side by side. Bounds: "
        + ("kept." if not found else f"MISSED: {'; '.join(found)}.")
    )


def _minutes(items: Sequence[Mapping[str, Any]] | Any) -> str:
    minutes = [item["seconds"] / 60 for item in items]
    return f"{min(minutes):.0f} to {max(minutes):.0f} minutes"


def shape(
    options: argparse.Namespace, name: str, pruning: Mapping[str, Any] | None, *, epochs: int, seed: int
) -> dict[str, Any]:
    """Makes one network, or takes it from an earlier run."""
    training = {**TRAINING, "epochs": epochs}
    task = {
        "stages": [training] if pruning is None else [dict(pruning), training],
        "seed": seed,
        "threads": options.threads,
        "test_images": len(read_images(options.test).samples),
    }
    paths = {
        "checkpoint": str(options.checkpoint.absolute()),
        "data": str(options.data.absolute()),
        "test": str(options.test.absolute()),
        "output": str((options.work / f"{name}.edge").absolute()),
    }

    def make() -> dict[str, Any]:
        print(f"{name}: {task['stages']}", flush=True)
        return run_fresh("shaping_worker", {**task, **paths})

    facts = kept(options.work / f"{name}.json", digest(task, describe_inputs(options)), make)
    print(f"{name}: float {facts['float']['value']:.4f}, int8 {facts['int8']['value']:.4f}", flush=True)
    return facts


def shaped(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Makes all networks, one after the other: each has the machine for itself, since some of them measure it."""
    networks = {
        name: shape(options, name, pruning, epochs=options.epochs, seed=0) for name, pruning in PRUNINGS.items()
    }
    seeds: dict[str, list[dict[str, Any]]] = {"uniform": [], "latency": []}
    for seed in SEEDS:
        uniform = shape(options, f"uniform {seed}", UNIFORM, epochs=options.seed_epochs, seed=seed)
        share = round(uniform["latency"]["ratio"]["estimate"], 3)
        by_clock = {"do": "prune", "latency": share}
        seeds["uniform"].append(uniform)
        seeds["latency"].append(shape(options, f"latency {seed}", by_clock, epochs=options.seed_epochs, seed=seed))
    return networks, seeds


def engines(options: argparse.Namespace, names: Sequence[str]) -> dict[int, dict[str, Path]]:
    """Writes every engine for each batch; returns batch to name to IR."""
    sources = {}
    for name in names:
        bundle = read_bundle(options.work / f"{name}.edge")
        (entry,) = bundle.manifest.entries
        if entry.engine is None or {key: entry.options["properties"].get(key) for key in PROPERTIES} != PROPERTIES:
            raise RuntimeError(f"{name}: the engine is not meant for the properties of this benchmark: {entry.options}")
        for role, content in bundle.engine_files(entry.engine).items():
            (options.work / f"{name}.{role}").write_bytes(content)
        sources[name] = options.work / f"{name}.xml"
    task = {
        "checkpoint": str(options.checkpoint.absolute()),
        "data": str(options.data.absolute()),
        "work": str(options.work.absolute()),
        "samples": CALIBRATION_IMAGES,
        "seed": 0,
    }
    run_fresh("nncf_build", task)
    sources |= {name: options.work / f"{name}.xml" for name in _RIVALS}
    made: dict[int, dict[str, Path]] = {}
    for batch in BATCHES:
        made[batch] = {}
        for name, source in sources.items():
            model = ov.Core().read_model(source)
            model.reshape([batch, *(size.get_length() for size in list(model.input(0).get_partial_shape())[1:])])
            made[batch][name] = options.work / f"{name}-{batch}.xml"
            ov.save_model(model, made[batch][name], compress_to_fp16=False)
    return made


def timed(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Times all engines in several fresh processes; returns batch to name to the interval of its time over NNCF's."""
    sides = engines(options, names)
    image = read_frame(read_images(options.test).samples[0].path, read_spec().input)
    ratios: dict[str, Any] = {}
    for batch in BATCHES:
        inputs = options.work / f"inputs-{batch}.npz"
        np.savez(inputs, image=np.repeat(image[np.newaxis], batch, axis=0), pixels=np.zeros(1, np.float32))
        runs = [
            run_fresh(
                "engine_worker",
                {
                    "sides": [(name, str(sides[batch][name])) for name in opening_order(list(sides[batch]), process)],
                    "inputs": str(inputs),
                    "threads": options.threads,
                    "blocks": options.blocks,
                    "seconds": options.seconds,
                    "settle": 3,
                    "warm_up_s": 0.3,
                    "seed": process,
                },
            )
            for process in range(options.processes)
        ]
        ratios[str(batch)] = {
            name: to_dict(process_ratio_interval(process_ratios(runs, name, _RIVALS))) for name in names
        }
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser, test=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is finished")
    parser.add_argument("--epochs", type=int, default=8, help="of the four networks")
    parser.add_argument("--seed-epochs", type=int, default=3, help="of the networks at equal time")
    parser.add_argument("--threads", type=int, default=2, help="of trainings and engines")
    parser.add_argument("--processes", type=int, default=6, help="fresh processes for each batch; even")
    parser.add_argument("--blocks", type=int, default=20, help="blocks in each process")
    parser.add_argument("--seconds", type=float, default=1.5, help="of timed calls for each engine in each process")
    add_output(parser, NAME)
    options = parser.parse_args()
    require_exact_products()
    if options.processes < 2 or options.processes % 2:
        parser.error(f"--processes: expected an even number, got {options.processes}: orders of opening come in pairs")
    options.work.mkdir(parents=True, exist_ok=True)
    load_average = os.getloadavg()[0]
    names = ("epochs", "seed_epochs", "threads", "processes", "blocks", "seconds")
    settings = {name: getattr(options, name) for name in names} | {"training": dict(TRAINING), "properties": PROPERTIES}
    settings |= {"calibration_images": CALIBRATION_IMAGES, **describe_inputs(options)}
    networks, seeds = shaped(options)
    sides = [*networks, *(f"{kind} {seed}" for seed in SEEDS for kind in seeds)]
    ratios = timed(options, sides)
    results = {
        "networks": networks,
        "seeds": seeds,
        "ratios": ratios,
        "findings": findings(networks, seeds, ratios),
    }
    result = document(NAME, settings=json.loads(json.dumps(settings)), load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 1 if results["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
