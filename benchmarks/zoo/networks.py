"""Which networks there are, and how each is made: the architecture, seeded weights, settled statistics."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from benchmarks.zoo.pictures import normalized, pictures
from benchmarks.zoo.plain import CRNN, Detector, UNet
from benchmarks.zoo.torchvision_stand_in import torchvision_for_timm

__all__ = ["NETWORKS", "Network", "make", "make_network", "timm_network"]

_SETTLE_BATCHES, _SETTLE_IMAGES = 3, 8
_SETTLE_SEED = 1


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network of the comparison.

    Attributes:
        build: Makes the architecture with the weights of its own initialisation.
        size: (height, width) of its input.
        transformer: Whether NNCF's documentation asks for ``model_type=TRANSFORMER``.
        recurrent: Operators of OpenVINO that its int8 form computes wrongly, so that NNCF is also told to leave them.
    """

    build: Callable[[], nn.Module]
    size: tuple[int, int] = (224, 224)
    transformer: bool = False
    recurrent: tuple[str, ...] = ()


def _timm(name: str) -> nn.Module:
    with torchvision_for_timm():
        import timm
    module: nn.Module = timm.create_model(name, pretrained=False)
    return module


def _from_timm(name: str, *, transformer: bool = False) -> Network:
    return Network(build=partial(_timm, name), transformer=transformer)


NETWORKS: Mapping[str, Network] = {
    "resnet18": _from_timm("resnet18"),
    "resnet50": _from_timm("resnet50"),
    "mobilenetv2": _from_timm("mobilenetv2_100"),
    "mobilenetv3_large": _from_timm("mobilenetv3_large_100"),
    "efficientnet_lite0": _from_timm("efficientnet_lite0"),
    "efficientnet_b0": _from_timm("efficientnet_b0"),
    "regnety_008": _from_timm("regnety_008"),
    "convnext_atto": _from_timm("convnext_atto"),
    "vit_tiny": _from_timm("vit_tiny_patch16_224", transformer=True),
    "densenet121": _from_timm("densenet121"),
    "unet": Network(build=UNet, size=(192, 192)),
    "detector": Network(build=Detector, size=(320, 320)),
    "crnn": Network(build=CRNN, size=(32, 160), recurrent=("LSTMSequence",)),
    **{
        name: _from_timm(name)
        for name in (
            "resnet26d",
            "resnext26ts",
            "seresnet33ts",
            "res2next50",
            "cspresnet50",
            "vovnet39a",
            "mobilenetv1_100",
            "mnasnet_100",
            "tf_efficientnetv2_b0",
            "fbnetc_100",
            "regnety_002",
        )
    },
    "deit_tiny": _from_timm("deit_tiny_patch16_224", transformer=True),
    "poolformer_s12": _from_timm("poolformer_s12"),
}


def make(name: str, *, seed: int = 0) -> nn.Module:
    """Returns a network in evaluation mode; the same weights for the same name, seed and torch.

    Batch norms get drawn scales and shifts and the statistics of a few batches of pictures: fresh ones are the
    identity, which no trained network has. Layer scales, fresh at 1e-5 or so, would switch their branches off, so they
    are drawn too.

    Raises:
        KeyError: No such network.
    """
    return make_network(NETWORKS[name], name, seed=seed)


def timm_network(name: str, *, size: tuple[int, int] = (224, 224)) -> Network:
    """Returns any network of timm, by its name there."""
    return Network(build=partial(_timm, name), size=size)


def make_network(network: Network, name: str, *, seed: int = 0) -> nn.Module:
    """Returns a network in evaluation mode, as :func:`make` does; ``name`` is part of the seed."""
    # Two networks of one architecture (ViT-tiny and DeiT-tiny) must not be the same.
    own = seed + zlib.crc32(name.encode())
    torch.manual_seed(own)
    module = network.build()
    generator = torch.Generator().manual_seed(own)
    with torch.no_grad():
        _draw_scales(module, generator)
        _settle(module, network.size)
    return module.eval().requires_grad_(False)


def _draw_scales(module: nn.Module, generator: torch.Generator) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.uniform_(0.5, 1.5, generator=generator)
            part.bias.normal_(0, 0.2, generator=generator)
            # None averages all batches with equal weight.
            part.reset_running_stats()
            part.momentum = None
    for name, parameter in module.named_parameters():
        if name.endswith((".gamma", "layer_scale1.scale", "layer_scale2.scale")):
            parameter.uniform_(0.1, 0.5, generator=generator)


def _settle(module: nn.Module, size: tuple[int, int]) -> None:
    module.train()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.eval()
    images = normalized(pictures(_SETTLE_BATCHES * _SETTLE_IMAGES, size, seed=_SETTLE_SEED))
    for batch in images.split(_SETTLE_IMAGES):
        module(batch)
