"""NVIDIA GPUs of this machine, asked of the driver itself: no CUDA package is needed."""

from __future__ import annotations

import ctypes

__all__ = ["gpu_names"]

_NAME_BYTES = 256


def gpu_names() -> tuple[str, ...]:
    """Returns the GPUs that the driver lists, as ``GPU.0 (its name)``; none where there is no driver.

    Source: CUDA Driver API, ``cuInit``, ``cuDeviceGetCount``, ``cuDeviceGet``, ``cuDeviceGetName``.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    names = []
    for index in range(count.value):
        device, text = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
        if driver.cuDeviceGet(ctypes.byref(device), index) == 0:
            driver.cuDeviceGetName(text, _NAME_BYTES, device)
            names.append(f"GPU.{index} ({text.value.decode(errors='replace')})")
    return tuple(names)
