"""The fresh process that makes NNCF's int8 models: ``python -m benchmarks.nncf_build '<json>'``.

NNCF as its documentation shows it for a torch module: ``ov.convert_model``, then ``nncf.quantize``, for each of its two
presets, on the same images that edgekit calibrates on. Each model is saved twice: taking normalized float NCHW, and
taking the raw uint8 image as edgekit's engine does, with OpenVINO's own ``PrePostProcessor`` in front.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino.preprocess import ColorFormat, PrePostProcessor
from torch import nn

from benchmarks.cifar import float_module, float_pixels, read_images, read_spec
from benchmarks.fresh import answer
from edgekit.data import choose, iterate

__all__ = ["PRESETS", "calibration_pixels", "convert", "quantize"]

PRESETS = ("performance", "mixed")


def calibration_pixels(data: Path, *, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields the calibration images one by one, (1, 3, 32, 32) float32: those that edgekit takes with this seed."""
    spec = read_spec()
    for _, frame in iterate(choose(read_images(data), samples, sampling="stratified", seed=seed), spec.input):
        yield float_pixels(frame)


def convert(module: nn.Module, shape: tuple[int, ...]) -> ov.Model:
    """Converts a torch module for inputs of one shape: the module route, as NNCF's documentation shows it."""
    model = ov.convert_model(module, example_input=torch.zeros(shape))
    model.reshape(list(shape))
    return model


def quantize(
    model: ov.Model,
    images: Sequence[Any],
    preset: str,
    *,
    transformer: bool = False,
    transform: Callable[[Any], np.ndarray] | None = None,
    full_bias_correction: bool = False,
    ignored_types: Sequence[str] = (),
) -> ov.Model:
    """Quantizes with NNCF's defaults and the given preset.

    Args:
        model: From :func:`convert`; it is changed.
        images: Inputs, or what ``transform`` makes them of.
        preset: One of :data:`PRESETS`.
        transformer: Give ``model_type=TRANSFORMER``, as NNCF's documentation recommends for transformers.
        transform: From an item of ``images`` to an input.
        full_bias_correction: Use NNCF's slower, more accurate bias correction.
        ignored_types: OpenVINO operators that stay float.
    """
    import nncf

    return nncf.quantize(
        model,
        nncf.Dataset(images, transform),
        preset=nncf.QuantizationPreset(preset),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        fast_bias_correction=not full_bias_correction,
        ignored_scope=nncf.IgnoredScope(types=list(ignored_types)) if ignored_types else None,
        subset_size=len(images),
    )


def with_preprocessing(model: ov.Model) -> ov.Model:
    """Puts the arithmetic from a raw uint8 BGR image (1, H, W, 3) in front of a model."""
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_color_format(ColorFormat.BGR)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    image = steps.input().preprocess().convert_element_type(ov.Type.f32).convert_color(ColorFormat.RGB)
    image.mean([255 * value for value in (0.485, 0.456, 0.406)]).scale([255 * value for value in (0.229, 0.224, 0.225)])
    return steps.build()


def main(task: dict[str, Any]) -> None:
    checkpoint, work = Path(task["checkpoint"]), Path(task["work"])
    images = list(calibration_pixels(Path(task["data"]), samples=task["samples"], seed=task["seed"]))
    names = []
    module, shape = float_module(checkpoint), (1, 3, 32, 32)
    ov.save_model(convert(module, shape), work / "float.xml", compress_to_fp16=False)
    for preset in PRESETS:
        model = quantize(convert(module, shape), images, preset)
        ov.save_model(model, work / f"nncf-{preset}.xml", compress_to_fp16=False)
        ov.save_model(with_preprocessing(model), work / f"nncf-{preset}-uint8.xml", compress_to_fp16=False)
        names += [f"nncf-{preset}", f"nncf-{preset}-uint8"]
    answer({"models": ["float", *names]})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
