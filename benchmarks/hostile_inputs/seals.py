"""Checksums set right again after a change, so that what stands behind them is met."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from benchmarks.hostile_inputs.mutations import dump

from annofree.io.files.checksums import add_checksum, measure_file

__all__ = ["measure_again", "move_paths", "seal_file"]


def seal_file(path: Path) -> None:
    """Set the checksums right that the objects of a JSON file, or its lines, have of themselves."""
    if not path.is_file():
        return
    if path.suffix == ".jsonl":
        path.write_bytes(b"".join(dump(_seal(json.loads(line))) + b"\n" for line in path.read_bytes().splitlines()))
    else:
        path.write_bytes(dump(_seal(json.loads(path.read_bytes()))))


def _seal(held: Any) -> Any:
    if isinstance(held, dict) and "checksum" in held:
        return add_checksum({key: value for key, value in held.items() if key != "checksum"})
    if isinstance(held, dict) and "crc" in held and "counts" in held:  # a mask of an archive
        rest = {key: value for key, value in held.items() if key != "crc"}
        return {**rest, "crc": zlib.crc32(dump(rest))}
    return held


def measure_again(files: dict[str, Any], root: Path) -> None:
    """Set the sizes and checksums right that are known of files, of those that can be read."""
    for name in files:
        if (root / name).is_file():
            files[name] = measure_file(root / name)


def move_paths(path: Path, old: Path, new: Path) -> None:
    """Make a file name another folder, its checksum right."""
    text = path.read_text()
    if str(old) in text:
        path.write_text(text.replace(str(old), str(new)))
        seal_file(path)
