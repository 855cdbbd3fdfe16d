"""One door for every kind of model: a file or a live module in, a :class:`~edgekit.program.Program` out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from edgekit.errors import ModelError
from edgekit.frontend.architecture import build_architecture
from edgekit.frontend.archive import load_exported
from edgekit.frontend.checkpoint import Weights, find_weights, fit_weights, read_checkpoint
from edgekit.frontend.export_module import Source, export_module
from edgekit.frontend.kind import Kind, identify
from edgekit.frontend.safetensors import read_safetensors
from edgekit.frontend.torchscript import convert_script, load_script
from edgekit.program import Program, Record, Skipped
from edgekit.runtime.tasks.base import Spec

__all__ = ["load_program"]

_STAGE = "frontend.load"
_NEED_ARCH = (
    "say which network the weights belong to: --arch package.module:callable"
    " (with --arch-path DIR and --arch-arg KEY=VALUE where needed)"
)
_NEED_INPUT = "give a task with an [input] table (--task), or example_inputs=(tensor, ...)"


def load_program(
    model: Path | nn.Module,
    *,
    task: Spec | None,
    arch: str | None = None,
    arch_path: Path | None = None,
    arch_args: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
    example_inputs: tuple[torch.Tensor, ...] | None = None,
) -> Program:
    """Loads a model of any supported kind as a graph of ATen operators; what a file is, its content decides.

    Args:
        model: A live module (left as it is), or the path of a ``torch.export`` archive, TorchScript archive, checkpoint
            or safetensors file.
        task: The task spec; its ``[input]`` table gives the size of the example input. A single input is then called
            ``image``.
        arch: ``package.module:callable`` that builds the network of a checkpoint.
        arch_path: Import root for ``arch`` and for pickled modules.
        arch_args: Keyword arguments for ``arch``; each value is read as a Python literal where it is one.
        allow_pickle: Load checkpoints that hold pickled objects; this runs code that the file chooses.
        example_inputs: Inputs for one small batch, for models without a task or with several inputs. Float32 NCHW for
            images.

    Raises:
        ModelError: The model cannot be read, is unsafe, does not fit ``arch``, or cannot be exported.
        StageError: The exported graph answers differently from the model.
    """
    if isinstance(model, nn.Module):
        return _from_module(model, type(model).__name__, task, example_inputs, ())
    kind = identify(model)
    if kind is Kind.ONNX:
        raise ModelError(
            f"{model}: an ONNX file, which edgekit does not read yet",
            hint="give the PyTorch model that it was made from (.pt2, or a checkpoint with --arch)",
        )
    if kind in (Kind.EXPORTED, Kind.EXPORTED_OLD, Kind.TORCHSCRIPT) and arch is not None:
        raise ModelError(
            f"{model}: a {kind.value} holds its own network; --arch goes with checkpoints", hint="leave --arch out"
        )
    if kind in (Kind.EXPORTED, Kind.EXPORTED_OLD):
        loaded = load_exported(model, old=kind is Kind.EXPORTED_OLD)
        return _from_exported(model, loaded.exported, loaded.skipped, task, example_inputs)
    if kind is Kind.TORCHSCRIPT:
        return _from_script(model, task, example_inputs)
    return _from_checkpoint(model, kind, task, arch, arch_path, arch_args, allow_pickle, example_inputs)


def _from_module(
    module: nn.Module,
    name: str,
    task: Spec | None,
    example_inputs: tuple[torch.Tensor, ...] | None,
    records: tuple[Record, ...],
) -> Program:
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{name}: a live TorchScript module", hint="save it and give the file: module.save('model.pt')"
        )
    inputs = _task_inputs(task, example_inputs)
    if inputs is None:
        raise ModelError(f"{name}: the size of the model's input is not known", hint=_NEED_INPUT)
    return export_module(Source(module=module, inputs=inputs, name=name, records=records), task=task)


def _from_exported(
    path: Path,
    exported: ExportedProgram,
    skipped: tuple[Skipped, ...],
    task: Spec | None,
    example_inputs: tuple[torch.Tensor, ...] | None,
) -> Program:
    values = [
        node.meta["val"]
        for node in exported.graph.nodes
        if node.op == "placeholder" and node.name in exported.graph_signature.user_inputs
    ]
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        raise ModelError(
            f"{path}: the exported model takes something else than tensors",
            hint="export it with tensors only as inputs: torch.export.export(model, (tensor, ...))",
        )
    if exported.call_spec.in_spec is not None and exported.call_spec.in_spec.child(1).num_leaves:
        raise ModelError(
            f"{path}: the exported model takes keyword arguments", hint="export it with positional inputs only"
        )
    shapes = [tuple(size if isinstance(size, int) else None for size in value.shape) for value in values]
    dynamic = all(shape[:1] == (None,) for shape in shapes)
    inputs = _task_inputs(task, example_inputs)
    if inputs is None:
        inputs = tuple(_zeros(path, value, shape) for value, shape in zip(values, shapes, strict=True))
    elif not dynamic and example_inputs is None:
        # The task gives one image; the export may be for a fixed batch of several.
        inputs = tuple(
            value.expand(shape[0] or 1, *value.shape[1:]) for value, shape in zip(inputs, shapes, strict=False)
        )
    _check_shapes(path, inputs, shapes)
    module = exported.module(check_guards=False)
    record = Record(stage=_STAGE, summary=f"read {path.name}: a {Kind.EXPORTED.value}", skipped=skipped)
    source = Source(module=module, inputs=inputs, name=path.stem, per_batch=not dynamic, records=(record,))
    return export_module(source, task=task)


def _from_script(path: Path, task: Spec | None, example_inputs: tuple[torch.Tensor, ...] | None) -> Program:
    inputs = _task_inputs(task, example_inputs)
    if inputs is None:
        raise ModelError(f"{path}: the size of the model's input is not known", hint=_NEED_INPUT)
    script = load_script(path)
    graph = convert_script(path, script, inputs)
    record = Record(stage=_STAGE, summary=f"read {path.name}: a {Kind.TORCHSCRIPT.value}, converted to ATen operators")
    source = Source(module=graph, inputs=inputs, name=path.stem, reference=script, records=(record,))
    return export_module(source, task=task)


def _from_checkpoint(
    path: Path,
    kind: Kind,
    task: Spec | None,
    arch: str | None,
    arch_path: Path | None,
    arch_args: Mapping[str, str] | None,
    allow_pickle: bool,
    example_inputs: tuple[torch.Tensor, ...] | None,
) -> Program:
    loaded = (
        read_safetensors(path)
        if kind is Kind.SAFETENSORS
        else read_checkpoint(path, allow_pickle=allow_pickle, arch_path=arch_path)
    )
    if arch is None:
        whole = _whole_module(loaded)
        if whole is None:
            weights = find_weights(path, loaded)
            shown = ", ".join(list(weights.tensors)[:3])
            raise ModelError(
                f"{path}: holds weights only ({len(weights.tensors)} tensors: {shown}, ...)", hint=_NEED_ARCH
            )
        record = Record(stage=_STAGE, summary=f"read {path.name}: a pickled {type(whole).__name__}")
        return _from_module(whole, path.stem, task, example_inputs, (record,))
    weights = find_weights(path, loaded)
    network = build_architecture(arch, path=arch_path, args={} if arch_args is None else arch_args)
    prefixes = fit_weights(path, network, weights)
    return _from_module(
        network, path.stem, task, example_inputs, (_checkpoint_record(path, kind, arch, weights, prefixes),)
    )


def _checkpoint_record(path: Path, kind: Kind, arch: str, weights: Weights, prefixes: tuple[str, ...]) -> Record:
    where = f" under '{weights.entry}'" if weights.entry else ""
    off = f", prefixes {' '.join(prefixes)} taken off" if prefixes else ""
    summary = f"read {path.name}: a {kind.value}, {len(weights.tensors)} tensors{where} into {arch}{off}"
    return Record(stage=_STAGE, summary=summary, changed=len(weights.tensors), skipped=weights.skipped)


def _whole_module(loaded: object) -> nn.Module | None:
    if isinstance(loaded, nn.Module):
        return loaded
    inside = [value for value in loaded.values() if isinstance(value, nn.Module)] if isinstance(loaded, Mapping) else []
    return inside[0] if inside else None


def _task_inputs(task: Spec | None, example_inputs: tuple[torch.Tensor, ...] | None) -> tuple[torch.Tensor, ...] | None:
    """Returns example inputs: those given, else one image of the task's size, else None."""
    if example_inputs is not None:
        return example_inputs
    if task is None:
        return None
    generator = torch.Generator().manual_seed(0)
    return (torch.randn((1, task.input.channels, *task.input.size), generator=generator),)


def _zeros(path: Path, value: torch.Tensor, shape: tuple[int | None, ...]) -> torch.Tensor:
    if None in shape[1:]:
        raise ModelError(
            f"{path}: the model takes images of any size, so the size to compile for is not known", hint=_NEED_INPUT
        )
    return torch.zeros([1 if size is None else size for size in shape], dtype=value.dtype)


def _check_shapes(path: Path, inputs: tuple[torch.Tensor, ...], shapes: list[tuple[int | None, ...]]) -> None:
    fits = len(inputs) == len(shapes) and all(
        value.dim() == len(shape) and all(size in (None, mine) for size, mine in zip(shape, value.shape, strict=True))
        for value, shape in zip(inputs, shapes, strict=True)
    )
    if not fits:
        wanted = ", ".join("x".join("any" if size is None else str(size) for size in shape) for shape in shapes)
        given = ", ".join("x".join(map(str, value.shape)) for value in inputs)
        raise ModelError(
            f"{path}: was exported for inputs of {wanted}, but the task or the example inputs give {given}",
            hint="set size and channels in the task's [input] table to what the model was exported for",
        )
