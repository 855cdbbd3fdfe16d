"""The command ``edgekit``: a table of verbs, and the one place where answers are printed and errors become exit codes.

A verb is one module with a click command named ``command`` that returns an :class:`edgekit.cli.answer.Answer`, and one
line in :data:`VERBS`. Its module is imported only when the verb runs, so that ``edgekit --help`` is quick and a verb
whose libraries are missing does not disturb the others.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TextIO

import click

from edgekit import __version__
from edgekit.cli.answer import Answer, print_document, print_text, stdout_kept_clean
from edgekit.cli.failure import explain, print_failure
from edgekit.cli.interrupt import Interrupts, noted_interrupts
from edgekit.cli.processes import leave, place
from edgekit.config import nearest
from edgekit.errors import InternalError, UserError

__all__ = ["VERBS", "Verb", "cli", "main"]


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One line of the table: where the command is, and the line that ``edgekit --help`` shows."""

    module: str
    help: str


VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        "compile": Verb(module="edgekit.cli.compile", help="Make a bundle from a trained model."),
        "build": Verb(
            module="edgekit.cli.build", help="On an NVIDIA device: build a bundle's engines, keep the fastest."
        ),
        "eval": Verb(module="edgekit.cli.eval", help="Measure a bundle's accuracy on labelled images."),
        "run": Verb(module="edgekit.cli.run", help="Run a bundle on images; save pictures of the results."),
        "bench": Verb(module="edgekit.cli.bench", help="Measure a bundle's latency, alone or against another."),
        "inspect": Verb(module="edgekit.cli.inspect", help="Show what is inside a bundle and what each layer ran as."),
        "diagnose": Verb(module="edgekit.cli.diagnose", help="Show which layers int8 hurts, and why."),
        "extract": Verb(module="edgekit.cli.extract", help="Write a bundle's graphs, engines and spec as plain files."),
        "targets": Verb(module="edgekit.cli.targets", help="List the hardware targets, or show one with its sources."),
        "doctor": Verb(module="edgekit.cli.doctor", help="Check this machine and say what it can run."),
    }
)


class _VerbGroup(click.Group):
    """Takes its commands from :data:`VERBS` and imports a verb's module only when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            raise UserError(f"unknown command '{cmd_name}'", hint=nearest(cmd_name, VERBS))
        command = importlib.import_module(VERBS[cmd_name].module).command
        if not isinstance(command, click.Command):
            raise InternalError(
                f"{VERBS[cmd_name].module}.command: expected a click command, got {type(command).__name__}"
            )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


@click.group(
    cls=_VerbGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: edgekit compile model.pt2 --task task.toml --data calib/ -o model.edge",
)
@click.option(
    "--debug", is_flag=True, expose_value=False, help="Show the traceback of every error [also: EDGEKIT_DEBUG=1]."
)
@click.version_option(version=__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Takes a trained vision model and makes it ship: an int8 engine for each device, checked, in one file."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        arguments: What follows ``edgekit`` on the command line; None takes it from the process.

    Returns:
        0, the answer's own code, or the code of the error's class: see :class:`edgekit.cli.failure.Failure`. One of
        several processes that ``torchrun`` started does not return after an error: it ends.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = words[: words.index("--")] if "--" in words else words
    as_json = "--json" in options and not {"-h", "--help"} & set(options)
    debug = "--debug" in options or os.environ.get("EDGEKIT_DEBUG", "0") not in ("", "0")
    here, interrupts = place(), Interrupts()
    try:
        with (
            noted_interrupts() as interrupts,
            warnings.catch_warnings(),
            stdout_kept_clean() if as_json else contextlib.nullcontext(),
        ):
            if not debug:
                warnings.showwarning = _show_nothing if here.follows else _show_warning
            answer = cli.main(args=words, prog_name="edgekit", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001 - the outermost place: every error gets its exit code
        error = KeyboardInterrupt() if interrupts.seen else caught
        failure = explain(error)
        if not (here.follows and isinstance(error, KeyboardInterrupt)):
            print_failure(error, failure, debug=debug, prefix=here.prefix)
        if as_json and not here.follows:
            print_document("edgekit.error/1", failure.to_dict())
        if here.size > 1:
            leave(failure.exit_code)
        return failure.exit_code
    if not isinstance(answer, Answer):
        return answer if isinstance(answer, int) else 0
    if as_json:
        print_document(answer.schema, answer.document)
    else:
        print_text(answer.text)
    return answer.exit_code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Shows a warning as one line; where in the code it comes from is for ``--debug``."""
    click.echo(f"warning: {message}", err=True)


def _show_nothing(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Leaves a warning to the process that speaks for this one."""


if __name__ == "__main__":
    sys.exit(main())
