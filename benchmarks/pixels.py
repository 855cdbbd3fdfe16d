"""What it saves that the first int8 layer reads raw pixels: the same network with and without the fold.

    python -m benchmarks pixels [--networks digits MobileNetV2] [--work FOLDER] [--record]

Each network is quantized twice with the default recipe for this machine's own target, from the same uint8 frames: as
the target says (``raw_pixels = "fold"``: mean and std in the first convolution) and with ``raw_pixels = "float"`` (the
engine normalises the frame and quantizes the result). Both engines take the same uint8 frame. The digits network is
the trained example with its own images; the others have seeded random weights (``models/raw_frame.py``), 64 generated
pictures for calibration and 32 others for the signal-to-noise ratio.

Fresh processes open both engines and a second copy of the first, in drawn orders that come in mirrored pairs, and time
them in blocks, in random mirrored order (``engine_worker``). A process gives one ratio, the median over its blocks of
the ratio of medians; the interval is Student's t over the logarithms of the processes' ratios. "Again" is the second
copy: the noise of the method.

SQNR: 10 log10 of the squares of the float program's outputs over the squares of the engine's differences to them. With
random weights it moves by a few tenths for any change of the rounding, either way. Bounds: no network's interval lies
wholly above 1, and no SQNR falls by more than 0.5 dB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from openvino._pyopenvino import CompiledModel

from benchmarks.engine_worker import compile_ir
from benchmarks.fresh import run_fresh
from benchmarks.intervals import process_mean_interval, process_ratio_interval
from benchmarks.models.raw_frame import NETWORKS, settled
from benchmarks.noise import sqnr_db
from benchmarks.record import add_output, cell, document, interval_text, markdown_table, publish
from benchmarks.sides import opening_order, process_ratios
from benchmarks.zoo.pictures import MEAN, STD, pictures
from edgekit.backends import get_backend
from edgekit.calibration import load_recipe
from edgekit.compiler.images import Images
from edgekit.compiler.quantization import quantize
from edgekit.config import to_dict
from edgekit.data import choose
from edgekit.export import export_portable
from edgekit.frontend import load_program
from edgekit.passes import PassContext, run_passes
from edgekit.passes.fold import FoldBatchNorm, FoldPreprocessing
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program
from edgekit.progress import SilentProgress
from edgekit.runtime.machine import default_target
from edgekit.runtime.tasks import load_spec
from edgekit.runtime.tasks.base import ImageInput, Spec
from edgekit.runtime.tasks.classification import ClassificationSpec
from edgekit.tasks import get_task
from examples.digits.prepare import write_images

NAME = "pixels"
DIGITS = "digits"
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "digits"
RAW, NORMALISED, AGAIN = "raw", "normalised", "raw again"
BOUND_RATIO, BOUND_DB = 1.0, 0.5
_CALIBRATION, _HELD_OUT = 64, 32


@dataclass(frozen=True, kw_only=True)
class Case:
    """A folded float program, and frames for it: (N, H, W, C) uint8."""

    program: Program
    calibration: torch.Tensor
    held_out: torch.Tensor


def digits_case(work: Path) -> Case:
    """The trained example with its own images."""
    write_images(work / "images")
    spec = load_spec(EXAMPLE / "digits.toml")
    program = load_program(EXAMPLE / "digits.pt", arch="model:digits_resnet", arch_path=EXAMPLE, task=spec)

    def frames(split: str, count: int) -> torch.Tensor:
        dataset = get_task(spec.task).read_data(work / "images" / split, spec)
        images = Images(choose(dataset, count, sampling="stratified", seed=0), spec)
        return torch.cat([batch for (batch,) in images.batches(count)])

    return Case(program=folded(program), calibration=frames("calib", 300), held_out=frames("test", 300))


def network_case(name: str) -> Case:
    """A network of ``models/raw_frame.py`` with generated pictures."""
    size = NETWORKS[name].size
    image = ImageInput(size=size, scale=1 / 255, mean=MEAN, std=STD)
    spec: Spec = ClassificationSpec(task="classification", labels=("a", "b"), input=image)
    bgr = [pictures(count, size, seed=seed).flip(1) for count, seed in ((_CALIBRATION, 1), (_HELD_OUT, 2))]
    calibration, held_out = (item.permute(0, 2, 3, 1).contiguous() for item in bgr)
    program = load_program(settled(NETWORKS[name], seed=0), task=spec)
    return Case(program=folded(program), calibration=calibration, held_out=held_out)


def folded(program: Program) -> Program:
    return run_passes(program, [FoldBatchNorm(), FoldPreprocessing()], PassContext(progress=SilentProgress()))


def build(case: Case, work: Path) -> dict[str, Any]:
    """Writes both engines and an input into a folder; returns what is known of them.

    Raises:
        RuntimeError: The fold was not done, so there is nothing to compare.
    """
    work.mkdir(parents=True, exist_ok=True)
    target, recipe = default_target(), load_recipe("default")
    np.savez(work / "inputs.npz", image=case.held_out[:1].numpy())
    reference = case.program.run(case.held_out)[0].numpy()
    facts: dict[str, Any] = {}
    for side, rule in ((RAW, "fold"), (NORMALISED, "float")):
        rules = replace(target.quantize, raw_pixels=rule)
        data = CalibrationData(
            source=lambda: ((batch,) for batch in case.calibration.split(recipe.batch_size)),
            count=len(case.calibration),
        )
        context = PassContext(progress=SilentProgress())
        program = quantize(case.program, rules=rules, recipe=recipe, data=data, context=context).program
        record = next(item for item in program.history if item.stage == "fold-pixels")
        if (record.changed == 1) != (side == RAW):
            raise RuntimeError(f"{side}: {record.summary}; {[item.why for item in record.skipped]}")
        graph = export_portable(program, portable=target.portable, precision="int8", dynamic_batch=False)
        engine = get_backend(target.backend).build(graph, target)
        for role, content in engine.files.items():
            (work / f"{side}.{role}").write_bytes(content)
        compiled = compile_ir(work / f"{side}.xml", threads=1)
        answers = np.concatenate([compiled([frame[np.newaxis]])[0].copy() for frame in case.held_out.numpy()])
        facts[side] = {
            "sqnr_db": sqnr_db(reference, answers),
            "before_first_convolution": before_first(compiled),
            "fold": dict(record.details),
        }
    return facts


def before_first(compiled: CompiledModel) -> list[str]:
    """Names what runs before the first convolution, in order, without views, which cost nothing."""
    facts = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [str(item["layerType"].astype(str)) for item in facts]
    ran = kinds[: kinds.index("Convolution")]
    return [kind for kind in ran if kind not in ("Const", "Constant", "Input", "Reshape")]


def time_sides(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Times one network's engines in fresh processes."""
    paths = {RAW: f"{RAW}.xml", NORMALISED: f"{NORMALISED}.xml", AGAIN: f"{RAW}.xml"}
    result: dict[str, Any] = {}
    for threads in options.threads:
        runs = []
        for process in range(options.processes):
            task = {
                "sides": [(side, str(work / paths[side])) for side in opening_order(list(paths), process)],
                "inputs": str(work / "inputs.npz"),
                "threads": threads,
                "blocks": options.blocks,
                "seconds": options.seconds,
                "settle": 2,
                "warm_up_s": options.warm_up,
                "seed": process,
            }
            runs.append(run_fresh("engine_worker", task))
        result[str(threads)] = summarize(runs)
    return result


def summarize(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Puts together the processes of one network and one number of threads."""
    ratios = {name: process_ratios(runs, RAW, [name]) for name in (NORMALISED, AGAIN)}
    return {
        "time_us": {
            name: to_dict(process_mean_interval([run["median_us"][name] for run in runs])) for name in (RAW, NORMALISED)
        },
        "ratio": to_dict(process_ratio_interval(ratios[NORMALISED])),
        "again": to_dict(process_ratio_interval(ratios[AGAIN])),
        "ratio_of_each_process": ratios[NORMALISED],
    }


def verdict(networks: Mapping[str, Mapping[str, Any]]) -> str:
    """Says whether the bounds were kept, or which network missed one."""
    missed = []
    for name, item in networks.items():
        if any(summary["ratio"]["low"] > BOUND_RATIO for summary in item["threads"].values()):
            missed.append(f"{name} (time)")
        if item["sides"][RAW]["sqnr_db"] < item["sides"][NORMALISED]["sqnr_db"] - BOUND_DB:
            missed.append(f"{name} (SQNR)")
    return f"MISSED by {', '.join(missed)}" if missed else "kept"


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    networks, settings = result["results"]["networks"], result["settings"]
    blocks = []
    for threads in (str(item) for item in settings["threads"]):
        rows = []
        for name, item in networks.items():
            summary = item["threads"][threads]
            rows.append(
                (
                    name,
                    *(f"{summary['time_us'][side]['estimate']:.0f}" for side in (NORMALISED, RAW)),
                    cell(summary["ratio"], ".3f"),
                    interval_text(summary["again"], ".3f"),
                    *(f"{item['sides'][side]['sqnr_db']:.1f}" for side in (NORMALISED, RAW)),
                )
            )
        head = (
            f"{threads} thread{'s' if threads != '1' else ''}",
            "normalised, us",
            "raw, us",
            "raw / normalised [95 %]",
            "raw / raw again",
            "SQNR normalised, dB",
            "SQNR raw, dB",
        )
        blocks.append(markdown_table(head, rows))
    ran = "; ".join(
        f"{name}: {', '.join(item['sides'][NORMALISED]['before_first_convolution'])} became "
        f"{', '.join(item['sides'][RAW]['before_first_convolution'])}"
        for name, item in networks.items()
    )
    blocks.append(f"Executed before the first convolution: {ran}.")
    blocks.append(
        f"{settings['processes']} fresh processes for each number of threads. Bounds: no interval of raw / normalised "
        f"wholly above {BOUND_RATIO:.0f}, no SQNR more than {BOUND_DB} dB below: {result['results']['verdict']}."
    )
    return "\n\n".join(blocks)


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs the benchmark."""
    networks: dict[str, Any] = {}
    for number, name in enumerate(options.networks):
        folder = work / f"{number}"
        case = digits_case(folder) if name == DIGITS else network_case(name)
        sides = build(case, folder)
        networks[name] = {"sides": sides, "threads": time_sides(folder, options)}
        shown = {threads: interval_text(item["ratio"], ".3f") for threads, item in networks[name]["threads"].items()}
        print(f"{name}: raw / normalised {json.dumps(shown)}", flush=True)
    return {"networks": networks, "verdict": verdict(networks)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = (DIGITS, *NETWORKS)
    parser.add_argument("--networks", nargs="+", choices=names, default=list(names), help="which; default: all")
    parser.add_argument("--work", type=Path, help="where engines go; default: a temporary folder")
    parser.add_argument("--processes", type=int, default=6, help="fresh processes for each number of threads, even")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    parser.add_argument("--blocks", type=int, default=20, help="blocks in a process, at most")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds that each side gets in a process")
    parser.add_argument("--warm-up", type=float, default=0.5, help="least seconds of warm-up for each side")
    add_output(parser, NAME)
    options = parser.parse_args()
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="edgekit-pixels-") as folder:
        results = measure(options, Path(folder) if options.work is None else options.work.absolute())
    settings = {
        name: getattr(options, name) for name in ("networks", "processes", "threads", "blocks", "seconds", "warm_up")
    }
    settings["target"] = default_target().name
    result = document(NAME, settings=settings, load_average=load_average, results=results)
    publish(result, to_markdown(result), options.output)
    return 0 if results["verdict"] == "kept" else 1


if __name__ == "__main__":
    sys.exit(main())
