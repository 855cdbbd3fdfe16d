"""A small student of ResNet-56: taught by its answers and the labels, and the same one trained on labels alone.

    python -m benchmarks student --checkpoint resnet56-4bfd9763.th --data train --test test --work DIR [--record]

The student is a ResNet-14, a fifth of the teacher's arithmetic, with random weights. Both sides run through
``edgekit.compile --student`` with the same epochs, rate, batches, augmentation and images; ``alpha``, the share of the
teacher's answers in the loss, is all that differs. A seed draws the weights, the order and the augmentation of both.
The best epoch is chosen on training images that are held back; test images are looked at once, at the end.

Bound: the distilled student is better with every seed. Finished parts are kept in ``--work``.
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

from benchmarks.cifar import add_inputs, describe_inputs, float_module, read_images, read_spec
from benchmarks.exact import require_exact_products
from benchmarks.fresh import run_fresh
from benchmarks.keeping import digest, kept
from benchmarks.record import add_output, document, markdown_table, publish
from edgekit.frontend import load_program
from edgekit.passes.prune import multiply_accumulates

NAME = "student"
SEEDS = (0, 1, 2)
SIDES: Mapping[str, Mapping[str, Any]] = {"distilled": {"alpha": 0.9, "temperature": 4.0}, "labels": {"alpha": 0.0}}
TRAINING: Mapping[str, Any] = {
    "do": "distill",
    "batch_size": 128,
    "learning_rate": 0.1,
    "augmentation": "cifar",
}


def gains(sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[float]:
    """Returns for each seed what the distilled student is above the other one, in points."""
    pairs = zip(sides["distilled"], sides["labels"], strict=True)
    return [100 * (mine["float"]["value"] - its["float"]["value"]) for mine, its in pairs]


def findings(sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Returns the bounds that are missed, each as a sentence."""
    return [
        f"with seed {seed} the distilled student is {-gain:.2f} points below the other one"
        for seed, gain in enumerate(gains(sides))
        if gain <= 0
    ]


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results, settings = result["results"], result["settings"]
    sides, difference = results["sides"], gains(results["sides"])
    rows = [
        (
            f"seed {seed}",
            *(f"{100 * sides[name][seed]['float']['value']:.2f} %" for name in SIDES),
            f"{difference[seed]:+.2f}",
            *(f"{100 * sides[name][seed]['int8']['value']:.2f} %" for name in SIDES),
        )
        for seed in range(len(difference))
    ]
    spread = {name: [100 * item["float"]["value"] for item in sides[name]] for name in SIDES}
    rows.append(
        (
            "mean, standard deviation",
            *(f"{np.mean(values):.2f} %, {np.std(values, ddof=1):.2f}" for values in spread.values()),
            f"{np.mean(difference):+.2f}, {np.std(difference, ddof=1):.2f}",
            "",
            "",
        )
    )
    heads = ("", "distilled", "labels alone", "difference, points", "distilled, int8", "labels alone, int8")
    first, found = sides["distilled"][0], results["findings"]
    return (
        f"{markdown_table(heads, rows)}\n\nThe student has {first['macs'] / 1e6:.1f} million MACs, its "
        f"teacher {results['teacher_macs'] / 1e6:.1f} million and {100 * first['checkpoint']:.2f} % top-1; "
        f"{settings['epochs']} epochs on {settings['data_images']} images, top-1 on {settings['test_images']} test "
        "images. Bound: " + ("kept." if not found else f"MISSED: {'; '.join(found)}.")
    )


def taught(options: argparse.Namespace, side: str, seed: int) -> dict[str, Any]:
    """Trains one student, or takes it from an earlier run."""
    task = {
        "student": "resnet_cifar:resnet14",
        "stages": [{**TRAINING, **SIDES[side], "epochs": options.epochs}],
        "seed": seed,
        "threads": options.threads,
        "test_images": len(read_images(options.test).samples),
    }
    paths = {
        "checkpoint": str(options.checkpoint.absolute()),
        "data": str(options.data.absolute()),
        "test": str(options.test.absolute()),
        "output": str((options.work / f"student {side} {seed}.edge").absolute()),
    }
    file = options.work / f"student {side} {seed}.json"
    facts = kept(file, digest(task, describe_inputs(options)), lambda: run_fresh("shaping_worker", {**task, **paths}))
    print(f"{side}, seed {seed}: float {facts['float']['value']:.4f} in {facts['seconds'] / 60:.1f} min", flush=True)
    return facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser, test=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is finished")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2, help="of the trainings")
    add_output(parser, NAME)
    options = parser.parse_args()
    require_exact_products()
    options.work.mkdir(parents=True, exist_ok=True)
    load_average = os.getloadavg()[0]
    settings = {"epochs": options.epochs, "threads": options.threads, "training": dict(TRAINING), "sides": dict(SIDES)}
    settings |= describe_inputs(options)
    sides = {name: [taught(options, name, seed) for seed in SEEDS] for name in SIDES}
    teacher = load_program(float_module(options.checkpoint), task=read_spec())
    results = {"sides": sides, "teacher_macs": multiply_accumulates(teacher), "findings": findings(sides)}
    result = document(NAME, settings=json.loads(json.dumps(settings)), load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 1 if results["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
