"""The kernels that TensorRT-RTX compiles when an engine is opened, kept for the next time.

Source: TensorRT for RTX documentation, "Working with Runtime Cache"; ``IRuntimeCache`` of its Python API.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from edgekit.runtime.tensorrt import Messages
from edgekit.runtime.tensorrt.learned import LearnedCache

__all__ = ["CompiledKernels"]


class CompiledKernels:
    """The runtime cache of one engine, in a file between processes. Thread-safe; needs the device's context.

    Args:
        config: The engine's runtime configuration, which gets the cache; contexts that are made with it fill it.
        store: Where it is kept.
        facts: Everything that the kernels depend on.
        messages: What the library logs.
    """

    def __init__(self, config: Any, *, store: LearnedCache, facts: Mapping[str, str], messages: Messages) -> None:
        self._store, self._facts = store, facts
        self._lock = threading.Lock()
        self._kept_once = False
        self._origin, self._not_kept = "compiled here", ""
        self._cache: Any = config.create_runtime_cache()
        found = store.find(facts)
        dropped = found.dropped
        if found.data:
            # It looks at the data first; what does not fit leaves the cache as it was.
            if self._cache.deserialize(found.data):
                self._origin = "from the cache"
            else:
                dropped = messages.reason()
        if dropped:
            self._origin = f"compiled here, since what was kept is not usable: {dropped}"
        if not config.set_runtime_cache(self._cache):
            self._cache, self._origin, self._not_kept = None, "compiled here", messages.reason()

    def ran(self) -> None:
        """Takes note of a finished inference: after the first one what was compiled is kept, since not all close."""
        if not self._kept_once:
            with self._lock:
                if not self._kept_once:
                    self._keep()

    def close(self) -> None:
        """Keeps what was compiled since, and lets the library's cache go."""
        with self._lock:
            self._keep()
            self._cache = None

    def describe(self) -> str:
        """Says where the kernels came from, and why they are not kept where they are not."""
        return self._origin + (f"; not kept: {self._not_kept}" if self._not_kept else "")

    def _keep(self) -> None:
        self._kept_once = True
        if self._cache is None:
            return
        compiled = self._cache.serialize()
        if compiled is None:
            self._not_kept = "the library does not give them"
            return
        data = bytes(memoryview(compiled))
        self._not_kept = self._store.keep(self._facts, data) if data else ""
