"""From the folded float program to the int8 one: balance, quantize, correct, diagnose, as the recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.calibration import Recipe
from edgekit.config import to_dict
from edgekit.passes import Pass, PassContext, run_passes
from edgekit.passes.correct import AdaptRounding, CorrectBias
from edgekit.passes.diagnose import diagnose
from edgekit.passes.equalize import DropImpliedBounds, EqualizeChannels, SmoothActivations
from edgekit.passes.fold import FoldPixels
from edgekit.passes.quantize import Quantize
from edgekit.passes.samples import CalibrationData
from edgekit.program import Program, Record
from edgekit.targets import QuantizeRules

__all__ = ["Quantized", "finished", "quantize", "without_long_lists"]

# Lists of these belong to the diagnostics, not to the lines of history.
_LONG = frozenset({"tensors", "findings"})
# Images that the diagnosis looks at: each costs six forward passes, and a layer's noise is over all its positions.
_DIAGNOSED = 8


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """An int8 program and what is known of it.

    Attributes:
        program: The int8 program that is exported.
        draft: The same before :func:`finished`; layers are returned to float from here.
        floating: The float program that it is made of, layer by layer: balanced, not yet quantized.
        diagnostics: Plain data; the keys are those of ``docs/json.md``.
    """

    program: Program
    draft: Program
    floating: Program
    diagnostics: Mapping[str, Any]


def quantize(
    program: Program, *, rules: QuantizeRules, recipe: Recipe, data: CalibrationData, context: PassContext
) -> Quantized:
    """Quantizes a folded program by a recipe.

    Args:
        program: Folded: no batch norm, preprocessing inside.
        rules: The target's.
        recipe: What is done.
        data: The calibration images.
        context: For the passes.

    Raises:
        UserError: There is no image, or the program cannot be quantized.
        DataError: A tensor holds NaN or infinity on an image; both are named.
    """
    corrections = recipe.corrections
    balance: list[Pass] = []
    if corrections.equalize != "off":
        balance.append(EqualizeChannels(rules=rules, corrections=corrections, data=data))
    if corrections.smooth:
        balance.append(SmoothActivations(rules=rules, corrections=corrections, data=data))
    balance.append(FoldPixels(rules=rules))
    floating = run_passes(program, balance, context)
    correct: list[Pass] = [Quantize(rules=rules, recipe=recipe, data=data)]
    if corrections.rounding == "adaptive":
        correct.append(AdaptRounding(floating=floating, corrections=corrections, data=data))
    if corrections.bias != "off":
        correct.append(CorrectBias(floating=floating, corrections=corrections, data=data))
    draft = run_passes(floating, correct, context)
    result = finished(draft, context)
    measured = diagnose(floating, draft, data, limit=_DIAGNOSED, progress=context.progress)
    details = next(record.details for record in reversed(result.history) if record.stage == "quantize")
    diagnostics = {
        **to_dict(measured),
        "tensors": details["tensors"],
        "corrections": [line for record in result.history for line in _gains(record)],
        "findings": details["findings"],
    }
    return Quantized(program=result, draft=draft, floating=floating, diagnostics=diagnostics)


def finished(draft: Program, context: PassContext) -> Program:
    """Returns a quantized program in the form that is exported: without what its grids do anyway."""
    return run_passes(draft, [DropImpliedBounds()], context)


def _gains(record: Record) -> list[dict[str, Any]]:
    """What a correction says that it gained, layer by layer."""
    return [{"stage": record.stage, **line} for line in record.details.get("gains", ())]


def without_long_lists(record: Record) -> Mapping[str, Any]:
    """Returns a record's details as the history keeps them: the long lists are in the diagnostics."""
    return {key: value for key, value in record.details.items() if key not in _LONG}
