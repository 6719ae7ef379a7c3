"""JSON of many rows, written row by row, so that a million need no more memory than one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from annofree.errors import InputError
from annofree.io.atomic import write_atomic

__all__ = ["write_list", "write_lists"]


def write_lists(path: Path, lists: Mapping[str, Iterable[Any]], info: Mapping[str, Any] | None = None) -> None:
    """Write an object of ``info`` and lists, such as a COCO file, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write('{"info": ' + _json(info or {}))
            for key, values in lists.items():
                file.write(f', "{key}": [')
                _write_values(file, values)
                file.write("]")
            file.write("}\n")

    write_atomic(path, write)


def write_list(path: Path, values: Iterable[Any]) -> None:
    """Write one list, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write("[")
            _write_values(file, values)
            file.write("]\n")

    write_atomic(path, write)


def _write_values(file: TextIO, values: Iterable[Any]) -> None:
    for number, value in enumerate(values):
        file.write((", " if number else "") + _json(value))


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
        return text
    except UnicodeEncodeError:  # half a sign, which JSON can hold but UTF-8 cannot
        return json.dumps(value, allow_nan=False)
    except ValueError:
        raise InputError(f"expected finite numbers, which JSON can hold, got {value!r:.200}") from None
