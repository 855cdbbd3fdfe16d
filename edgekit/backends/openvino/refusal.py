"""OpenVINO's long report on a graph that it cannot translate, boiled down to nodes and reasons."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Refusal", "explain_refusal"]

_NO_RULE = re.compile(r"No conversion rule found for operations: (?P<list>[^\n]+)")
_NODE = re.compile(r"<Node\((?P<operator>\w+)\): (?P<name>[^>]*)>'?(?P<rest>[^\n]*\n[^\n]*\n?[^\n]*)")
_VERSION = re.compile(r"-\d+$")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What OpenVINO refused.

    Attributes:
        operators: Operator types that it has no translation for.
        nodes: Node name to the reason why that node could not be translated.
        summary: One line for people.
    """

    operators: tuple[str, ...]
    nodes: dict[str, str]
    summary: str


def explain_refusal(message: str) -> Refusal:
    """Reads the text of the exception that ``read_model`` raised.

    A node that fails only because its input comes from an operator without translation is listed too; the operators
    come first in the summary, because they are the cause.
    """
    operators: list[str] = []
    for match in _NO_RULE.finditer(message):
        operators += [_VERSION.sub("", item.strip()) for item in match["list"].split(",")]
    nodes = {match["name"]: f"{match['operator']}: {_reason(match['rest'])}" for match in _NODE.finditer(message)}
    if operators:
        summary = f"no translation for operator {', '.join(operators)}"
    elif nodes:
        summary = "; ".join(f"node '{name}' ({reason})" for name, reason in nodes.items())
    else:
        summary = _last_line(message)
    return Refusal(operators=tuple(operators), nodes=nodes, summary=summary)


def _reason(text: str) -> str:
    return " ".join(text.lstrip("':, ").split())


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
