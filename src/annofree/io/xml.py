"""XML files, written whole or not at all, and read without surprises."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from annofree.errors import InputError
from annofree.io.atomic import write_atomic
from annofree.io.regular import require_regular
from annofree.io.text import find_xml_encoding

__all__ = ["add_element", "parse_xml", "read_xml", "stream_xml", "write_xml", "write_xml_stream"]

_LOOK = 200  # bytes that tell an encoding, declared or not
_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'
_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def add_element(parent: ET.Element, tag: str, text: object = "", /, **attributes: object) -> ET.Element:
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
    text = (_HEAD if declaration else "") + _text(root) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def write_xml_stream(path: Path, root: ET.Element, more: Iterable[ET.Element]) -> None:
    """Write a tree as ``write_xml`` does, with ``more`` elements at its end, one at a time."""
    ET.indent(root)
    whole, end = _text(root), f"</{root.tag}>"
    head = whole.removesuffix(end)

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(_HEAD + head)
            for one in more:
                ET.indent(one, level=1)
                file.write(f"  {_text(one)}\n")
            file.write(end + "\n")

    write_atomic(path, write)


def _text(tree: ET.Element) -> str:
    return ET.tostring(tree, encoding="unicode").replace("\r", "&#13;")  # bare, it is read as a line's end


def stream_xml(path: Path, root: str) -> Iterator[ET.Element]:
    """Yield what is right below the outermost tag ``root``, one at a time; raises InputError as ``read_xml`` does."""
    with _understood(path):
        depth, outermost = 0, None
        for event, one in _stream_events(path):
            depth += 1 if event == "start" else -1
            outermost = one if outermost is None else outermost
            if outermost.tag != root:
                raise InputError(f"expected <{root}> in {path}, got <{outermost.tag}>")
            if event == "end" and depth == 1:
                yield one
                outermost.remove(one)


def _stream_events(path: Path) -> Iterator[tuple[str, ET.Element]]:
    parser: ET.XMLPullParser[ET.Element] = ET.XMLPullParser(("start", "end"))
    for piece in _stream_pieces(path):
        parser.feed(piece)
        yield from parser.read_events()  # type: ignore[misc]  # of these two kinds, all are elements
    parser.close()
    yield from parser.read_events()  # type: ignore[misc]


def _stream_pieces(path: Path) -> Iterator[str]:
    """Decode the file piece by piece, so that declarations of types and entities are found in any encoding, and refused."""
    with require_regular(path).open("rb") as file:
        encoding = find_xml_encoding(file.read(_LOOK))
    with path.open(encoding=encoding) as text:
        before = ""
        while piece := text.read(1 << 20):
            _refuse_types(before + piece, path)
            yield piece
            before = piece[-16:]


def _refuse_types(text: str | bytes, path: Path | str) -> None:
    marks = (b"<!ENTITY", b"<!DOCTYPE") if isinstance(text, bytes) else ("<!ENTITY", "<!DOCTYPE")
    if any(mark in text for mark in marks):  # type: ignore[operator]  # both are text, or both bytes
        raise InputError(f"expected plain XML in {path}, but it declares a document type; remove that")


def read_xml(path: Path, root: str) -> ET.Element:
    """Read a tree whose outermost tag is ``root``; raises InputError for all else, and for entities of the file's own."""
    with _understood(path):
        data: str | bytes = require_regular(path).read_bytes()
        assert isinstance(data, bytes)  # noqa: S101
        if (encoding := find_xml_encoding(data[:_LOOK])) != "utf-8":
            data = data.decode(encoding)
        return parse_xml(data, root, path)


def parse_xml(data: str | bytes, root: str, place: Path | str) -> ET.Element:
    """Read a tree out of a text that came from ``place``, as ``read_xml`` does from a file.

    >>> parse_xml("<View><Image name='image'/></View>", "View", "the labeling interface")[0].get("name")
    'image'
    """
    with _understood(place):
        _refuse_types(data, place)
        tree = ET.fromstring(data)  # noqa: S314 -- entities, which could grow without end, were refused above
    if tree.tag != root:
        raise InputError(f"expected <{root}> in {place}, got <{tree.tag}>")
    return tree


@contextmanager
def _understood(path: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise InputError(f"expected an XML file at {path}, but it cannot be read: {problem.strerror}") from None
    except (ET.ParseError, UnicodeError, LookupError) as problem:
        raise InputError(f"expected XML in {path}, but it is not: {problem}") from None
