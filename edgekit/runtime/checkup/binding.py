"""The way to CUDA's driver, which every NVIDIA machine needs."""

from __future__ import annotations

from edgekit.runtime.checkup import Finding
from edgekit.runtime.checkup.software import Software
from edgekit.runtime.checkup.versions import numbers

__all__ = ["binding_finding"]


def binding_finding(software: Software) -> Finding:
    """Says which package calls the driver, and whether it is one for this driver."""
    binding = software.binding
    if binding is None:
        return Finding(
            topic="CUDA binding",
            found="neither cuda-bindings nor pycuda is installed",
            state="problem",
            next="for a way to the GPU: python -m pip install 'edgekit[tensorrt]'",
        )
    found = f"{binding.name} {binding.version}"
    if not software.gpus:
        return Finding(
            topic="CUDA binding",
            found=f"{found}; {software.gpu_problem}",
            state="problem",
            next="the driver answers no call: check that it is loaded (nvidia-smi; in a container: the NVIDIA runtime)",
        )
    driver = numbers(software.gpus[0].driver, 1)
    mine = numbers(binding.version, 1)
    # Of cuda-bindings alone the number is CUDA's; a newer one calls what the driver does not have.
    if binding.name == "cuda-bindings" and mine and driver and mine > driver:
        return Finding(
            topic="CUDA binding",
            found=f"{found}, newer than the driver's CUDA {software.gpus[0].driver}",
            state="problem",
            next=f"a newer driver, or for this one: python -m pip install 'cuda-bindings<{driver[0] + 1}'",
        )
    return Finding(topic="CUDA binding", found=found, state="fits")
