"""Arrays as ``.npy`` bytes: the form of golden inputs and outputs."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import BundleError

__all__ = ["array_bytes", "parse_array"]

_DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
_MAGIC = b"\x93NUMPY\x01\x00"
# numpy's own reader of the header is a Python parser with fallbacks; its writer's one form is matched instead.
_HEADER = re.compile(
    r"\{'descr': '([|<][biuf][1248])', 'fortran_order': False, "
    r"'shape': \((|\d{1,18},|\d{1,18}(?:, \d{1,18}){1,31})\), \} *\n"
)


def array_bytes(array: npt.NDArray[Any]) -> bytes:
    """Returns an array as the bytes of an ``.npy`` file: version 1.0, little-endian, C order.

    Equal arrays give equal bytes.

    Args:
        array: Any shape; bool, integer of 8 to 64 bits, or float of 16 to 64 bits.

    Raises:
        BundleError: Another dtype, such as objects or bfloat16.

    Source: the format in numpy's manual, ``numpy.lib.format``.
    """
    little = array.dtype.newbyteorder("<")
    if little.str not in _DTYPES or np.dtype(little.str) != little:
        raise BundleError(f"array: expected bool, integer or floating-point numbers, found dtype {array.dtype}")
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array, dtype=little, order="C"), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def parse_array(data: bytes, *, where: str) -> npt.NDArray[Any]:
    """Reads the bytes of an ``.npy`` file into an array that the caller owns. Nothing is unpickled or evaluated.

    Args:
        data: The file's content, as :func:`array_bytes` writes it.
        where: Its place, for messages.

    Returns:
        The array, C order, native byte order.

    Raises:
        BundleError: Another file, another dtype or memory order, or a length that does not fit shape and dtype.
    """
    start = len(_MAGIC) + 2
    if not data.startswith(_MAGIC) or len(data) < start:
        raise BundleError(f"{where}: expected an .npy file of version 1.0, found {data[:8]!r} at its start")
    stop = start + int.from_bytes(data[start - 2 : start], "little")
    header = data[start:stop].decode("latin-1")
    found = _HEADER.fullmatch(header)
    if found is None or found.group(1) not in _DTYPES:
        raise BundleError(f"{where}: expected the .npy header of numbers in C order, found {header[:200]!r}")
    dtype = np.dtype(found.group(1))
    shape = tuple(int(size) for size in re.findall(r"\d+", found.group(2)))
    needed = math.prod(shape) * dtype.itemsize
    if len(data) - stop != needed:
        raise BundleError(f"{where}: {dtype} of shape {shape} takes {needed:,} bytes, found {len(data) - stop:,}")
    flat = np.frombuffer(data, dtype=dtype, offset=stop, count=math.prod(shape))
    try:
        array = flat.reshape(shape)
    except ValueError as error:
        raise BundleError(f"{where}: impossible shape {shape}: {error}") from error
    return array.astype(dtype.newbyteorder("="), order="C", copy=True)
