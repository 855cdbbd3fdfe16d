"""Does training the int8 program repair the worst case of the accuracy benchmark?

    python -m benchmarks qat --checkpoint resnet56-4bfd9763.th --data train --test test --work DIR [--record]

The case is read from ``results/accuracy.json``: of edgekit's recipes and the trained networks the pair whose engine is
farthest from the float network, by the Kullback-Leibler divergence of the class probabilities, mean over images and
seeds. Top-1 cannot choose: no drop there is beyond its own interval, and many are negative. How often the class is the
float network's is told beside it.

For each seed the network is compiled twice by ``edgekit.compile``, with the same recipe and calibration images: as it
is, and with a ``qat`` stage. The seed chooses the calibration images, and of the training images those that the epochs
are compared on; the order and the augmentation are drawn from it. Training learns from the float network's answers and
sees no label. The share that is recovered is what training takes off the divergence, of all that there was.

Options of the training were chosen by short trials on a part of the training images, judged on 3,000 others of them;
the network itself had seen these. ``--validation`` evaluates on the 1,000 that are held back (``splits.py``), which
neither the network's training, nor calibration, nor this training sees. Test images are looked at once, at the end.

Bounds: at least half of the divergence is recovered, in the mean over the seeds, and top-1 is not below that before
the training beyond the paired interval. Finished parts are kept in ``--work``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import prepare
from benchmarks.accuracy_worker import FLOAT, OURS
from benchmarks.cifar import CALIBRATION_IMAGES, describe_images
from benchmarks.exact import require_exact_products
from benchmarks.fresh import run_fresh
from benchmarks.intervals import mean_drop_interval, recovered_interval
from benchmarks.keeping import digest, kept
from benchmarks.qat_worker import PTQ, QAT
from benchmarks.record import RESULTS, add_output, cell, document, markdown_table, publish
from benchmarks.trained import NETWORKS, sha256
from benchmarks.verdicts import in_points
from edgekit.config import to_dict

NAME = "qat"
SEEDS = (0, 1, 2)
TRAINING: Mapping[str, Any] = {"epochs": 4, "step_rate": 100.0, "temperature": 4.0, "augmentation": "light"}
_LEAST_RECOVERED = 0.5


def worst_case(accuracy: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the network and recipe whose engine is farthest from float, by divergence, mean over the seeds.

    Args:
        accuracy: A result of the accuracy benchmark.
    """
    cases = [
        {
            "network": network,
            "recipe": tool.removeprefix(OURS),
            "kl": float(np.mean([item["kl"] for item in found["fidelity"]])),
            "agreement": float(np.mean([item["agreement"] for item in found["fidelity"]])),
            "drop": found["drop"],
        }
        for network, item in accuracy["results"]["networks"].items()
        for tool, found in item["tools"].items()
        if tool.startswith(OURS)
    ]
    return max(cases, key=lambda case: case["kl"])


def summarize(reference: str, seeds: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Puts the seeds together.

    Args:
        reference: The float network's outcomes, a character an image.
        seeds: What the worker answered, one for each seed.

    Returns:
        Means over the seeds; drops and gains in points with intervals over images and seeds.
    """
    right = _numbers(reference)
    sides: dict[str, Any] = {}
    for side in (PTQ, QAT):
        outcomes = np.stack([_numbers(seed[side]["outcomes"]) for seed in seeds])
        sides[side] = {
            "top1": float(outcomes.mean()),
            "drop": in_points(mean_drop_interval(right, outcomes, seed=0)),
            "agreement": float(np.mean([_numbers(seed[side]["same"]).mean() for seed in seeds])),
            "kl": float(np.mean([np.mean(seed[side]["kl"]) for seed in seeds])),
            "layers": seeds[0][side]["layers"],
        }
    before, after = (np.array([seed[side]["kl"] for seed in seeds]) for side in (PTQ, QAT))
    first, second = (np.stack([_numbers(seed[side]["outcomes"]) for seed in seeds]) for side in (PTQ, QAT))
    return {
        "images": int(right.size),
        "float": {"top1": float(right.mean())},
        "sides": sides,
        "seeds": [_seed(seed) for seed in seeds],
        "recovered": to_dict(recovered_interval(before, after, seed=0)),
        "ptq_minus_qat": in_points(mean_drop_interval(first, second, seed=0)),
    }


def _seed(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One seed's numbers, without those of single images."""
    facts: dict[str, Any] = {
        side: {
            "top1": float(_numbers(found[side]["outcomes"]).mean()),
            "agreement": float(_numbers(found[side]["same"]).mean()),
            "kl": float(np.mean(found[side]["kl"])),
        }
        for side in (PTQ, QAT)
    }
    return {
        **facts,
        "recovered": 1 - facts[QAT]["kl"] / facts[PTQ]["kl"],
        "training": found[QAT]["training"],
    }


def _numbers(text: str) -> npt.NDArray[np.int8]:
    return np.array([int(character) for character in text], dtype=np.int8)


def findings(results: Mapping[str, Any]) -> list[str]:
    """Returns the bounds that are missed, each as a sentence."""
    missed = []
    share, lost = results["recovered"]["estimate"], results["ptq_minus_qat"]
    if not share >= _LEAST_RECOVERED:
        missed.append(f"{100 * share:.1f} % of the divergence is recovered, less than {_LEAST_RECOVERED:.0%}")
    if lost["low"] > 0:
        missed.append(f"top-1 falls by {cell(lost, '.2f')} points in the training")
    return missed


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results, settings = result["results"], result["settings"]
    case, sides, seeds = results["case"], results["sides"], results["seeds"]
    heads = (
        f"{NETWORKS[case['network']].title}, {results['images']} images",
        "top-1",
        "drop in points [95 %]",
        "same class as float",
        "KL from float, 1e-3 nats",
        "divergence recovered [95 %]",
    )
    rows = [("torch, float32", f"{100 * results['float']['top1']:.2f} %", "", "", "", "")]
    for side, title in ((PTQ, f"int8, recipe {case['recipe']}"), (QAT, "the same, trained")):
        item = sides[side]
        share = {name: 100 * value for name, value in results["recovered"].items()}
        rows.append(
            (
                title,
                f"{100 * item['top1']:.2f} %",
                cell(item["drop"], ".2f"),
                f"{100 * item['agreement']:.2f} %",
                f"{1000 * item['kl']:.2f}",
                "" if side == PTQ else f"{cell(share, '.1f')} %",
            )
        )
    for seed, item in zip(settings["seeds"], seeds, strict=True):
        rows.append(
            (
                f"seed {seed}: before, after",
                f"{100 * item[PTQ]['top1']:.2f} %, {100 * item[QAT]['top1']:.2f} %",
                "",
                f"{100 * item[PTQ]['agreement']:.2f} %, {100 * item[QAT]['agreement']:.2f} %",
                f"{1000 * item[PTQ]['kl']:.2f}, {1000 * item[QAT]['kl']:.2f}",
                f"{100 * item['recovered']:.1f} %",
            )
        )
    shares = [100 * item["recovered"] for item in seeds]
    where = "images held back from training" if settings["validation"] else "test images"
    found = results["findings"]
    return (
        f"{markdown_table(heads, rows)}\n\nMeans over {len(seeds)} seeds; recovered {min(shares):.1f} to "
        f"{max(shares):.1f} %, standard deviation {np.std(shares, ddof=1):.1f}. Top-1 before the training less that "
        f"after it: {cell(results['ptq_minus_qat'], '.2f')} points. Evaluated on {where}; trained for "
        f"{settings['training']['epochs']} epochs. In the record of the accuracy benchmark this case has "
        f"{1000 * case['kl']:.2f}e-3 nats, a drop of {cell(case['drop'], '.2f')} points and the float network's class "
        f"on {100 * case['agreement']:.2f} %. Bounds: " + ("kept." if not found else f"MISSED: {'; '.join(found)}.")
    )


def measured(options: argparse.Namespace, case: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Runs the float network once and the pair of compilations for each seed."""
    network = case["network"]
    options.networks = [network]
    told = prepare(options, work)[network]
    floating = run_fresh("accuracy_worker", {"network": network, "seed": None, "tools": [FLOAT], **told})
    seeds = []
    for seed in options.seeds:
        task = {
            "network": network,
            "recipe": case["recipe"],
            "seed": seed,
            "samples": CALIBRATION_IMAGES,
            "training": dict(TRAINING),
            "threads": options.threads,
            "validation": options.validation,
        }
        file, stamp = options.work / f"seed {seed}.json", digest(task, describe(options, case))
        seeds.append(kept(file, stamp, partial(run_fresh, "qat_worker", {**task, **told})))
        found = _seed(seeds[-1])
        print(f"seed {seed}: {found[PTQ]['kl']:.6f} -> {found[QAT]['kl']:.6f} nats", flush=True)
    return summarize(floating[FLOAT]["outcomes"], seeds)


def describe(options: argparse.Namespace, case: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the result depends on, without a path of this machine."""
    network = NETWORKS[case["network"]]
    facts: dict[str, Any] = {
        "validation": options.validation,
        "seeds": list(options.seeds),
        "threads": options.threads,
        "training": dict(TRAINING),
        "calibration_images": CALIBRATION_IMAGES,
        "checkpoint_sha256": sha256(options.checkpoint if network.checkpoint is None else network.checkpoint),
    }
    for name in ("data", "test"):
        facts |= describe_images(name, getattr(options, name))
    return facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="resnet56-4bfd9763.th, where that is the worst case")
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 training images: one folder per class")
    parser.add_argument("--test", type=Path, required=True, help="CIFAR-10 test images: one folder per class")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is finished")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="of calibration and training")
    parser.add_argument("--validation", action="store_true", help="evaluate on the images held back, not on the test")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    add_output(parser, NAME)
    options = parser.parse_args()
    if options.output == RESULTS / f"{NAME}.json" and (options.validation or tuple(options.seeds) != SEEDS):
        parser.error("--record is for all seeds and the test images; use --output FILE for a part of it")
    case = worst_case(json.loads((RESULTS / "accuracy.json").read_text(encoding="utf-8")))
    if NETWORKS[case["network"]].checkpoint is None and options.checkpoint is None:
        parser.error(f"the worst case is {case['network']}: --checkpoint is needed")
    require_exact_products()
    options.work.mkdir(parents=True, exist_ok=True)
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as work:
        results = {"case": case, **measured(options, case, Path(work))}
    results["findings"] = findings(results)
    result = document(NAME, settings=describe(options, case), load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 1 if results["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
