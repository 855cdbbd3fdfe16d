"""Reads a page as a browser does, far enough to see what is an element and what is text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest

# Elements that HTML closes by itself, or that the page writes as `<x/>`.
VOID = {"meta", "input", "rect", "path"}


@dataclass(kw_only=True)
class Node:
    """An element: its attributes, and all text inside it in order."""

    tag: str
    attributes: dict[str, str]
    parents: tuple[str, ...]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """The elements of a page, in order."""

    nodes: list[Node] = field(default_factory=list)
    open: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: "" if value is None else value for name, value in attrs}
        assert len(attributes) == len(attrs), f"an attribute of {tag} is given twice"
        node = Node(tag=tag, attributes=attributes, parents=tuple(parent.tag for parent in self.open))
        self.nodes.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID, f"<{tag}/> stays open in HTML"
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for node in self.open:
            node.text += data

    def all(self, tag: str, **attributes: str) -> list[Node]:
        """Returns the elements of a kind that have all these classes or attributes."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            node
            for node in self.nodes
            if node.tag == tag
            and all(
                value in node.attributes.get(name, "").split()
                if name == "class"
                else node.attributes.get(name) == value
                for name, value in wanted.items()
            )
        ]


@pytest.fixture
def read() -> Callable[[str], Page]:
    def parse(text: str) -> Page:
        page = Page()
        page.feed(text)
        page.close()
        assert page.open == [], "an element is not closed"
        return page

    return parse
