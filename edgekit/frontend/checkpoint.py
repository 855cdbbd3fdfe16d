"""Checkpoints: finding the weights in a ``torch.save`` file, without running what the file says."""

from __future__ import annotations

import argparse
import collections
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekit.errors import ModelError
from edgekit.frontend.architecture import import_root
from edgekit.frontend.reason import quiet
from edgekit.program import Skipped

__all__ = ["Weights", "find_weights", "fit_weights", "read_checkpoint"]

# Where training scripts keep the weights, in the order in which they are looked for.
_ENTRIES = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "model_ema",
    "state_dict_ema",
    "ema",
)
_MAX_DEPTH = 3
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights that a checkpoint holds.

    Attributes:
        tensors: Name to tensor, on the CPU.
        entry: Path of keys that led to them, such as ``state_dict``; empty for a bare state dict.
        skipped: Other entries of the file that were left alone.
    """

    tensors: dict[str, torch.Tensor]
    entry: str
    skipped: tuple[Skipped, ...]


def read_checkpoint(path: Path, *, allow_pickle: bool, arch_path: Path | None) -> Any:
    """Loads a ``torch.save`` file with its tensors on the CPU.

    By default only tensors and plain containers are accepted (``weights_only=True``): any other pickled object can run
    code while it is being loaded.

    Args:
        path: The file.
        allow_pickle: Load pickled objects too. Runs whatever the file says.
        arch_path: Import root for the classes of pickled objects.

    Raises:
        ModelError: The file needs ``allow_pickle``, or is damaged, or names classes that cannot be imported.
    """
    try:
        with quiet(), torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not allow_pickle:
            raise _refused(path, error) from error
    except Exception as error:  # on damaged data torch's unpickler raises whatever its parts do, up to struct.error
        raise ModelError(
            f"{path}: damaged checkpoint: {_first_line(error)}", hint="copy or save the file again"
        ) from error
    try:
        with import_root(arch_path):
            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle can raise anything
        raise ModelError(
            f"{path}: cannot unpickle: {type(error).__name__}: {_first_line(error)}",
            hint="the classes that it names must be importable: give their folder with --arch-path DIR",
        ) from error


def find_weights(path: Path, loaded: Any) -> Weights:
    """Finds the state dict in what a checkpoint held.

    Raises:
        ModelError: There is none.
    """
    entry: list[str] = []
    skipped: list[Skipped] = []
    found = loaded
    for _ in range(_MAX_DEPTH):
        if isinstance(found, nn.Module):
            found = found.state_dict()
        if not isinstance(found, Mapping):
            break
        tensors = {str(key): value for key, value in found.items() if isinstance(value, torch.Tensor)}
        inner = [key for key in _ENTRIES if isinstance(found.get(key), (Mapping, nn.Module))]
        if not inner and tensors:
            left = [str(key) for key in found if str(key) not in tensors]
            return Weights(tensors=tensors, entry=".".join(entry), skipped=(*skipped, *_left(path, left)))
        if not inner:
            break
        skipped.extend(_left(path, [str(key) for key in found if key != inner[0]]))
        entry.append(inner[0])
        found = found[inner[0]]
    what = (
        f"a {type(loaded).__name__}"
        if not isinstance(loaded, Mapping)
        else f"a dict with the keys {[str(k) for k in loaded][:8]}"
    )
    raise ModelError(
        f"{path}: no weights found: the file holds {what}",
        hint=f"expected a state dict, alone or under a key such as {', '.join(_ENTRIES[:3])}; save with"
        " torch.save(model.state_dict(), 'model.pt')",
    )


def fit_weights(path: Path, network: nn.Module, weights: Weights) -> tuple[str, ...]:
    """Copies the weights into ``network``, undoing the prefixes that wrappers leave in names.

    ``module.`` (DataParallel), ``_orig_mod.`` (torch.compile) and other common first parts (``model.`` of Lightning)
    are taken off as long as the names do not fit without. ``num_batches_tracked`` may be absent on either side.

    Returns:
        The prefixes that were taken off.

    Raises:
        ModelError: Names or shapes differ; lists the first few on each side.
    """
    expected = {name: value for name, value in network.state_dict().items() if isinstance(value, torch.Tensor)}
    found, prefixes = _unwrapped(weights.tensors, set(expected))
    counter = "num_batches_tracked"
    missing = [name for name in expected if name not in found and not name.endswith(counter)]
    surplus = [name for name in found if name not in expected and not name.endswith(counter)]
    shapes = [
        f"{name}: model {tuple(expected[name].shape)}, checkpoint {tuple(value.shape)}"
        for name, value in found.items()
        if name in expected and value.shape != expected[name].shape
    ]
    problems = [
        _listed("in the model but not in the checkpoint", missing),
        _listed("in the checkpoint but not in the model", surplus),
        _listed("of different shape", shapes),
    ]
    if missing or surplus or shapes:
        raise ModelError(
            f"{path}: the weights do not fit the architecture ({len(expected)} tensors expected, {len(found)} found):"
            + "".join(problem for problem in problems if problem),
            hint="check --arch and its arguments (depth, width, number of classes)",
        )
    network.load_state_dict({name: value for name, value in found.items() if name in expected}, strict=False)
    return tuple(prefixes)


def _unwrapped(tensors: dict[str, torch.Tensor], expected: set[str]) -> tuple[dict[str, torch.Tensor], list[str]]:
    prefixes: list[str] = []
    for wrapper in ("_orig_mod.", "module."):
        inside = f".{wrapper}"
        if any(inside in name for name in tensors) and not any(inside in name for name in expected):
            tensors = {name.replace(inside, "."): value for name, value in tensors.items()}
            prefixes.append(wrapper)
    tried, taken = tensors, list(prefixes)
    while tried and not expected & tried.keys():
        prefix = f"{next(iter(tried)).partition('.')[0]}."
        if not all(name.startswith(prefix) for name in tried):
            return tensors, prefixes
        tried = {name[len(prefix) :]: value for name, value in tried.items()}
        taken.append(prefix)
        if prefix in ("module.", "_orig_mod."):
            tensors, prefixes = tried, list(taken)
    return tried, taken


def _harmless() -> list[Any]:
    """Returns classes that training scripts put beside the weights and that cannot run code when loaded."""
    dtypes = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "uint8", "bool")]
    reconstruct: Any = np.ndarray(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    names = [(scalar, "numpy.core.multiarray.scalar"), (reconstruct, "numpy.core.multiarray._reconstruct")]
    return [argparse.Namespace, collections.defaultdict, np.ndarray, np.dtype, scalar, reconstruct, *dtypes, *names]


def _refused(path: Path, error: Exception) -> ModelError:
    names = sorted(set(re.findall(r"GLOBAL ([\w.]+)", str(error))))
    what = f" ({', '.join(names)})" if names else ""
    return ModelError(
        f"{path}: refused: holds pickled objects{what}, not only tensors; a pickle runs code of its own when loaded",
        hint="either save the weights alone where the model was made: torch.save(model.state_dict(), 'weights.pt'), and"
        " compile that with --arch; or, if you trust where the file comes from, add --allow-pickle",
    )


def _left(path: Path, names: list[str]) -> list[Skipped]:
    if not names:
        return []
    return [Skipped(what=f"entries {', '.join(names[:8])}", where=path.name, why="not the weights that were asked for")]


def _listed(title: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = "".join(f"\n    {name}" for name in names[:_SHOWN])
    return f"\n  {len(names)} {title}:{shown}" + ("\n    ..." if len(names) > _SHOWN else "")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
