"""``/proc/driver/nvidia/version``: the version of NVIDIA's kernel driver."""

from __future__ import annotations

import re

__all__ = ["parse_kernel_driver"]

# The closed module says "NVIDIA UNIX x86_64 Kernel Module  550.163.01", the open one "... Open Kernel Module for x86_64
# 580.82.07"; the next line is the compiler's, with a version of its own.
_VERSION = re.compile(r"^NVRM version:.*?Kernel Module(?: for \w+)?\s+(\d+(?:\.\d+)+)", re.M)


def parse_kernel_driver(text: str) -> str | None:
    """Returns the driver's version, such as ``580.82.07``, or None where the text names none.

    >>> parse_kernel_driver("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build")
    '580.82.07'
    """
    found = _VERSION.search(text)
    return None if found is None else found[1]
