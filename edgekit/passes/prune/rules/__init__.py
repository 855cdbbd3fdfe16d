"""How labels pass each operator: one file per family, one table of them all. What is not here stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from edgekit.passes.prune.flow import Family
from edgekit.passes.prune.rules import (
    convolution,
    elementwise,
    factories,
    joining,
    norm,
    order,
    product,
    recurrent,
    reduction,
    reshaping,
    spatial,
)

__all__ = ["FAMILIES", "TABLE"]

FAMILIES: tuple[Family, ...] = (
    *convolution.FAMILIES,
    *product.FAMILIES,
    *norm.FAMILIES,
    *elementwise.FAMILIES,
    *spatial.FAMILIES,
    *joining.FAMILIES,
    *reshaping.FAMILIES,
    *order.FAMILIES,
    *reduction.FAMILIES,
    *recurrent.FAMILIES,
    *factories.FAMILIES,
)
TABLE: Mapping[Any, Family] = MappingProxyType(
    {operator: family for family in FAMILIES for operator in family.operators}
)
