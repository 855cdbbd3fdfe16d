"""How quantization diagnostics are shown: as tables for a terminal, and as one self-contained HTML page.

The numbers are plain data that a bundle's report carries under ``diagnostics``, from whatever version of edgekit made
it. :mod:`edgekit.diagnostics.parse` turns them into records and leaves out what is missing or makes no sense; the
renderers judge nothing and compute nothing but the drawing.
"""

from edgekit.diagnostics.html import page
from edgekit.diagnostics.parse import parse_diagnoses, parse_headline
from edgekit.diagnostics.records import Diagnosis, Headline
from edgekit.diagnostics.text import diagnosis_text

__all__ = ["Diagnosis", "Headline", "diagnosis_text", "page", "parse_diagnoses", "parse_headline"]
