"""XML files, written whole or not at all, and read without surprises."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from annofree.errors import InputError
from annofree.formats.files import write_atomic

__all__ = ["element", "read_xml", "write_xml"]

_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def element(parent: ET.Element, tag: str, text: object = "", /, **attributes: object) -> ET.Element:
    """Add an element with text and attributes; raises InputError for signs that no XML can hold."""
    child = ET.SubElement(parent, tag, {key: _legal(str(v)) for key, v in attributes.items()})
    child.text = _legal(str(text)) or None
    return child


def _legal(text: str) -> str:
    if found := _NOT_IN_XML.search(text):
        raise InputError(f"expected names that XML can hold, but {text!r} has the sign {found.group()!r}; rename it")
    return text


def write_xml(path: Path, root: ET.Element, declaration: bool = True) -> None:
    """Write a tree, indented, as UTF-8."""
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode").replace("\r", "&#13;") + "\n"  # bare, it is read as a line's end
    head = '<?xml version="1.0" encoding="utf-8"?>\n' if declaration else ""
    write_atomic(path, lambda temporary: temporary.write_text(head + text, encoding="utf-8", newline="\n"))


def read_xml(path: Path, root: str) -> ET.Element:
    """Read a tree whose outermost tag is ``root``; raises InputError for all else, and for entities of the file's own."""
    try:
        text = path.read_bytes()
        if b"<!ENTITY" in text or b"<!DOCTYPE" in text:
            raise InputError(f"expected plain XML in {path}, but it declares a document type; remove that")
        tree = ET.fromstring(text)  # noqa: S314 -- entities, which could grow without end, were refused above
    except OSError as problem:
        raise InputError(f"expected an XML file at {path}, but it cannot be read: {problem.strerror}") from None
    except ET.ParseError as problem:
        raise InputError(f"expected XML in {path}, but it is not: {problem}") from None
    if tree.tag != root:
        raise InputError(f"expected <{root}> in {path}, got <{tree.tag}>")
    return tree
