"""The whole flow on the digits network, by the commands that a user types.

    python examples/digits/demo.py --output demo-out

Writes the images, compiles the committed checkpoint for this machine, once as the compiler chooses and once forced to
float, evaluates both on the test images, measures one against the other, runs one image, and says where everything is.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from prepare import write_images

__all__ = ["run_demo"]

HERE = Path(os.path.relpath(Path(__file__).parent))


def edgekit(*arguments: str | Path) -> None:
    """Echoes one edgekit command and runs it; a failure ends the demo with the command's exit code."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ edgekit {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "edgekit", *words], check=False).returncode
    if code != 0:
        sys.exit(code)


def compile_digits(images: Path, bundle: Path, *options: str) -> None:
    """Compiles the checkpoint: calibrated on ``calib``, with the accuracy gate on ``val``."""
    source: list[str | Path] = ["--arch", "model:digits_resnet", "--arch-path", HERE, "--task", HERE / "digits.toml"]
    data: list[str | Path] = ["--data", images / "calib", "--eval-data", images / "val"]
    edgekit("compile", HERE / "digits.pt", *source, *data, "-o", bundle, *options)


def run_demo(output: Path, *, bench_options: Sequence[str]) -> None:
    """Runs every step, with its files below ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    images = output / "images"
    counts = write_images(images)
    print("images of handwritten digits: " + ", ".join(f"{count} {split}" for split, count in counts.items()))

    model, baseline = output / "digits.edge", output / "digits-fp32.edge"
    compile_digits(images, model)
    compile_digits(images, baseline, "--precision", "fp32")
    for bundle in (model, baseline):
        edgekit("eval", bundle, "--data", images / "test")
    report = output / "bench.json"
    edgekit("bench", model, "--baseline", baseline, "--data", images / "test", "-o", report, *bench_options)
    photo = sorted((images / "test" / "7").iterdir())[0]
    pictures = output / "pictures"
    edgekit("run", model, photo, "--save", pictures)
    edgekit("inspect", model, "--layers")
    page = output / "diagnostics.html"
    edgekit("diagnose", model, "--top", "3", "--html", page)

    print("\nfiles:")
    for path, what in (
        (model, "the bundle: what goes to the device"),
        (baseline, "the same network in float"),
        (report, "the latency report"),
        (pictures, "the result, drawn"),
        (page, "what int8 does to each layer"),
        (images, "the images"),
    ):
        print(f"  {path}: {what}")


def main() -> None:
    """Reads the command line and runs the demo."""
    parser = argparse.ArgumentParser(description="The whole flow on the digits network.")
    parser.add_argument("--output", type=Path, default=Path("demo-out"))
    parser.add_argument("--duration", default="3", help="seconds of measurement for each bundle")
    arguments = parser.parse_args()
    run_demo(arguments.output, bench_options=["--duration", arguments.duration])


if __name__ == "__main__":
    main()
