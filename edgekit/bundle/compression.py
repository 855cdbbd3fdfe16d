"""Engine parts as zlib streams: made where that pays, and unpacked within bounds that are known beforehand.

The zip around them stays uncompressed, so its hashes cover the stream as it is stored: a damaged one is refused before
a byte of it is unpacked.

Source: RFC 1950 (zlib) and RFC 1951 (deflate).
"""

from __future__ import annotations

import zlib

from edgekit.bundle.structure import DAMAGED, MAX_BUNDLE_BYTES
from edgekit.errors import BundleError

__all__ = ["LARGEST_RATIO", "compressed", "decompressed", "largest_plain_bytes"]

LARGEST_RATIO = 64
"""A stream may unpack to at most this many times its size. Deflate itself goes to 1032: a small file could fill a
device's memory. What would compress further than this is stored plain."""
_LEVEL = 6


def compressed(data: bytes) -> bytes | None:
    """Returns the content as a zlib stream, or None where that is no smaller, or beyond what a reader unpacks.

    Equal content gives equal bytes with one version of the zlib library (``zlib.ZLIB_RUNTIME_VERSION``).
    """
    packed = zlib.compress(data, _LEVEL)
    return packed if len(packed) < len(data) <= largest_plain_bytes(len(packed)) else None


def largest_plain_bytes(stored_bytes: int) -> int:
    """Returns the largest plain size that a stream of this many bytes may declare."""
    return min(MAX_BUNDLE_BYTES, LARGEST_RATIO * stored_bytes)


def decompressed(data: bytes, *, size_bytes: int, where: str) -> bytes:
    """Unpacks a zlib stream; never makes more than the declared number of bytes.

    Args:
        data: The stream, whose hash was found right.
        size_bytes: What the manifest says that it unpacks to; at least 1.
        where: Its place, for messages.

    Raises:
        BundleError: It is no zlib stream, is cut, unpacks to another size, or something follows it.

    >>> decompressed(zlib.compress(b"abc"), size_bytes=3, where="example")
    b'abc'
    """
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, size_bytes)
        # The stream's end and checksum come after its last byte of content; one byte more of that is one too many.
        beyond = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise BundleError(f"{where}: not a valid zlib stream: {error}", hint=DAMAGED) from error
    if beyond:
        raise BundleError(f"{where}: unpacks to more than the {size_bytes:,} bytes that it should", hint=DAMAGED)
    if not stream.eof:
        raise BundleError(f"{where}: the zlib stream is cut: its end is missing", hint=DAMAGED)
    if stream.unused_data:
        raise BundleError(f"{where}: {len(stream.unused_data):,} bytes follow the zlib stream", hint=DAMAGED)
    if len(plain) != size_bytes:
        raise BundleError(f"{where}: unpacks to {len(plain):,} bytes, expected {size_bytes:,}", hint=DAMAGED)
    return plain
