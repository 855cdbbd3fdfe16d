"""Arrays: round trips, equal bytes for equal arrays, and nothing is unpickled."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.bundle import array_bytes
from edgekit.bundle.arrays import parse_array
from edgekit.errors import BundleError

DTYPES = st.sampled_from(["bool", "uint8", "int8", "uint16", "int32", "int64", "float16", "float32", "float64"])
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))


@given(ARRAYS)
def test_what_is_written_is_read(array: np.ndarray[Any, Any]) -> None:
    again = parse_array(array_bytes(array), where="test")
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes() == array.tobytes()
    assert again.flags.owndata
    assert again.flags.writeable


@given(ARRAYS)
def test_equal_arrays_give_equal_bytes_whatever_their_memory_order(array: np.ndarray[Any, Any]) -> None:
    expected = array_bytes(array)
    assert array_bytes(np.asfortranarray(array).reshape(array.shape)) == expected
    assert array_bytes(array.astype(array.dtype.newbyteorder(">"))) == expected
    doubled = np.repeat(array[..., None], 2, axis=-1)[..., 0]
    assert array_bytes(doubled) == expected


def test_numpy_reads_it() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(np.load(io.BytesIO(array_bytes(array)), allow_pickle=False), array)


@pytest.mark.parametrize(
    "array", [np.array([object()]), np.array(["a"]), np.zeros(1, "c8"), np.zeros(1, [("a", "u1")])]
)
def test_other_dtypes_are_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(BundleError, match="expected bool, integer or floating-point"):
        array_bytes(array)


class Trap:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def test_a_pickle_is_never_loaded() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(BundleError, match=r"expected the \.npy header of numbers"):
        parse_array(stream.getvalue(), where="test")


def header(descr: str = "<f4", order: str = "False", shape: str = "(2,)", more: str = "") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, {more}}}"


def test_the_header_typed_here_is_right() -> None:
    assert np.array_equal(parse_array(npy(header(), bytes(8)), where="test"), np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected an .npy file"),
        (b"\x93NUMPY\x01\x00\x00", "expected an .npy file"),
        (b"PK\x03\x04" * 10, "expected an .npy file"),
        (npy(header(), bytes(8), b"\x02\x00"), "expected an .npy file"),
        (npy("{'descr': '<f4'"), "expected the .npy header"),
        (npy(header(more="'more': 1, "), bytes(8)), "expected the .npy header"),
        (npy(header(order="True"), bytes(8)), "expected the .npy header"),
        (npy(header(shape="(-2, -1)"), bytes(8)), "expected the .npy header"),
        (npy(header(shape="(2, 1L)"), bytes(8)), "expected the .npy header"),
        (npy(header("<U4"), bytes(16)), "expected the .npy header"),
        (npy(header("|O"), bytes(16)), "expected the .npy header"),
        (npy(header("<f1"), bytes(2)), "expected the .npy header"),
        (npy("[" * 5000), "expected the .npy header"),
        (npy(header(), bytes(7)), "takes 8 bytes, found 7"),
        (npy(header(), bytes(9)), "takes 8 bytes, found 9"),
        (npy(header(shape="(10000000000000,)"), bytes(8)), "takes 40,000,000,000,000 bytes, found 8"),
        (npy(header(shape="(0, 100000000000000000, 100000000000000000)")), "impossible shape"),
    ],
)
def test_a_file_that_lies_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse_array(data, where="test")
    assert message in caught.value.message
