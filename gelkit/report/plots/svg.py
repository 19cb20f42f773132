"""SVG: Matplotlib's made fit to stand in a page, among others, under a strict security policy."""

from __future__ import annotations

import re
from xml.etree import ElementTree

INK = "#1d1d1f"
"""Text, axes and grids: the one colour that becomes the page's own in SVG."""

_NAMESPACE = "http://www.w3.org/2000/svg"
_LEFT_OUT = ("metadata", "style", "title")
_REFERENCE = re.compile(r"(url\(#|^#)")


def portable_svg(rendered: bytes, name: str, alt: str) -> str:
    """Return a rendered SVG as an element that can stand anywhere in a page.

    Style attributes become attributes of their own, since a policy may forbid the former; the ink
    becomes ``currentColor``, fonts the page's generic sans-serif, and ids get a prefix.

    :param rendered: by Matplotlib, with text as text.
    :param name: the prefix, a word.
    :param alt: what a screen reader says.
    """
    root = ElementTree.fromstring(rendered)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in _LEFT_OUT:
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = _portable(element.attrib, f"{name}-")
        element.tail = None
        if element.tag != "text":
            element.text = None
    root.attrib |= {
        "xmlns": _NAMESPACE,
        "role": "img",
        "aria-label": alt,
        "font-family": "sans-serif",
        "fill": "currentColor",
        "stroke-linejoin": "round",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """Return a name without its namespace: what Matplotlib writes needs none but SVG's."""
    return name.rpartition("}")[2]


def _portable(attributes: dict[str, str], prefix: str) -> dict[str, str]:
    styled = [part.partition(":") for part in attributes.get("style", "").split(";")]
    everything = {_local(name): value for name, value in attributes.items() if name != "style"}
    everything |= {name.strip(): value.strip() for name, _, value in styled if name.strip()}
    everything.pop("font-family", None)
    if "id" in everything:
        everything["id"] = prefix + everything["id"]
    return {name: _value(value, prefix) for name, value in everything.items()}


def _value(value: str, prefix: str) -> str:
    if value == INK:
        return "currentColor"
    return _REFERENCE.sub(rf"\g<1>{prefix}", value) if _refers(value) else value


def _refers(value: str) -> bool:
    return value.startswith("url(#") or (value.startswith("#") and not _is_colour(value))


def _is_colour(value: str) -> bool:
    return re.fullmatch(r"#[0-9a-f]{6}", value) is not None
