"""ResNet-56 on an NVIDIA GPU: accuracy, time against torch.compile and ONNX Runtime, memory, and the GPU tests.

    python -m benchmarks gpu --checkpoint resnet56-4bfd9763.th --data train --test test --work gpu-out [--record]

Where there is no GPU it says what is missing, writes nothing and ends with exit code 5.

For TensorRT for RTX and for TensorRT, whichever is installed, a tiny engine is tried first. A library that refuses this
GPU (TensorRT for RTX 1.7 knows no Hopper cards) is recorded as refusing it, with its words. Then, for each that does
not: ``edgekit.compile`` with 300 calibration images; int8 with fp16 around it and fp16, each built here, timed;
the golden outputs; every test image, against the float network in torch on the CPU; a soak.

Time is that of one image, raw uint8 in, logits out, both in the host's memory, through ``model.infer``'s session.
Beside it run torch.compile in half precision and ONNX Runtime's CUDA provider with the same fp16 graph (``gpu_peers``);
a peer that is missing is recorded as missing. Each fresh process opens all sides, in drawn orders that come in mirrored
pairs, and times them in blocks in random mirrored order. The interval of a ratio is Student's t over the logarithms of
the processes' ratios; "again" is a second copy of one engine: the noise of the method. The 99th percentile is that of
each process, in the mean.

All that touches the GPU happens in fresh processes with a time limit. Finished parts are kept in ``--work`` and used
again while options, versions, sources and GPU are the same, so an interrupted run goes on where it was.

Bounds: golden errors within their bounds; the interval of the drop reaches 0.3 points for int8 and zero for fp16; our
fastest engine is no slower than a peer, by its interval; memory is flat; no test marked ``gpu`` fails. What is not
measured is not missed: exit code 1 is for a missed bound.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.cifar import CALIBRATION_IMAGES, add_inputs, describe_inputs
from benchmarks.fresh import ROOT, run_fresh
from benchmarks.gpu_machine import TARGETS, gpu_facts, missing, no_gpu, refusal
from benchmarks.gpu_report import to_markdown
from benchmarks.gpu_tests import run_tests
from benchmarks.gpu_verdicts import conditions, summarize_accuracy, summarize_latency
from benchmarks.gpu_worker import AGAIN, ORT, TORCH, side_name
from benchmarks.keeping import digest, kept
from benchmarks.record import RESULTS, document, publish
from benchmarks.sides import opening_order
from benchmarks.verdicts import kept as all_kept
from edgekit.errors import BackendMissing

__all__ = ["NAME", "main", "measure", "to_markdown"]

NAME = "gpu"
_VERSIONS = ("cuda-bindings", "pycuda", "tensorrt", "tensorrt-rtx", "torch", "triton", "onnxruntime-gpu")
_SOURCES = ("edgekit/**/*.py", "targets/*.toml", "calibration/*.toml", "benchmarks/*.py", "benchmarks/models/*.py")


class Parts:
    """Runs the parts, each at most once, and keeps what they answered.

    Args:
        work: Where.
        stamp: What they depend on.
        limit_s: Each fresh process is ended after this many seconds.
    """

    def __init__(self, work: Path, stamp: str, *, limit_s: float) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work = work
        self._stamp, self._limit_s = stamp, limit_s

    def run(self, name: str, task: Mapping[str, Any]) -> dict[str, Any]:
        """Runs a part in a fresh process; one that breaks or takes too long is ``{"failed": why}``."""
        return self.made(name, lambda: run_fresh("gpu_worker", dict(task), limit_s=self._limit_s))

    def made(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The same for any function; what failed is not kept, so that it is tried again."""

        def attempt() -> dict[str, Any]:
            facts = make()
            if "failed" in facts:
                raise RuntimeError(facts["failed"])
            return facts

        try:
            facts = kept(self.work / "parts" / f"{name}.json", self._stamp, attempt)
        except RuntimeError as error:
            facts = {"failed": self.plain(str(error))}
        print(f"{name}: {facts.get('failed', 'done')}", flush=True)
        return facts

    def plain(self, text: str) -> str:
        """Returns a text without the paths of this machine."""
        for path, word in ((self.work.absolute(), "WORK"), (ROOT, "."), (sys.prefix, "PREFIX")):
            text = text.replace(str(path), word)
        return text


def measure(options: argparse.Namespace, parts: Parts) -> dict[str, Any]:
    """Runs every part."""
    paths = {name: str(getattr(options, name).absolute()) for name in ("checkpoint", "data", "test")}
    common = {**paths, "float": str(parts.work.absolute() / "float.npy"), "seed": options.seed}
    reference = parts.run("float", {**common, "do": "float", "threads": os.cpu_count()})
    targets: dict[str, Any] = {}
    sides: list[tuple[str, dict[str, Any]]] = []
    for target, flavour in TARGETS.items():
        lacking = missing(flavour)
        if lacking:
            targets[target] = {"missing": lacking}
            continue
        refused = parts.plain(refusal(flavour))
        targets[target] = {"library": flavour.title, "refused": refused}
        if not refused:
            told = {**common, "bundle": str(parts.work.absolute() / f"{target}.edge"), "target": target}
            targets[target] |= _target(parts, told, options, reference)
            sides += [
                (side_name(target, precision), {**told, "kind": "edgekit", "precision": precision})
                for precision, engine in targets[target].get("engines", {}).items()
                if "drop" in engine
            ]
    results: dict[str, Any] = {
        "gpu": gpu_facts(),
        "float": {
            "images": len(reference.get("outcomes", "")),
            "top1": _share(reference["outcomes"]) if "outcomes" in reference else None,
        },
        "targets": targets,
        "latency": _latency(parts, common, sides, options),
        "tests": parts.made("tests", lambda: run_tests(soak_calls=options.soak, limit_s=options.limit)),
    }
    found = conditions(results)
    return {**results, "conditions": found, "kept": all_kept(found)}


def _target(
    parts: Parts, told: Mapping[str, Any], options: argparse.Namespace, reference: Mapping[str, Any]
) -> dict[str, Any]:
    target = told["target"]
    task = {**told, "do": "compile", "samples": options.samples, "threads": os.cpu_count()}
    compiled = parts.run(f"{target}-compile", task)
    if "failed" in compiled:
        return compiled
    engines: dict[str, Any] = {}
    for precision, built in compiled["engines"].items():
        engines[precision] = dict(built)
        if "failed" in built or "outcomes" not in reference:
            continue
        ran = parts.run(f"{target}-{precision}-accuracy", {**told, "do": "accuracy", "precision": precision})
        engines[precision] |= summarize_accuracy(reference["outcomes"], ran)
    ran_well = [precision for precision, engine in engines.items() if "drop" in engine]
    soaked: dict[str, Any] = {"failed": "no engine ran"}
    if ran_well:
        task = {**told, "do": "soak", "precision": ran_well[0], "calls": options.soak}
        soaked = parts.run(f"{target}-soak", task)
    return {"engines": engines, "not_shipped": compiled["not_shipped"], "soak": soaked}


def _latency(
    parts: Parts,
    common: Mapping[str, Any],
    sides: list[tuple[str, dict[str, Any]]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    if not sides:
        return {"failed": "no engine of ours runs here, so there is nothing to compare"}
    first, half = sides[0], next((side for _, side in sides if side["precision"] == "fp16"), None)
    all_sides = [*sides, (f"{first[0]}{AGAIN}", first[1]), (TORCH, {**common, "kind": "torch"})]
    absent = {ORT: "there is no fp16 graph to run"} if half is None else {}
    if half is not None:
        all_sides.append((ORT, {**half, "kind": "onnxruntime"}))
    by_name, runs = dict(all_sides), []
    for process in range(options.processes):
        task = {
            **common,
            "do": "latency",
            "sides": [(name, by_name[name]) for name in opening_order(list(by_name), process)],
            "blocks": options.blocks,
            "calls": options.calls,
            "settle": options.settle,
            "warm_up_s": options.warm_up,
            "seed": process,
        }
        run = parts.run(f"latency-{process}", task)
        if "failed" in run:
            return run
        runs.append({**run, "missing": {**absent, **{key: parts.plain(why) for key, why in run["missing"].items()}}})
    return summarize_latency(runs)


def _share(outcomes: str) -> float:
    return outcomes.count("1") / len(outcomes)


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _stamp(settings: Mapping[str, Any]) -> str:
    files = [path for pattern in _SOURCES for path in sorted(ROOT.glob(pattern))]
    content = {str(path.relative_to(ROOT)): digest(path.read_text(encoding="utf-8")) for path in files}
    return digest(settings, content, _versions(), gpu_facts()["name"])


def record_path(gpu: str) -> Path:
    """Where ``--record`` writes the result for a GPU of this name."""
    return RESULTS / f"{NAME}-{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}.json"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser, test=True)
    parser.add_argument("--work", type=Path, help="folder for finished parts; without it they are not kept")
    parser.add_argument("--samples", type=int, default=CALIBRATION_IMAGES, help="calibration images")
    parser.add_argument("--seed", type=int, default=0, help="calibration seed")
    parser.add_argument("--processes", type=int, default=6, help="fresh processes that time the sides; even")
    parser.add_argument("--blocks", type=int, default=20, help="blocks in each process")
    parser.add_argument("--calls", type=int, default=100, help="timed calls per visit, two visits a block")
    parser.add_argument("--settle", type=int, default=5, help="untimed calls at the start of a visit")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds of warm-up for each side, at least")
    parser.add_argument("--soak", type=int, default=20000, help="calls of the soak, and in the tests of memory")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds after which a part is ended")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--record", action="store_true", help="write the result to benchmarks/results/gpu-<name>.json")
    group.add_argument("--output", type=Path, help="write the result to this JSON file")
    options = parser.parse_args(arguments)
    if options.processes < 2 or options.processes % 2:
        parser.error(f"--processes: expected an even number, got {options.processes}: orders of opening come in pairs")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    lacking = no_gpu()
    if lacking:
        print(f"no GPU to measure on: {lacking}; nothing was written", file=sys.stderr)
        return BackendMissing.exit_code
    load_average = os.getloadavg()[0]
    names = ("samples", "seed", "processes", "blocks", "calls", "settle", "warm_up", "soak")
    settings = {name: getattr(options, name) for name in names} | describe_inputs(options)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary) if options.work is None else options.work
        results = measure(options, Parts(work, _stamp(settings), limit_s=options.limit))
    # Through JSON: what is shown is what is written.
    result = json.loads(
        json.dumps(document(NAME, settings=settings, load_average=load_average, results=results), default=str)
    )
    result["machine"]["libraries"] |= _versions()
    output = record_path(results["gpu"]["name"]) if options.record else options.output
    publish(result, to_markdown(result), output)
    return 0 if results["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
