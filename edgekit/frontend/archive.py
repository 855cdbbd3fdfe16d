"""``.pt2`` archives: validated record by record and written anew, before ``torch.export.load`` sees them.

``torch.export.load`` unpickles parts of the archive without asking and evaluates others as Python. So the file on disk
never
reaches it: its records are checked here, and a clean archive is made of them in memory that holds nothing but raw
tensors, tensors pickled by this process, and a validated graph. What is not understood is refused.

Source: torch 2.13, torch/export/pt2_archive/_package.py (load_pt2, _load_state_dict, _load_constants),
torch/export/__init__.py (load, the path for torch 2.7 and older).
"""

from __future__ import annotations

import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from edgekit.errors import ModelError
from edgekit.frontend.archive_graph import checked_graph, checked_payload
from edgekit.frontend.reason import quiet, short_reason
from edgekit.program import Skipped

__all__ = ["Loaded", "load_exported"]

_UNTRUSTED = "the file was changed or made by something else than torch.export.save; get it from its source again"
_RE_EXPORT = "export again with this torch: torch.export.save(torch.export.export(model, args), 'model.pt2')"
_PLAIN = (
    "archive_format",
    "archive_version",
    "byteorder",
    ".data/version",
    ".data/serialization_id",
    ".format_version",
    "version",
)
_GRAPH = "models/model.json"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_PICKLES = ("data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt")
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_OLD_GRAPH = "serialized_exported_program.json"
_OLD_PICKLES = ("serialized_state_dict.pt", "serialized_constants.pt", "serialized_example_inputs.pt")
_SAFE_NAME = re.compile(r"[\w.\-/ +]+")
# What other tools put into the same container, and why it is not opened.
_REFUSED = (
    ("data/constants/custom_obj_", "a custom (TorchBind) object, which runs code when it is loaded"),
    ("data/constants/opaque_obj_", "a pickled Python object, which runs code when it is loaded"),
    ("data/aotinductor/", "a compiled library (AOTInductor), which is machine code that nobody can check"),
    ("data/executorch/", "an ExecuTorch program"),
    ("models/", "a second model; expected one, named 'model'"),
)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An exported program from a file, and what was left out of it.

    Attributes:
        exported: The program, on the CPU.
        skipped: Records that were left out, and devices that were replaced.
    """

    exported: ExportedProgram
    skipped: tuple[Skipped, ...]


def load_exported(path: Path, *, old: bool) -> Loaded:
    """Validates and loads a ``torch.export`` archive.

    Args:
        path: The file. It is read once; what is validated is what is loaded.
        old: The layout of torch 2.7 and older.

    Raises:
        ModelError: The archive is damaged, could run code, needs something that is not supported, or is of another
            version.
    """
    skipped: list[Skipped] = []
    records = _records(path, old=old)
    clean = _clean_old(path, records, skipped) if old else _clean(path, records, skipped)
    try:
        with quiet():
            exported = torch.export.load(clean)
    except Exception as error:  # torch raises anything from AssertionError to SerializeError here
        raise ModelError(
            f"{path}: torch {torch.__version__} cannot read this archive: {short_reason(error)}", hint=_RE_EXPORT
        ) from error
    return Loaded(exported=exported, skipped=tuple(skipped))


def _records(path: Path, *, old: bool) -> dict[str, bytes]:
    """Reads every record of a zip in which nothing is compressed, hidden, doubled or outside its folder."""
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            _check_structure(path, infos, len(data))
            found = {info.filename: archive.read(info) for info in infos}
    except OSError as error:
        raise ModelError(f"{path}: cannot read: {error.strerror}") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: damaged archive: {error}", hint=_UNTRUSTED) from error
    if old:
        return found
    roots = {name.partition("/")[0] for name in found}
    if len(roots) != 1:
        raise ModelError(
            f"{path}: damaged archive: expected one top folder, found {sorted(roots)[:5]}", hint=_UNTRUSTED
        )
    return {name.partition("/")[2]: content for name, content in found.items()}


def _check_structure(path: Path, infos: list[zipfile.ZipInfo], size: int) -> None:
    names = [info.filename for info in infos]
    for info in infos:
        name = info.filename
        problem = None
        if names.count(name) > 1:
            problem = "stands twice in the archive"
        elif (
            not _SAFE_NAME.fullmatch(name)
            or name.startswith("/")
            or ".." in name.split("/")
            or info.orig_filename != name
        ):
            problem = "is not a plain relative name"
        elif info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            problem = "is compressed, which torch.export.save never does"
        elif info.flag_bits & 0x1:
            problem = "is encrypted"
        if problem is not None:
            raise ModelError(f"{path}: refused: record {name[:80]!r} {problem}", hint=_UNTRUSTED)
    if sum(info.file_size for info in infos) > size:
        raise ModelError(
            f"{path}: refused: the records overlap: together they are larger than the file", hint=_UNTRUSTED
        )


def _clean(path: Path, records: dict[str, bytes], skipped: list[Skipped]) -> io.BytesIO:
    if _GRAPH not in records:
        raise ModelError(f"{path}: no exported model in the archive (no {_GRAPH})", hint=_RE_EXPORT)
    extra: list[str] = []
    moved: list[str] = []
    clean: dict[str, bytes] = {}
    for name, content in records.items():
        where = f"{path}: {name}"
        if name == _GRAPH:
            clean[name] = _as_json(checked_graph, content, where, moved)
        elif name in _CONFIGS:
            clean[name] = _as_json(checked_payload, content, where, moved)
        elif name in _PICKLES:
            clean[name] = _clean_pickle(content, where)
        elif name in _PLAIN:
            if name in ("archive_format", "archive_version"):
                clean[name] = content
        elif name.startswith("extra/"):
            extra.append(name)
        elif not _TENSOR.fullmatch(name):
            what = next((what for start, what in _REFUSED if name.startswith(start)), "an unknown record")
            raise ModelError(f"{path}: refused: {name} is {what}", hint=_RE_EXPORT)
    if records.get("byteorder", b"little") != b"little":
        raise ModelError(f"{path}: was saved on a big-endian machine", hint=_RE_EXPORT)
    _clean_tensors(path, records, clean)
    if extra:
        skipped.append(
            Skipped(what=f"extra files {', '.join(extra[:8])}", where=path.name, why="not part of the model")
        )
    if moved:
        skipped.append(Skipped(what="device", where=path.name, why="exported on an accelerator; moved to the CPU"))
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    for name, content in clean.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    buffer.seek(0)
    return buffer


def _clean_tensors(path: Path, records: dict[str, bytes], clean: dict[str, bytes]) -> None:
    """Copies the tensors' records: raw ones as they are, pickled ones (tensor subclasses) checked and pickled anew."""
    for config in _CONFIGS:
        for entry in json.loads(clean[config])["config"].values() if config in clean else ():
            name = f"{config.rpartition('/')[0]}/{entry['path_name']}"
            if name not in records:
                raise ModelError(f"{path}: damaged archive: no record {name}", hint=_UNTRUSTED)
            clean[name] = _clean_pickle(records[name], f"{path}: {name}") if entry.get("use_pickle") else records[name]


def _clean_old(path: Path, records: dict[str, bytes], skipped: list[Skipped]) -> io.BytesIO:
    moved: list[str] = []
    clean: dict[str, bytes] = {}
    for name, content in records.items():
        where = f"{path}: {name}"
        if name == _OLD_GRAPH:
            clean[name] = _as_json(checked_graph, content, where, moved)
        elif name in _OLD_PICKLES:
            clean[name] = _clean_pickle(content, where) if content else content
        elif name == "version":
            clean[name] = content
        elif name.startswith("extra_files/"):
            skipped.append(Skipped(what=name, where=path.name, why="not part of the model"))
        else:
            raise ModelError(f"{path}: refused: {name} is an unknown record", hint=_RE_EXPORT)
    missing = sorted({_OLD_GRAPH, "version", *_OLD_PICKLES} - clean.keys())
    if missing:
        raise ModelError(f"{path}: damaged archive: no record {', '.join(missing)}", hint=_RE_EXPORT)
    if moved:
        skipped.append(Skipped(what="device", where=path.name, why="exported on an accelerator; moved to the CPU"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in clean.items():
            archive.writestr(name, content)
    buffer.seek(0)
    return buffer


def _as_json(check: Callable[..., tuple[dict[str, Any], bool]], content: bytes, where: str, moved: list[str]) -> bytes:
    data, was_moved = check(content, where=where)
    if was_moved:
        moved.append(where)
    return json.dumps(data).encode()


def _clean_pickle(content: bytes, where: str) -> bytes:
    """Loads a pickled record with ``weights_only=True`` and pickles the result anew."""
    try:
        with quiet():
            value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        names = sorted(set(re.findall(r"GLOBAL ([\w.]+)", str(error))))
        what = f" ({', '.join(names)})" if names else ""
        raise ModelError(
            f"{where}: refused: holds pickled objects{what}, and torch.export.load would run what they say",
            hint="export again with tensors only as inputs, parameters and constants",
        ) from error
    except Exception as error:  # on damaged data torch's unpickler raises whatever its parts do, up to struct.error
        raise ModelError(f"{where}: damaged record: {short_reason(error)}", hint=_UNTRUSTED) from error
    _only_tensors(value, where)
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _only_tensors(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _only_tensors(item, where)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _only_tensors(item, where)
    elif type(value) not in (torch.Tensor, torch.nn.Parameter, int, float, bool, str, type(None)):
        raise ModelError(f"{where}: refused: holds a {type(value).__name__}", hint="export again with tensors only")
