"""What int8 costs in accuracy on trained networks, over calibration seeds, against NNCF and ONNX Runtime.

    python -m benchmarks accuracy --checkpoint resnet56-4bfd9763.th --data train --test test [--record]
    python -m benchmarks accuracy ... --validation --networks vit_small --tools edgekit-default nncf --seeds 0 1

Each network is compiled for x86-cpu as a user does it (``edgekit.compile``, precision int8) with each recipe, and
quantized with the other tools, on the same 300 training images that the seed chooses. The engine that the bundle ships
and the other tools' models then see every test image. The reference is the float network in torch, with preprocessing
written out in these files.

A drop is paired image by image: for one seed with the interval of Agresti and Min; for the mean over the seeds with a
bootstrap that draws both anew, images and seeds (Owen's pigeonhole bootstrap). So is the difference between the best
peer on a network (by its mean on these very images, which favours it) and a recipe, seed by seed; beside it stands the
interval that draws images alone, which speaks of these five sets of calibration images and no others.

Rounding mends answers as well as it spoils them, so a top-1 may be as good as another by chance. Two measures of
fidelity stand beside it, for which the labels do not matter: how often the class is the float network's, and how far
the class probabilities are from it.

1,000 of the CIFAR-10 training images are held back (``splits.py``): no calibration sees them, and the small networks
were not trained on them. Recipes and options are chosen on them alone: ``--validation`` evaluates there, not on the
test images. (The public ResNet-56 was trained on them.)

Bounds: a mean drop, averaged over the networks, of at most 0.3 points with ``default`` and 0.2 with ``accurate``; and
on no network is ``default`` worse than the best peer beyond the paired interval over images and seeds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy_worker import FLOAT, OURS
from benchmarks.cifar import CALIBRATION_IMAGES, describe_images, read_images
from benchmarks.exact import require_exact_products
from benchmarks.fresh import run_fresh
from benchmarks.record import RESULTS, add_output, cell, document, markdown_table, publish
from benchmarks.splits import link_images, split_images
from benchmarks.trained import NETWORKS, sha256
from benchmarks.verdicts import PEERS, conditions, kept, summarize_network
from examples.digits.prepare import write_images

NAME = "accuracy"
RECIPES = tuple(f"{OURS}{recipe}" for recipe in ("fast", "default", "accurate"))
SEEDS = (0, 1, 2, 3, 4)
_TITLES = {"nncf": "NNCF", "nncf-full": "NNCF, full bias correction", "onnxruntime": "ONNX Runtime"}


def jobs(networks: Sequence[str], tools: Sequence[str], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Lists what fresh processes do: the float network once, then all tools for each seed."""
    floats = [{"network": name, "seed": None, "tools": [FLOAT]} for name in networks]
    return floats + [{"network": name, "seed": seed, "tools": list(tools)} for name in networks for seed in seeds]


def prepare(options: argparse.Namespace, work: Path) -> dict[str, dict[str, str]]:
    """Lays out the images and returns, for each network, what its processes are told."""
    told: dict[str, dict[str, str]] = {}
    networks = {name: NETWORKS[name] for name in options.networks}
    if any(network.cifar for network in networks.values()):
        for folder, part in zip(("kept", "held"), split_images(read_images(options.data)), strict=True):
            link_images(part, work / folder)
    if not all(network.cifar for network in networks.values()):
        write_images(work / "digits")
    for name, network in networks.items():
        if network.cifar:
            data, held, test = work / "kept", work / "held", options.test
        else:
            data, held, test = (work / "digits" / folder for folder in ("train", "val", "test"))
        told[name] = {
            "checkpoint": str(options.checkpoint if network.checkpoint is None else network.checkpoint),
            "data": str(data),
            "held": str(held),
            "images": str(held if options.validation else test),
            "float": str(work / f"{name}-float.npy"),
        }
    return told


def collect(options: argparse.Namespace, work: Path) -> dict[str, dict[str, Any]]:
    """Runs every process and puts what they answered together, network by network."""
    told = prepare(options, work)
    planned = jobs(options.networks, options.tools, options.seeds)

    def run(job: dict[str, Any]) -> dict[str, Any]:
        answered = run_fresh("accuracy_worker", {**job, **told[job["network"]], "samples": CALIBRATION_IMAGES})
        shown = [
            f"{tool} {100 * np.mean([int(right) for right in facts['outcomes']]):.2f} %"
            + (f" ({facts['seconds']:.0f} s)" if "seconds" in facts else "")
            for tool, facts in answered.items()
        ]
        print(f"{job['network']}, seed {job['seed']}: {', '.join(shown)}", flush=True)
        return answered

    # The float networks first: the others are compared with their answers.
    floats = len(options.networks)
    with ThreadPoolExecutor(options.jobs) as pool:
        answers = [*pool.map(run, planned[:floats]), *pool.map(run, planned[floats:])]
    return {name: gather(name, planned, answers) for name in options.networks}


def gather(network: str, planned: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sorts the answers for one network by tool and seed, and summarizes them."""
    reference: np.ndarray | None = None
    tools: dict[str, dict[int, np.ndarray]] = {}
    facts: dict[str, dict[str, Any]] = {}
    near: dict[str, list[dict[str, float]]] = {}
    for job, answered in zip(planned, answers, strict=True):
        if job["network"] != network:
            continue
        for tool, found in answered.items():
            outcomes = np.array([int(right) for right in found["outcomes"]], dtype=np.int8)
            if tool == FLOAT:
                reference = outcomes
            else:
                tools.setdefault(tool, {})[job["seed"]] = outcomes
                near.setdefault(tool, []).append({key: found[key] for key in ("agreement", "kl")})
                facts[tool] = {"layers": found["layers"], "fidelity": near[tool]}
    assert reference is not None
    return summarize_network(reference, tools, facts=facts)


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    results, settings = result["results"], result["settings"]
    parts = []
    for name, item in results["networks"].items():
        rows = [("torch, float32", f"{100 * item['float']['top1']:.2f} %", *[""] * 6)]
        for tool, found in item["tools"].items():
            gaps = [
                item.get(name, {}).get(tool) for name in ("peer_minus_edgekit", "peer_minus_edgekit_of_these_seeds")
            ]
            count = sum(found["layers"].values())
            rows.append(
                (
                    _TITLES.get(tool, f"edgekit, {tool.removeprefix(OURS)}") + _best(tool, item),
                    f"{100 * found['top1']:.2f} %",
                    cell(found["drop"], ".2f"),
                    *("" if gap is None else cell(gap, "+.2f") for gap in gaps),
                    *_fidelity(found),
                    f"{found['layers'].get('int8', 0)} of {count}",
                )
            )
        title = f"{NETWORKS[name].title}, {item['images']} images"
        headers = (
            title,
            "mean top-1",
            "mean drop in points [95 %]",
            "best peer minus it [95 %]",
            "the same, of these seeds",
            "same class as float",
            "KL from float, 1e-3 nats",
            "int8 layers",
        )
        parts.append(markdown_table(headers, rows))
    verdicts = "\n".join(f"- {item['what']}: {_verdict(item)}" for item in results["conditions"])
    where = "images held back from training" if settings["validation"] else "test images"
    parts.append(
        f"Means over {len(settings['seeds'])} seeds, each with {settings['calibration_images']} calibration images; "
        f"evaluated on {where}.\n\n{verdicts}"
    )
    return "\n\n".join(parts)


def _best(tool: str, item: Mapping[str, Any]) -> str:
    return " (best peer)" if tool == item.get("best_peer") else ""


def _fidelity(found: Mapping[str, Any]) -> tuple[str, str]:
    """The means over the seeds; records of before fidelity was measured have none."""
    if "fidelity" not in found:
        return "", ""
    agreement, kl = (float(np.mean([item[name] for item in found["fidelity"]])) for name in ("agreement", "kl"))
    return f"{100 * agreement:.2f} %", f"{1000 * kl:.2f}"


def _verdict(item: Mapping[str, Any]) -> str:
    if item["kept"] is None:
        return "not measured"
    value = item["value"]
    text = cell(value, "+.2f") if isinstance(value, dict) else f"{value:.2f}"
    return f"{text}, {'kept' if item['kept'] else 'MISSED'}"


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="resnet56-4bfd9763.th")
    parser.add_argument("--data", type=Path, help="CIFAR-10 training images: one folder per class")
    parser.add_argument("--test", type=Path, help="CIFAR-10 test images: one folder per class")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument(
        "--tools",
        nargs="+",
        default=[*RECIPES, *PEERS],
        help=f"edgekit-RECIPE, {', '.join(PEERS)} (default: all, with the recipes fast, default and accurate)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="calibration seeds")
    parser.add_argument("--validation", action="store_true", help="evaluate on the images held back, not on the test")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    add_output(parser, NAME)
    options = parser.parse_args()
    wrong = [tool for tool in options.tools if tool not in PEERS and not tool.startswith(OURS)]
    if wrong:
        parser.error(f"unknown tools {', '.join(wrong)}; there are edgekit-RECIPE, {', '.join(PEERS)}")
    whole = (options.networks, options.tools, options.seeds) == (list(NETWORKS), [*RECIPES, *PEERS], list(SEEDS))
    if options.output == RESULTS / f"{NAME}.json" and (options.validation or not whole):
        parser.error("--record is for the whole benchmark on the test images; use --output FILE for a part of it")
    needed = ["data"] if any(NETWORKS[name].cifar for name in options.networks) else []
    needed += ["test"] if needed and not options.validation else []
    needed += ["checkpoint"] if any(NETWORKS[name].checkpoint is None for name in options.networks) else []
    missing = [f"--{name}" for name in needed if getattr(options, name) is None]
    if missing:
        parser.error(f"these networks need {', '.join(missing)}")
    return options


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what the result depends on, without a path of this machine."""
    paths = {
        name: options.checkpoint if NETWORKS[name].checkpoint is None else NETWORKS[name].checkpoint
        for name in options.networks
    }
    facts: dict[str, Any] = {
        "validation": options.validation,
        "seeds": options.seeds,
        "tools": options.tools,
        "calibration_images": CALIBRATION_IMAGES,
        "checkpoint_sha256": {name: sha256(path) for name, path in paths.items()},
    }
    for name in ("data", "test"):
        if getattr(options, name) is not None:
            facts |= describe_images(name, getattr(options, name))
    return facts


def main() -> int:
    options = parse()
    require_exact_products()
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as work:
        networks = collect(options, Path(work))
    found = conditions(networks)
    results = {
        "networks": networks,
        "interval_method": (
            "percentile bootstrap, paired, of the mean over the seeds, 20000 resamples: images and seeds drawn "
            "independently (pigeonhole bootstrap); '..._of_these_seeds': images alone"
        ),
        "conditions": found,
        "kept": kept(found),
    }
    result = document(NAME, settings=describe(options), load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 0 if results["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
