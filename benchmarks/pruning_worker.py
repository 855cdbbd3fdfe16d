"""The fresh process of one network: ``python -m benchmarks.pruning_worker '<json>'``."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from typing import Any

import torch
from torch import nn

from benchmarks.fresh import answer
from benchmarks.zoo.networks import NETWORKS, make_network, timm_network
from edgekit.errors import EdgekitError, StageError
from edgekit.frontend import load_program
from edgekit.passes import PassContext, run_passes
from edgekit.passes.prune import Prune, PruneOptions, multiply_accumulates
from edgekit.program import Program
from edgekit.progress import SilentProgress

CONTEXT = PassContext(progress=SilentProgress())


def ours(program: Program, keep: float) -> dict[str, Any]:
    """Prunes the exported graph, oracle included."""
    start = time.perf_counter()
    try:
        pruned = run_passes(program, [Prune(options=PruneOptions(keep=keep))], CONTEXT)
    except StageError as error:
        wrong = "changed what" in error.message
        return {"status": "wrong" if wrong else "declined", "reason": error.message}
    seconds = time.perf_counter() - start
    details = pruned.history[-1].details
    return {
        "status": "exact",
        "macs_left": details["macs_left"],
        "difference": details["oracle"],
        "seconds": seconds,
    }


def theirs(module: nn.Module, example: torch.Tensor, keep: float, before: float) -> dict[str, Any]:
    """Prunes the module with Torch-Pruning, as its README shows it."""
    import torch_pruning as tp

    network = copy.deepcopy(module).requires_grad_(True)
    with torch.no_grad():
        shapes = _shapes(network(example))
    last = [part for part in network.modules() if isinstance(part, nn.Linear)][-1:]
    start = time.perf_counter()
    try:
        pruner = tp.pruner.BasePruner(
            network,
            example,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=1 - math.sqrt(keep),
            ignored_layers=last,
        )
        pruner.step()
        seconds = time.perf_counter() - start
        with torch.no_grad():
            found = _shapes(network(example))
    except Exception as error:  # noqa: BLE001 - whatever it raises is its result
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
    if found != shapes:
        return {"status": "failed", "reason": f"outputs of {found} instead of {shapes}"}
    try:
        left = multiply_accumulates(load_program(network.eval(), task=None, example_inputs=(example,))) / before
    except EdgekitError:
        return {"status": "runs", "macs_left": None, "seconds": seconds}
    return {"status": "runs", "macs_left": left, "seconds": seconds}


def _shapes(outputs: Any) -> list[list[int]]:
    items = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    return [list(item.shape) for item in items]


def main() -> None:
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    name = task["network"]
    network = NETWORKS[name] if task["own"] else timm_network(name)
    module = make_network(network, name)
    example = torch.randn(2, 3, *network.size, generator=torch.Generator().manual_seed(0))
    try:
        program = load_program(module, task=None, example_inputs=(example,))
    except EdgekitError as error:
        answer({"edgekit": {"status": "failed", "reason": error.message}, "torch_pruning": {"status": "not tried"}})
        return
    before = multiply_accumulates(program)
    answer({"edgekit": ours(program, task["keep"]), "torch_pruning": theirs(module, example, task["keep"], before)})


if __name__ == "__main__":
    main()
