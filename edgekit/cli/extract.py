"""``edgekit extract``: what a bundle holds, as plain files."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.bundle import extract, read_bundle
from edgekit.cli.answer import Answer
from edgekit.cli.options import NEW_PATH, bundle_argument, json_option, target_name
from edgekit.table import output_width, table

__all__ = ["command"]


@click.command("extract", epilog="Example: edgekit extract model.edge -o model-files")
@bundle_argument
@click.option("-o", "--output", type=NEW_PATH, required=True, metavar="DIR", help="The folder to make.")
@click.option("--target", metavar="NAME", help="Only what is for this target.  [default: all]")
@click.option("--force", is_flag=True, help="Replace the folder that an earlier extract wrote.")
@json_option
def command(bundle: Path, output: Path, target: str | None, force: bool) -> Answer:
    """Writes a bundle's ONNX graphs, engines, golden arrays and spec as plain files.

    For DeepStream, Triton, C++ and the curious. A README.txt in the folder says what the model takes and gives.
    """
    paths = extract(read_bundle(bundle), output, target_name(target), force=force)
    files = [(path, path.stat().st_size) for path in paths]
    rows = [[str(path), f"{size:,}"] for path, size in files]
    document = {
        "bundle": bundle,
        "folder": output,
        "files": [{"path": path, "size_bytes": size} for path, size in files],
    }
    text = table(["file", "bytes"], rows, right=["bytes"], width=output_width())
    return Answer(schema="edgekit.extract/1", document=document, text=text)
