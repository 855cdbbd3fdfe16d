"""Markup that escapes by construction: text becomes markup here and nowhere else.

A name in a report can be anything. So the drawing and the page are made of :func:`element`, which escapes every text
and every attribute; only what was made by it passes as it is.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["Attributes", "Content", "Markup", "coordinate", "element", "joined", "void"]

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Markup:
    """Finished markup, or text of edgekit's own (style, script) that must not be escaped."""

    text: str


Content = str | Markup
Attributes = Mapping[str, str]


def element(tag: str, attributes: Attributes = _NONE, *content: Content) -> Markup:
    """Returns an element with its content.

    >>> element("p", {"title": 'a "b"'}, "1 < 2 ", element("b", {}, "&")).text
    '<p title="a &quot;b&quot;">1 &lt; 2 <b>&amp;</b></p>'
    """
    return Markup(f"<{tag}{_attributes(attributes)}>{joined(content).text}</{tag}>")


def void(tag: str, attributes: Attributes = _NONE) -> Markup:
    """Returns an element that has no content, as HTML and SVG both read it.

    >>> void("rect", {"width": "2"}).text
    '<rect width="2"/>'
    """
    return Markup(f"<{tag}{_attributes(attributes)}/>")


def joined(content: Iterable[Content]) -> Markup:
    """Returns parts one after the other, the texts among them escaped."""
    return Markup("".join(part.text if isinstance(part, Markup) else html.escape(part) for part in content))


def coordinate(value: float) -> str:
    """Returns a place in a drawing, to a tenth.

    >>> coordinate(12.0), coordinate(3.14), coordinate(-0.01)
    ('12', '3.1', '0')
    """
    rounded = round(value, 1) + 0.0
    return f"{rounded:.0f}" if rounded == int(rounded) else f"{rounded:.1f}"


def _attributes(attributes: Attributes) -> str:
    return "".join(f' {name}="{html.escape(value)}"' for name, value in attributes.items())
