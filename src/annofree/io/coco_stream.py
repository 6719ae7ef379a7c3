"""Reading a COCO file row by row, so that a run of 100,000 images can be counted without holding it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from annofree.errors import InputError
from annofree.io.text import open_text

__all__ = ["stream_coco", "stream_list"]

_CHUNK = 1 << 20  # characters read at once
_LONGEST = 1 << 28  # characters of one row; more is no row
_LISTS = ("images", "categories", "annotations")  # whose rows are objects
_DECODER = json.JSONDecoder()
_BLANK = " \t\n\r"


def stream_coco(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (list, row) for every row of the file's lists, such as ("images", {...}), in the order of the file.

    Other entries are passed over; in memory is one row at a time.  Raises InputError when the file cannot be read, is cut
    short, or is no JSON object of lists.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = Path(folder) / "a.json"
    ...     _ = place.write_text('{"info": {}, "images": [{"id": 1}], "annotations": []}')
    ...     list(stream_coco(place))
    [('images', {'id': 1})]
    """
    with _read(path, "COCO JSON") as reader:
        yield from reader.stream_rows()


def stream_list(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every object of a file that is one list; raises InputError as ``stream_coco`` does, and for what is no object."""
    with _read(path, "a JSON list of objects") as reader:
        for row in reader.stream_elements():
            if not isinstance(row, dict):
                raise ValueError(f"got {type(row).__name__} in it")
            yield row


@contextmanager
def _read(path: Path, what: str) -> Iterator[_Reader]:
    """Open a file for reading, and say in a line why it cannot be read."""
    try:
        with open_text(path) as file:
            yield _Reader(file)
    except OSError as problem:
        raise InputError(f"expected {what} at {path}, but it cannot be read: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:
        raise InputError(f"expected {what} in {path}, but it is damaged or something else: {problem}") from None


class _Reader:
    """What was read of a file and not yet used; JSON is taken off its front, value by value."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._at, self._ended = file, "", 0, False

    def stream_rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        self._take("{")
        while self._peek() != "}":
            key = self._value()
            self._take(":")
            if self._peek() == "[":
                yield from self._named(str(key))
            else:
                self._value()
            if self._peek() != "}":
                self._take(",")

    def _named(self, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in self.stream_elements():
            if isinstance(row, dict):
                yield key, row
            elif key in _LISTS:
                raise ValueError(f"expected objects in {key}, got {type(row).__name__}")

    def stream_elements(self) -> Iterator[Any]:
        self._take("[")
        while self._peek() != "]":
            yield self._value()
            if self._peek() != "]":
                self._take(",")
        self._take("]")

    def _value(self) -> Any:
        """Take a value; one that seems to end with the text is read again with more, for 12 may be the start of 123."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended:
                    self._at = end
                    return value
            except ValueError:
                if self._ended or len(self._text) - self._at > _LONGEST:
                    raise
            self._more()

    def _peek(self) -> str:
        """Return the next sign that is not blank, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def _take(self, sign: str) -> None:
        found = self._peek()
        if found != sign:
            raise ValueError(f"expected {sign!r}, got {found!r}" if found else f"it ends where {sign!r} was expected")
        self._at += 1

    def _more(self) -> None:
        size = max(_CHUNK, len(self._text) - self._at)  # a long row is not tried again for every chunk of it
        more = self._file.read(size)
        self._text, self._at, self._ended = self._text[self._at :] + more, 0, not more
