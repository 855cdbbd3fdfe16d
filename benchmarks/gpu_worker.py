"""The fresh processes of the GPU benchmark: ``python -m benchmarks.gpu_worker '<json>'``.

Everything that touches the GPU happens in one of these, so that a library which ends its process ends no more than a
part of the benchmark. The task's ``do`` says what to do; an expected failure comes back as ``{"failed": why}``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy_worker import fidelity, outcomes
from benchmarks.cifar import compile_checkpoint, float_module
from benchmarks.fresh import answer
from benchmarks.gpu_machine import TARGETS
from benchmarks.gpu_peers import MissingPeer, onnxruntime_call, torch_call
from benchmarks.soak import soak, used_device_bytes
from benchmarks.trained import NETWORKS, float_logits, load_module, read_all
from edgekit.bench import WarmUpRules, interleave, warm_up
from edgekit.bundle import Bundle, Entry, read_bundle
from edgekit.errors import EdgekitError
from edgekit.runtime.cuda import open_device
from edgekit.runtime.golden import golden_errors, rel_l2
from edgekit.runtime.session import Session
from edgekit.runtime.sessions import open_session
from edgekit.runtime.tensorrt.building import build_within_memory

__all__ = ["AGAIN", "ORT", "TORCH", "run", "side_name"]

TORCH, ORT = "torch.compile, fp16", "ONNX Runtime CUDA, fp16"
AGAIN = " again"
_NETWORK = NETWORKS["resnet56"]
_NO_LIMIT = 100.0  # points: what is measured here is the drop, so no gate may refuse it


def side_name(target: str, precision: str) -> str:
    """What an engine of ours is called in the tables."""
    return f"edgekit {target}, {precision}"


def _float(task: Mapping[str, Any]) -> dict[str, Any]:
    """Runs the float network in torch on the CPU; its logits are kept in a file for the others."""
    images = read_all(_NETWORK, _NETWORK.images(Path(task["test"])))
    module = load_module(_NETWORK, Path(task["checkpoint"]))
    rows = list(float_logits(module, [_NETWORK.pixels(image.pixels) for image in images]))
    np.save(task["float"], np.concatenate(rows))
    return {"outcomes": outcomes(_NETWORK, images, rows)}


def _compile(task: Mapping[str, Any]) -> dict[str, Any]:
    """Compiles for a target as a user does, and builds each of its graphs here, timed."""
    bundle_path = Path(task["bundle"])
    report = compile_checkpoint(
        Path(task["checkpoint"]),
        Path(task["data"]),
        bundle_path,
        precision="auto",
        seed=task["seed"],
        samples=task["samples"],
        target=task["target"],
        max_drop=_NO_LIMIT,
    )
    bundle, flavour = read_bundle(bundle_path), TARGETS[task["target"]]
    engines: dict[str, Any] = {}
    for entry in bundle.manifest.entries:
        built = build_within_memory(flavour, bundle.read(entry.graph), entry.options)
        if built.plan is None:
            engines[entry.precision] = {"failed": f"{built.builder}: {built.reason}"}
            continue
        _plan(bundle_path, entry.precision).write_bytes(built.plan)
        engines[entry.precision] = {
            "builder": built.builder,
            "build_s": built.build_s,
            "plan_bytes": len(built.plan),
            "graph_bytes": len(bundle.read(entry.graph)),
        }
    left = {
        item.precision: item.reason
        for target in report.targets
        for item in target.candidates
        if item.precision not in target.shipped
    }
    return {"engines": engines, "not_shipped": left}


def _accuracy(task: Mapping[str, Any]) -> dict[str, Any]:
    """Opens one engine, holds it against the golden outputs, and runs every test image."""
    images = read_all(_NETWORK, _NETWORK.images(Path(task["test"])))
    bundle, entry = _entry(task)
    started = perf_counter()
    with _open(bundle, entry, task) as session:
        opened = perf_counter()
        name = session.outputs[0].name
        feeds = {"image": images[0].pixels[np.newaxis]}
        session.infer(feeds)
        first = perf_counter()
        inputs, outputs = (
            {key: bundle.array(file) for key, file in files.items()}
            for files in (entry.golden.inputs, entry.golden.outputs)
        )
        golden = golden_errors(session.infer, inputs, outputs)
        rows = [session.infer({"image": image.pixels[np.newaxis]})[name] for image in images]
        layers = Counter(layer.precision for layer in session.layers() if layer.compute)
        described = session.describe()
    reference = np.load(task["float"], allow_pickle=False)
    return {
        "outcomes": outcomes(_NETWORK, images, rows),
        **fidelity(reference, np.concatenate(rows)),
        "golden_rel_l2": max(golden.values()),
        "golden_bound": entry.golden.rel_l2,
        "open_s": opened - started,
        "first_call_s": first - opened,
        "layers": dict(layers),
        "session": described,
    }


def _soak(task: Mapping[str, Any]) -> dict[str, Any]:
    images = read_all(_NETWORK, _NETWORK.images(Path(task["test"])))[:16]
    device = open_device()
    try:
        with _open(*_entry(task), task) as session:
            feeds = cycle([{"image": image.pixels[np.newaxis]} for image in images])
            seen = soak(lambda: session.infer(next(feeds)), lambda: used_device_bytes(device), calls=task["calls"])
    finally:
        device.close()
    return seen.to_dict()


def _latency(task: Mapping[str, Any]) -> dict[str, Any]:
    """Opens every side in the order that the task gives, and times them in blocks, in random mirrored order."""
    image = read_all(_NETWORK, _NETWORK.images(Path(task["test"])))[0].pixels[np.newaxis]
    reference = np.load(task["float"], allow_pickle=False)[:1]
    missing: dict[str, str] = {}
    calls: dict[str, Callable[[], Any]] = {}
    distance: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        for name, side in task["sides"]:
            try:
                calls[name] = _call(side, image, stack)
                distance[name] = rel_l2(reference, calls[name]())
            except (MissingPeer, EdgekitError) as error:
                missing[name] = str(error)
            except Exception as error:  # noqa: BLE001 - a peer that breaks must not end the measurement of the others
                missing[name] = f"{type(error).__name__}: {error}"[:500]
            if name in missing:
                calls.pop(name, None)
        if not calls:
            return {"missing": missing, "median_us": {}}
        rules = WarmUpRules(min_s=task["warm_up_s"], max_s=10 * task["warm_up_s"])
        stable = {name: warm_up(call, rules).stable for name, call in calls.items()}
        samples = interleave(
            calls, blocks=task["blocks"], per_visit=task["calls"], seed=task["seed"], settle=task["settle"]
        )
    return {
        "median_us": {name: float(np.median(times)) / 1e3 for name, times in samples.items()},
        "p99_us": {name: float(np.percentile(times, 99)) / 1e3 for name, times in samples.items()},
        "block_medians_us": {name: (np.median(times, axis=1) / 1e3).tolist() for name, times in samples.items()},
        "calls": {name: int(times.size) for name, times in samples.items()},
        "stable": stable,
        "float_distance": distance,
        "missing": missing,
    }


def _call(side: Mapping[str, Any], image: np.ndarray, stack: contextlib.ExitStack) -> Callable[[], Any]:
    if side["kind"] == "torch":
        return torch_call(float_module(Path(side["checkpoint"])), image)
    if side["kind"] == "onnxruntime":
        bundle, entry = _entry(side)
        return onnxruntime_call(bundle.read(entry.graph), image)
    session = stack.enter_context(_open(*_entry(side), side))
    name, feeds = session.outputs[0].name, {"image": image}
    return lambda: session.infer(feeds)[name]


def _entry(task: Mapping[str, Any]) -> tuple[Bundle, Entry]:
    bundle = read_bundle(Path(task["bundle"]))
    return bundle, next(entry for entry in bundle.manifest.entries if entry.precision == task["precision"])


def _open(bundle: Bundle, entry: Entry, task: Mapping[str, Any]) -> Session:
    """Opens the plan that was built here."""
    plan = _plan(Path(task["bundle"]), entry.precision).read_bytes()
    kind = TARGETS[entry.target].engine_kind
    return open_session(kind, {"plan": plan}, entry.options, entry.inputs, entry.outputs, trusted=True)


def _plan(bundle: Path, precision: str) -> Path:
    return bundle.with_name(f"{bundle.stem}-{precision}.plan")


_PARTS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "float": _float,
    "compile": _compile,
    "accuracy": _accuracy,
    "soak": _soak,
    "latency": _latency,
}


def run(task: Mapping[str, Any]) -> dict[str, Any]:
    """Does a part; an error that edgekit raises on purpose is its result."""
    try:
        return _PARTS[task["do"]](task)
    except EdgekitError as error:
        return {"failed": error.message}


def main(task: dict[str, Any]) -> None:
    torch.set_num_threads(max(1, task.get("threads", 1)))
    # What libraries print is not for stdout, which carries the answer.
    with contextlib.redirect_stdout(sys.stderr):
        facts = run(task)
    answer(facts)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
