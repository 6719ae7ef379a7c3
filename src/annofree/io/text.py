"""Text that other programs wrote, files of any encoding and names of any signs, and how it is shown on a terminal."""

from __future__ import annotations

import codecs
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote_to_bytes

from annofree.errors import InputError
from annofree.io.regular import require_regular

__all__ = [
    "clean_text",
    "decode_name",
    "encode_name",
    "escape_json",
    "find_encoding",
    "find_xml_encoding",
    "is_visible",
    "open_text",
    "read_text",
]

_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # the direction of the text that follows
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
    data = require_regular(path).read_bytes()
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
    with require_regular(path).open("rb") as file:
        encoding = find_encoding(file.read(_HEAD))
    with path.open(encoding=encoding) as text:
        yield text


def is_visible(sign: str) -> bool:
    """Tell whether a sign is no control, no lone surrogate, and does not turn the direction of the text that follows."""
    return unicodedata.category(sign) not in ("Cc", "Cs") and unicodedata.bidirectional(sign) not in _TURNING


def clean_text(text: object, *, lines: bool = False) -> str:
    r"""Return text as it may be printed: what is not visible becomes an escape, but for the ends of ``lines``.

    >>> print(clean_text("red \x1b[31m.jpg"))
    red \x1b[31m.jpg
    """
    given = str(text)
    if given.isprintable():
        return given
    return "".join(sign if is_visible(sign) or (lines and sign == "\n") else repr(sign)[1:-1] for sign in given)


def escape_json(text: str) -> str:
    r"""Return JSON as it may be printed: what is not visible in its texts becomes an escape that JSON has.

    >>> print(escape_json('{"a": "red \x9b31m"}'))
    {"a": "red \u009b31m"}
    """
    return "".join(sign if is_visible(sign) or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)


def encode_name(name: str) -> str:
    r"""Return the name of a file as valid Unicode: bytes that are no UTF-8 become %XX, which ``decode_name`` turns back.

    >>> encode_name("caf\udce9.jpg"), encode_name("50%.jpg")
    ('caf%E9.jpg', '50%.jpg')
    """
    return "".join(f"%{ord(sign) - 0xDC00:02X}" if "\udc80" <= sign <= "\udcff" else sign for sign in name)


def decode_name(name: str) -> str:
    r"""Return the name of a file whose odd bytes were written as %XX.

    >>> os.fsencode(decode_name("caf%E9.jpg"))
    b'caf\xe9.jpg'
    """
    return os.fsdecode(unquote_to_bytes(name))
