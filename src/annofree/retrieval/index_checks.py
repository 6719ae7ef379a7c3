"""Whether the shards of an index are those that were written, of the images that are there now.

A file that was not touched since its shard was written is known by its size; any other is read, and compared by checksum.
Shards of earlier versions have no checksums: of these, what cannot be read, and what is cut, is noticed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.atomic import write_json
from annofree.io.files.checksums import add_checksum, is_unchanged, measure_file, take_checksum
from annofree.io.image_checksums import is_image_unchanged
from annofree.io.read_json import read_json_object, read_own_json
from annofree.retrieval.index import Shard, name_embeddings, name_ids

__all__ = ["check_shard", "explain_damage", "name_checksums", "read_held", "write_checksums"]

_REMEDY = "give the same `annofree index` again, which embeds that part anew"


def name_checksums(number: int) -> str:
    """Return the name of a shard's checksums."""
    return f"checksums-{number:05}.json"


def write_checksums(folder: Path, number: int, held: dict[str, Any], images: Mapping[str, list[int]]) -> None:
    """Write bytes and checksum of a shard's files, and those of its ``images``, before its ids say that it is there."""
    ids = (json.dumps(held, allow_nan=False) + "\n").encode("ascii")  # as they will be written
    files = {name_ids(number): [len(ids), zlib.crc32(ids)]}
    if held["ids"]:
        files[name_embeddings(number)] = measure_file(folder / name_embeddings(number))
    write_json(folder / name_checksums(number), add_checksum({"files": files, "images": dict(images)}), ascii_only=True)


def read_held(folder: Path, number: int, ids: Sequence[str], root: Path) -> dict[str, Any] | None:
    """Read what a shard holds, None where it is not there, cut or damaged, or where an image changed since.

    Raises InputError for one of other inputs.
    """
    path = folder / name_ids(number)
    try:
        held = read_json_object(path)
        same = {*held["ids"], *held["failed"]} == set(ids)
        if held["ids"] and Shard.open(folder / name_embeddings(number), 0, list).rows != len(held["ids"]):
            return None
    except (OSError, ValueError, KeyError, TypeError):  # an InputError is a ValueError
        return None
    if not _is_sound(folder, number, root):
        return None
    if not same:
        raise InputError(
            f"expected in {path} the images that inputs.txt names, got others; delete {path.parent} and start anew"
        )
    return held


def _is_sound(folder: Path, number: int, root: Path) -> bool:
    known = folder / name_checksums(number)
    if not known.exists():
        return True  # of an earlier version
    try:
        sums, since = take_checksum(read_json_object(known)), known.stat().st_mtime_ns
        own = all(is_unchanged(folder / name, value) for name, value in sums["files"].items())
        return own and all(is_image_unchanged(f"{root}/{id}", value, since) for id, value in sums["images"].items())  # noqa: A001
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def check_shard(folder: Path, number: int) -> None:
    """Raise InputError where the files of a shard are not those that were written."""
    known = folder / name_checksums(number)
    if known.exists():
        sums = read_own_json(known, "the checksums of a shard", _REMEDY).get("files")
        for name in (name_ids(number), name_embeddings(number)):
            value = sums.get(name) if isinstance(sums, dict) else None
            if not isinstance(value, list) or not is_unchanged(folder / name, value):
                raise InputError(f"expected {folder / name} as it was written, but it is damaged or gone; {_REMEDY}")


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a list of images into one line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as problem:
        raise InputError(
            f"expected a list of images in {path}, but it cannot be read: {problem}; delete {path.parent} and start anew"
        ) from None
