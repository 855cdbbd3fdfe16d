"""Options that several verbs share, so that they are spelled and explained alike everywhere."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.targets import list_targets

__all__ = [
    "EXISTING_PATH",
    "NEW_PATH",
    "bundle_argument",
    "data_option",
    "json_option",
    "target_name",
    "target_option",
    "threads_option",
    "trust_option",
]

# Existence is checked by whoever opens the path: its message says what was expected there, in notebooks too.
EXISTING_PATH = click.Path(path_type=Path)
NEW_PATH = click.Path(path_type=Path)

bundle_argument = click.argument("bundle", type=EXISTING_PATH, metavar="BUNDLE")

data_option = click.option(
    "--data",
    type=EXISTING_PATH,
    required=True,
    metavar="DIR",
    help="Labelled images: one folder per class, named as the labels are.",
)

json_option = click.option(
    "--json", "_json", is_flag=True, expose_value=False, help="Print one JSON document instead of text (docs/json.md)."
)

target_option = click.option(
    "--target", metavar="NAME", help="Which of the bundle's targets to use.  [default: the best one for this machine]"
)

threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="CPU threads of the engine.  [default: as the engine decides]",
)


trust_option = click.option(
    "--trust-plan",
    is_flag=True,
    help="Open an engine that is a TensorRT plan: it can run code, so say this only of bundles from whom you trust.",
)


def target_name(word: str | None) -> str | None:
    """Returns the name that an alias stands for; any other word, such as a target of the user's own, as it is."""
    for target in () if word is None else list_targets():
        if word in target.aliases:
            return target.name
    return word
