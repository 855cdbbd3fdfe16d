"""What a model file is, told from its bytes: suffixes lie (``.pt``, ``.pth``, ``.bin`` and ``.ckpt`` hold anything)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from edgekit.errors import ModelError

__all__ = ["Kind", "identify"]

# Source: torch/serialization.py, MAGIC_NUMBER 0x1950a86a20f9469cfc6c pickled with protocol 2 (``torch.save`` before zip
# files).
_LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_HEAD_BYTES = 64
_RE_EXPORT = (
    "save the weights with torch.save(model.state_dict(), 'model.pt'),"
    " or the whole model with torch.export.save(torch.export.export(model, args), 'model.pt2')"
)
# What people hand over by mistake: first bytes, what it is, what to do.
_LOOKALIKES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch the file with: git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, MATLAB)", _RE_EXPORT),
    (b"GGUF", "a GGUF language model", _RE_EXPORT),
    (b"<!DOCTYPE", "a web page, probably a download that asked for a login", "download the file again"),
    (b"<html", "a web page, probably a download that asked for a login", "download the file again"),
    (
        b"<?xml",
        "an XML file, perhaps an engine's description",
        "give the trained PyTorch model, not an engine made from it",
    ),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
)


class Kind(Enum):
    """The kinds of model file that are told apart."""

    EXPORTED = "torch.export archive"
    EXPORTED_OLD = "torch.export archive of torch 2.7 or older"
    TORCHSCRIPT = "TorchScript archive"
    CHECKPOINT = "torch.save file"
    CHECKPOINT_LEGACY = "torch.save file of torch 1.5 or older"
    SAFETENSORS = "safetensors file"
    ONNX = "ONNX file"


def identify(path: Path) -> Kind:
    """Tells what kind of model file ``path`` is, from its content alone; nothing in it is unpickled or run.

    Raises:
        ModelError: The file is missing, unreadable, empty, or not a model.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot read the model file: {error.strerror}", hint="check the path and its permissions"
        ) from error
    if size == 0:
        raise ModelError(f"{path}: the file is empty", hint="save or copy the model again")
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head.startswith(_LEGACY_MAGIC):
        return Kind.CHECKPOINT_LEGACY
    if _is_safetensors(path, head, size):
        return Kind.SAFETENSORS
    if _is_onnx(path, size):
        return Kind.ONNX
    raise _not_a_model(path, head)


def _zip_kind(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise ModelError(
            f"{path}: a damaged zip archive: {error}", hint="the file is cut or was changed; copy or save it again"
        ) from error
    inner = {name.partition("/")[2] for name in names}
    if "archive_format" in inner or any(name.startswith("models/") for name in inner):
        return Kind.EXPORTED
    if "serialized_exported_program.json" in names:
        return Kind.EXPORTED_OLD
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return Kind.TORCHSCRIPT
    if "data.pkl" in inner:
        return Kind.CHECKPOINT
    if any(name.startswith("data/aotinductor/") for name in inner):
        raise ModelError(
            f"{path}: refused: holds a compiled library (AOTInductor), machine code that nobody can check",
            hint="save the exported program instead: torch.export.save(torch.export.export(model, args), 'model.pt2')",
        )
    shown = ", ".join(sorted(names)[:5])
    raise ModelError(f"{path}: a zip archive, but not a model: it holds {shown or 'nothing'}", hint=_RE_EXPORT)


def _is_safetensors(path: Path, head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or not 2 <= length <= min(size - 8, 100_000_000):
        return False
    with path.open("rb") as file:
        file.seek(8)
        try:
            return isinstance(json.loads(file.read(length)), dict)
        except ValueError:
            return False


def _is_onnx(path: Path, size: int) -> bool:
    """Walks the top-level protobuf fields of an ONNX ``ModelProto``.

    Source: onnx/onnx.proto, message ModelProto: ir_version = 1, producer.. = 2..6, graph = 7, opset_import = 8,
    metadata_props = 14, training_info = 20, functions = 25, configuration = 26.
    """
    lengths, varints = {2, 3, 4, 6, 7, 8, 14, 20, 25, 26}, {1, 5}
    seen: set[int] = set()
    with path.open("rb") as file:
        while file.tell() < size:
            tag = _varint(file.read(1), file.read)
            field, wire = (-1, -1) if tag is None else (tag >> 3, tag & 7)
            value = _varint(file.read(1), file.read)
            if value is None or not ((wire == 2 and field in lengths) or (wire == 0 and field in varints)):
                return False
            if wire == 2:
                if file.tell() + value > size:
                    return False
                file.seek(value, 1)
            seen.add(field)
    return {1, 7} <= seen


def _varint(first: bytes, read: Callable[[int], bytes]) -> int | None:
    value, shift, byte = 0, 0, first
    while byte:
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
        if shift > 63:
            return None
        byte = read(1)
    return None


def _not_a_model(path: Path, head: bytes) -> ModelError:
    for start, what, hint in _LOOKALIKES:
        if head.lower().startswith(start.lower()):
            return ModelError(f"{path}: not a model: {what}", hint=hint)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return ModelError(
            f"{path}: a bare pickle, not made by torch.save; a pickle runs code when it is loaded, so it is not opened",
            hint=_RE_EXPORT,
        )
    return ModelError(f"{path}: not a model: first bytes {head[:16]!r}", hint=_RE_EXPORT)
