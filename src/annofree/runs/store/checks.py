"""What the state of a run has to look like, and whether its files are still those that it wrote.

A file that was not touched since its shard was written is known by its size; any other is read, and compared by checksum.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.files.checksums import is_unchanged, take_checksum
from annofree.io.read_json import read_json_object

__all__ = [
    "FORMAT",
    "Chunk",
    "check_row",
    "check_settings",
    "explain_damage",
    "find_damage",
    "read_chunk",
]

FORMAT = 1
"""Of the state of a run; others are refused."""

_SHARD_FILE = re.compile(r"\d{5,}(-\d+)?\.jsonl")
_ASKED = {"classes": list, "tasks": list, "stuff": list, "part": str, "root": str, "encodings": bool}
_NUMBERS = ("number", "inputs", "bytes")


@dataclass(frozen=True)
class Chunk:
    """A complete shard: its ``number``, ``file`` with its bytes and checksum, number of ``inputs``, seconds and counts.

    ``files`` are others of the whole shard, by their place in the run's folder, each [bytes, checksum].
    """

    number: int
    file: str
    inputs: int
    bytes: int
    about: Mapping[str, Any] = field(default_factory=dict)
    crc: int | None = None
    files: Mapping[str, Any] = field(default_factory=dict)


def read_chunk(line: Mapping[str, Any]) -> Chunk:
    """Read a line of a manifest; raises ValueError or TypeError for what is none.

    >>> read_chunk({"number": 0, "file": "00000.jsonl", "inputs": 2, "bytes": 90}).inputs
    2
    """
    chunk = Chunk(**line)
    numbers = [getattr(chunk, name) for name in _NUMBERS] + [chunk.about.get(k, 0) for k in ("images", "failed", "instances")]
    if not all(type(n) is int and n >= 0 for n in numbers) or not isinstance(chunk.crc, int | None):
        raise ValueError(f"expected whole numbers in {dict(line)}")
    if not isinstance(chunk.file, str) or not _SHARD_FILE.fullmatch(chunk.file):
        raise ValueError(f"expected a shard such as 00000.jsonl, got {chunk.file!r}")
    _check_files(chunk.files)
    return chunk


def check_row(row: Any) -> dict[str, Any]:
    """Return a row of a shard; raises ValueError for what is none."""
    if not (isinstance(row, dict) and type(row.get("n")) is int and isinstance(row.get("id"), str)):
        raise ValueError("a line is no row of an image")
    if "failed" in row:
        if not isinstance(row["failed"], str) or not isinstance(row.get("place"), str):
            raise ValueError(f"the row of {row['id']} does not say why it failed")
        return row
    image, annotations = row.get("image"), row.get("annotations", [])
    if not isinstance(image, dict) or not all(type(image.get(side)) is int for side in ("height", "width")):
        raise ValueError(f"the row of {row['id']} has no image with its size")
    if not all(isinstance(image.get(key, ""), str) for key in ("file_name", "overlay", "labels", "panoptic")):
        raise ValueError(f"the row of {row['id']} names files that are no texts")
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise ValueError(f"the row of {row['id']} has no list of instances")
    segments = row.get("panoptic", [{}, {}])
    if not isinstance(segments, list) or len(segments) != 2 or not all(isinstance(one, dict) for one in segments):
        raise ValueError(f"the row of {row['id']} has no image and segments of a panoptic map")
    _check_files(row.get("files", {}))
    return row


def _check_files(files: Any) -> None:
    if not isinstance(files, dict) or not all(isinstance(one, list) and len(one) == 2 for one in files.values()):
        raise ValueError(f"expected sizes and checksums of files, got {files!r}")


def check_settings(path: Path, out: Path) -> dict[str, Any]:
    """Read the settings of a run; raises InputError where they cannot be read, lack a part, or are of another version."""
    with explain_damage(path, out):
        held = read_json_object(path)
        if held.get("format") != FORMAT:
            raise InputError(
                f"expected the state of a run of format {FORMAT} in {path}, got {held.get('format')!r}: it was made by "
                "another version of annofree; use that one, or choose another --out"
            )
        held = take_checksum(held)
        asked = held["asked"]
        wrong = [key for key, kind in _ASKED.items() if not isinstance(asked[key], kind)]
        if wrong or type(held["stretch"]) is not int or held["stretch"] < 1 or not isinstance(held["device"], str):
            raise ValueError(f"{wrong[0] if wrong else 'stretch or device'} is of another kind")
        if not all(isinstance(words, list) and words and isinstance(words[0], str) for words in asked["classes"]):
            raise ValueError("classes are no lists of words")
        return held


@contextmanager
def explain_damage(path: Path, out: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file of a run's state into one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        why = f"there is no {problem} in it" if isinstance(problem, KeyError) else getattr(problem, "strerror", None) or problem
        raise InputError(
            f"expected the state of the run in {out}, but {path} cannot be used: {why}; "
            "make the run anew with --fresh, or choose another --out"
        ) from None


def find_damage(folder: Path, files: Mapping[str, list[int]], since: int = 0) -> list[str]:
    """Return those of some files below a folder that are gone, or not as they are known."""
    return [place for place, known in files.items() if not is_unchanged(folder / place, known, since)]
