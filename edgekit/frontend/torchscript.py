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
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram

from edgekit.errors import ModelError
from edgekit.frontend.agreement import random_like
from edgekit.frontend.interface import flat_graph
from edgekit.frontend.reason import quiet, short_reason

__all__ = ["convert_script", "load_script"]

# How TorchScript's printed code calls what can touch files, and operators or classes from outside torch.
_SUSPECT = re.compile(
    r"\b((?:torch|ops\.aten)\.(?:save|from_file)|ops\.(?!prim\b|aten\b|prims\b)\w+|__torch__\.torch\.classes\.\w+)"
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

    class Converter(TS2EPConverter):
        """Declares the batch alone dynamic; the original also does so for height and width, and then often fails."""

        def __init__(self, args: tuple[torch.Tensor, ...], shapes: tuple[dict[int, Any], ...] | None) -> None:
            super().__init__(module, args)
            self.shapes = shapes

        def retrace_as_exported_program(self, gm: fx.GraphModule, name_to_constant: dict[str, Any]) -> ExportedProgram:
            return torch.export.export(gm, self.sample_args, dynamic_shapes=self.shapes, strict=False)

    def converted(args: tuple[torch.Tensor, ...], shapes: tuple[dict[int, Any], ...] | None) -> fx.GraphModule:
        with quiet(), torch.no_grad():
            return flat_graph(Converter(args, shapes).convert(), single_input=None)[0]

    try:
        graph = converted(random_like(inputs, 2, seed=0), tuple({0: Dim.DYNAMIC} for _ in inputs))
    except Exception:  # noqa: BLE001 - the converter raises anything; a graph for one batch is the next best
        try:
            graph = converted(inputs, None)
        except Exception as error:
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
