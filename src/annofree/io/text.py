"""Text of files that other programs wrote: UTF-8 with or without a mark at its start, UTF-16, UTF-32, and GB2312."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from annofree.errors import InputError

__all__ = ["find_encoding", "find_xml_encoding", "open_text", "read_text"]

_HEAD = 4  # bytes that tell an encoding
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ZEROS = {"0111": "utf-32-le", "1110": "utf-32-be", "0101": "utf-16-le", "1010": "utf-16-be"}
"""Where zeros stand among the first four bytes when these are two or four ASCII signs."""

_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z0-9._:-]+)["']""")


def find_encoding(head: bytes) -> str:
    r"""Tell the encoding of a text by its first bytes: their mark, else where zeros stand, else it is UTF-8.

    >>> find_encoding(b"\xff\xfe{\x00"), find_encoding(b"{\x00 \x00"), find_encoding(b"{}")
    ('utf-16', 'utf-16-le', 'utf-8')
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    return _ZEROS.get("".join("0" if byte else "1" for byte in head[:_HEAD]), "utf-8")


def find_xml_encoding(head: bytes) -> str:
    """The same for XML, which may declare its encoding.

    >>> find_xml_encoding(b'<?xml version="1.0" encoding="GB2312"?><a/>'), find_xml_encoding(b"<a/>")
    ('gb2312', 'utf-8')
    """
    found = find_encoding(head)
    declared = _DECLARED.match(head) if found == "utf-8" else None
    return declared.group(1).decode("ascii").lower() if declared else found


def read_text(path: Path) -> str:
    """Read a text file; what is not UTF-8 and has no mark is taken for GB2312 if it can be that.

    Raises InputError for bytes that are no text, OSError where the file cannot be read.
    """
    data = path.read_bytes()
    encoding = find_encoding(data[:_HEAD])
    for one in (encoding, "gb2312") if encoding == "utf-8" else (encoding,):
        try:
            return data.decode(one).replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError:
            continue
    raise InputError(f"expected text as UTF-8 in {path}, but it is not; save it as UTF-8")


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file that is too long to hold, as its first bytes tell its encoding."""
    with path.open("rb") as file:
        encoding = find_encoding(file.read(_HEAD))
    with path.open(encoding=encoding) as text:
        yield text
