"""Where int8 engines of several tools can be compared: on a CPU whose 8-bit products are exact."""

from __future__ import annotations

import sys

from edgekit.runtime.machine import check_requires
from edgekit.targets import load_target

__all__ = ["require_exact_products"]


def require_exact_products() -> None:
    """Ends the program where 8-bit weights are silently wrong.

    The other tools' weights have 8 bits, and edgekit compiles for ``x86-cpu`` to match. Elsewhere all of them would
    answer wrongly, each by another amount, and numbers would come out nonetheless.

    Raises:
        SystemExit: With code 2, where this machine is no ``x86-cpu``; the reason is on stderr.
    """
    problem = check_requires(load_target("x86-cpu").requires)
    if problem is not None:
        print(f"error: this machine cannot compare engines for x86-cpu: {problem}", file=sys.stderr)
        sys.exit(2)
