"""Where the nodes of a ``.pt2`` archive come from, as the file tells it: text that anybody may have written.

Nothing of it is believed to be more than words for a message. What torch gets to see is written anew: one frame on one
line of printable characters, of bounded length, and one module's dotted path.

Source: torch 2.13, torch/_export/serde/serialize.py (serialize_metadata, deserialize_metadata).
"""

from __future__ import annotations

import re
from typing import Any

from edgekit.frontend.sources import innermost_frame

__all__ = ["clean_metadata"]

# Of a stack trace the end counts: the innermost frames stand there.
_READ_CHARACTERS = 1 << 14
_LONGEST_NAME, _LONGEST_CODE, _LONGEST_PATH = 80, 120, 200
# As torch writes it: levels between ';', each key, path and type between ','; a second call of a module ends in '@1'.
_MODULE = re.compile(r"[^,;]*,(?P<path>[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*)(@\d{1,6})?,")
_TYPE = "torch.nn.modules.module.Module"


def clean_metadata(metadata: Any) -> dict[str, str]:
    """Returns what of a node's ``metadata`` torch may read: ``stack_trace`` and ``nn_module_stack``, made anew.

    Args:
        metadata: As the archive has it; whatever is not of the known form tells nothing.

    >>> clean_metadata({"nn_module_stack": "a,,m.Net;b,head,m.Head", "torch_fn": "x"})["nn_module_stack"]
    'L__self__,,torch.nn.modules.module.Module;L__self__m,head,torch.nn.modules.module.Module'
    """
    if not isinstance(metadata, dict):
        return {}
    made = {"stack_trace": _stack_trace(metadata), "nn_module_stack": _module_stack(metadata)}
    return {key: text for key, text in made.items() if text}


def _stack_trace(metadata: dict[str, Any]) -> str:
    text = metadata.get("stack_trace")
    frame = innermost_frame(text[-_READ_CHARACTERS:]) if isinstance(text, str) else None
    if frame is None:
        return ""
    name, code = _printable(frame.file)[:_LONGEST_NAME], _printable(frame.code)[:_LONGEST_CODE]
    return f'File "{name}", line {frame.line}, in forward' + (f"\n    {code}" if code else "")


def _module_stack(metadata: dict[str, Any]) -> str:
    text = metadata.get("nn_module_stack")
    innermost = _MODULE.match(text[-_READ_CHARACTERS:].rpartition(";")[2]) if isinstance(text, str) else None
    if innermost is None or len(innermost["path"]) > _LONGEST_PATH:
        return ""
    return f"L__self__,,{_TYPE};L__self__m,{innermost['path']},{_TYPE}"


def _printable(text: str) -> str:
    """Leaves out what could end a line, move the cursor, or turn the direction of writing."""
    return "".join(character for character in text if character.isprintable()).strip()
