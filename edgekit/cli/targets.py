"""``edgekit targets``: the hardware targets, and where each of their numbers is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from edgekit.cli.answer import Answer
from edgekit.cli.options import json_option
from edgekit.config import to_dict
from edgekit.runtime.machine import default_target
from edgekit.table import output_width, pairs, table
from edgekit.targets import Target, list_targets, load_target

__all__ = ["command"]

_BUILT = {"here": "by compile", "ahead": "by compile, one for each precision", "device": "on the device"}


@click.command("targets", epilog="Examples: edgekit targets; edgekit targets jetson; edgekit targets my-board.toml")
@click.argument("name", required=False, metavar="[NAME]")
@json_option
def command(name: str | None) -> Answer:
    """Lists the hardware targets, or shows one: what it can do, and the source of every number.

    NAME is a target's name, its alias, or the path of a TOML file. Folders named in EDGEKIT_TARGETS are searched too.
    """
    default = default_target().name
    targets = list_targets() if name is None else (load_target(name),)
    text = _overview(targets, default) if name is None else _details(targets[0], default)
    document = {"default": default, "targets": [to_dict(target) for target in targets]}
    return Answer(schema="edgekit.targets/1", document=document, text=text)


def _overview(targets: Sequence[Target], default: str) -> str:
    rows = [
        [
            target.name + (" *" if target.name == default else ""),
            target.title,
            target.backend,
            _BUILT[target.build],
            " ".join(target.precisions),
            " ".join(target.aliases),
        ]
        for target in targets
    ]
    headers = ["target", "device", "backend", "engine is built", "precisions", "alias"]
    return f"{table(headers, rows, width=output_width())}\n\n* the default on this machine"


def _details(target: Target, default: str) -> str:
    rules = target.quantize
    rows = [
        ("device", target.title),
        ("default here", "yes" if target.name == default else "no"),
        ("backend", target.backend),
        ("engine is built", _BUILT[target.build]),
        ("precisions", ", ".join(target.precisions) + " (best first)"),
        ("aliases", ", ".join(target.aliases) if target.aliases else "none"),
        *([("modules", ", ".join(target.modules))] if target.modules else []),
        ("channel alignment", f"{target.channel_alignment} ({target.channel_alignment_source})"),
        ("activations", rules.activations),
        ("weights", f"{rules.weight_bits} bits"),
        ("depthwise", rules.depthwise),
        ("residual add", rules.residual_add),
        ("global pool", rules.global_pool),
        ("squeeze-excite", rules.squeeze_excite),
        ("attention matmul", rules.attention_matmul),
        ("raw pixels", rules.raw_pixels),
        ("golden rel. L2", ", ".join(f"{kind} {limit:g}" for kind, limit in target.golden_rel_l2.items())),
        ("portable graph", f"ONNX opset {target.portable.opset}, IR version {target.portable.ir_version}"),
        ("engine options", ", ".join(_settings(target.engine))),
        *_requirements(target),
        *((f"note {number}", note) for number, note in enumerate(target.notes, 1)),
    ]
    figures = [
        [title, f"{figure.value:g} {figure.unit}", figure.source]
        for title, figure in (("memory", target.memory), ("bandwidth", target.bandwidth))
        if figure is not None
    ]
    figures += [[f"peak {peak.precision}", f"{peak.tops:g} TOPS", peak.source] for peak in target.peaks]
    width = output_width()
    numbers = f"\n\n{table(['figure', 'value', 'source'], figures, width=width)}" if figures else ""
    return f"{target.name}\n\n{pairs(rows, width=width)}{numbers}"


def _settings(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} = {value}"


def _requirements(target: Target) -> list[tuple[str, str]]:
    needs = target.requires
    parts = []
    if needs.arch:
        parts.append(f"machine {' or '.join(needs.arch)}")
    if needs.cpu_flags_any:
        parts.append(f"CPU flag {' or '.join(needs.cpu_flags_any)}")
    if needs.device:
        parts.append(f"device {needs.device}")
    if not parts:
        return [("needs", "nothing in particular")]
    otherwise = "refuses to load" if needs.on_mismatch == "refuse" else "loads with a warning"
    reason = f": {needs.reason}" if needs.reason else ""
    return [("needs", "; ".join(parts)), ("otherwise", otherwise + reason)]
