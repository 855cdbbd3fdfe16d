"""TorchScript archives: loaded without pickle, checked for file access, and converted where torch can.

``torch.jit.load`` does not run Python pickles: its own unpickler knows tensors, plain values and the classes that the
archive's ``code/`` defines. It compiles that code and runs a module's ``__setstate__``, as TorchScript, whose operators
are the dispatcher's and a few of its own. Those that reach files or libraries are refused here before the archive is
loaded.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import torch
from torch import fx, nn

from edgekit.errors import ModelError
from edgekit.frontend.interface import flat_graph
from edgekit.frontend.reason import quiet, short_reason

__all__ = ["convert_script", "load_script"]

# How TorchScript's printed code calls what can touch files, and operators or classes from outside torch.
_SUSPECT = re.compile(
    r"\b(torch\.save|torch\.from_file|ops\.(?!prim\b|aten\b|prims\b)\w+|__torch__\.torch\.classes\.\w+)"
)
_RE_EXPORT = (
    "export the Python model that it was made from instead: "
    "torch.export.save(torch.export.export(model.eval(), (torch.randn(1, 3, 224, 224),)), 'model.pt2')"
)


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Loads a TorchScript archive onto the CPU, in inference mode.

    Raises:
        ModelError: Its code reaches files, custom operators or custom classes, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".py"):
                    found = _SUSPECT.search(archive.read(name).decode("utf-8", errors="replace"))
                    if found:
                        raise ModelError(
                            f"{path}: refused: its code ({name}) uses {found[0]}, which is no plain PyTorch operator",
                            hint=_RE_EXPORT,
                        )
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise ModelError(f"{path}: damaged archive: {error}", hint="copy or save the file again") from error
    try:
        with quiet():
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # torch raises RuntimeError and its own C++ types
        raise ModelError(
            f"{path}: torch {torch.__version__} cannot load this TorchScript: {short_reason(error)}", hint=_RE_EXPORT
        ) from error
    return module.eval()  # type: ignore[no-any-return]


def convert_script(path: Path, module: torch.jit.ScriptModule, inputs: tuple[torch.Tensor, ...]) -> fx.GraphModule:
    """Converts TorchScript into a graph of ATen operators for inputs of this size, with its parameters trainable.

    Raises:
        ModelError: torch cannot convert it.
    """
    # Private, but torch.export's own error message sends users there.
    from torch._export.converter import TS2EPConverter

    try:
        with quiet(), torch.no_grad():
            exported = TS2EPConverter(module, inputs).convert()
            graph, _ = flat_graph(exported, single_input=None)
    except Exception as error:  # the converter raises anything for what it does not know
        raise ModelError(
            f"{path}: torch cannot convert this TorchScript: {short_reason(error)}", hint=_RE_EXPORT
        ) from error
    # The converter makes buffers of parameters.
    for name, _ in module.named_parameters():
        owner_name, _, attribute = name.rpartition(".")
        owner = graph.get_submodule(owner_name) if _has(graph, owner_name) else None
        value = None if owner is None else getattr(owner, attribute, None)
        if owner is not None and isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
            delattr(owner, attribute)
            owner.register_parameter(attribute, nn.Parameter(value.detach().clone()))
    return graph


def _has(module: nn.Module, name: str) -> bool:
    try:
        module.get_submodule(name)
    except AttributeError:
        return False
    return True
