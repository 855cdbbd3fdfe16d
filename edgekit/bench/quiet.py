"""Keeps Python's garbage collector out of a timed section."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collector_paused"]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Collects what is young, then pauses the cyclic collector until the context ends; leaves it as it was found.

    Reference counting goes on as usual, so memory does not grow unless the timed code makes cycles. Only the young
    generations are collected: a full collection walks everything that is loaded, which between blocks costs more than
    it frees.
    """
    was_on = gc.isenabled()
    gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
