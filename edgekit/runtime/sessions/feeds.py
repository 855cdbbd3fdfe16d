"""Checking what is fed to an engine: cheap where it is right, precise where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from edgekit.config import nearest
from edgekit.errors import UserError
from edgekit.tensorspec import TensorSpec

__all__ = ["FeedCheck"]

Array = npt.NDArray[Any]


class FeedCheck:
    """Turns feeds into the arrays that an engine takes.

    Args:
        specs: The inputs.
        order: Place of each input in the engine's own order.
        largest_batch: The most images that a dynamic batch may have; None takes any number.
    """

    def __init__(
        self, specs: tuple[TensorSpec, ...], *, order: tuple[int, ...], largest_batch: int | None = None
    ) -> None:
        by_place = sorted(zip(order, specs, strict=True), key=lambda item: item[0])
        self._specs = tuple(spec for _, spec in by_place)
        self._wanted = tuple((spec.name, np.dtype(spec.dtype), spec.shape, spec.shape[1:]) for spec in self._specs)
        self._largest_batch = largest_batch
        self._dynamic = any(spec.shape[:1] == (None,) for spec in specs)

    def arrays(self, feeds: Mapping[str, Array]) -> tuple[Array, ...]:
        """Returns the arrays in the engine's order, contiguous and writable: copied only where they are not.

        Raises:
            UserError: Unknown or missing input, not an array, wrong dtype or shape.
        """
        if len(feeds) != len(self._wanted):
            self._refuse_names(feeds)
        arrays = []
        for name, dtype, shape, tail in self._wanted:
            array = feeds.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype:
                array = self._plain(feeds, name)
            if array.shape != shape and (
                shape[:1] != (None,) or array.shape[1:] != tail or array.shape[:1] in ((), (0,))
            ):
                self._refuse(name, array)
            flags = array.flags
            arrays.append(array if flags.c_contiguous and flags.writeable else array.copy())
        if self._dynamic and (len(arrays) > 1 or self._largest_batch is not None):
            self._check_batch(arrays)
        return tuple(arrays)

    def _plain(self, feeds: Mapping[str, Array], name: str) -> Array:
        if name not in feeds:
            self._refuse_names(feeds)
        array = feeds[name]
        if not isinstance(array, np.ndarray) or array.dtype.name != self._spec(name).dtype:
            self._refuse(name, array)
        # A subclass of ndarray, or another byte order.
        return np.asarray(array, dtype=array.dtype.newbyteorder("="))

    def _spec(self, name: str) -> TensorSpec:
        return next(spec for spec in self._specs if spec.name == name)

    def _refuse_names(self, feeds: Mapping[str, Array]) -> NoReturn:
        names = [spec.name for spec in self._specs]
        for name in feeds:
            if name not in names:
                raise UserError(f"input '{name}': the engine has none of that name", hint=nearest(str(name), names))
        missing = [name for name in names if name not in feeds]
        raise UserError(f"input '{missing[0]}': missing; the engine takes {', '.join(names)}")

    def _refuse(self, name: str, array: Any) -> NoReturn:
        spec = self._spec(name)
        shape = ", ".join("N" if size is None else str(size) for size in spec.shape)
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        hint = None
        if spec.dtype == "uint8" and isinstance(array, np.ndarray) and array.dtype.kind == "f":
            hint = "pass the raw frame, the bundle normalises it"
        raise UserError(f"input '{name}': expected {spec.dtype} ({shape}), got {found}", hint=hint)

    def _check_batch(self, arrays: list[Array]) -> None:
        sizes = {
            spec.name: len(array) for spec, array in zip(self._specs, arrays, strict=True) if spec.shape[:1] == (None,)
        }
        if len(set(sizes.values())) > 1:
            raise UserError(f"inputs differ in their batch size: {sizes}")
        name, size = next(iter(sizes.items()))
        if self._largest_batch is not None and size > self._largest_batch:
            raise UserError(
                f"input '{name}': a batch of {size}; the engine was built for at most {self._largest_batch}",
                hint="feed fewer images at once, or compile for more (--batch)",
            )
