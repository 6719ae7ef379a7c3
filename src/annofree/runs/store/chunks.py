"""Incremental storage of a run, to resume it after any interruption.

OUT/shards
├── settings.json   settings; with inputs.txt they identify the run
├── inputs.txt      the ids of all images, a JSON text a line, in order
├── 00000.jsonl     what came of a stretch of images, one row an image
└── manifest.jsonl  complete shards, environments and seconds, one line each; append-only

A shard is on the disk before its line is.  A row that has "failed" is of an image that gave no result.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from annofree.errors import InputError
from annofree.io.atomic import write_atomic
from annofree.io.lock import acquire_lock
from annofree.io.settings_diff import find_first_change

__all__ = ["RESULTS", "Chunk", "Chunks", "Row", "settle"]

Row = dict[str, Any]

RESULTS = ("shards", "overlays", "overlays-semantic", "labels", "panoptic", "encodings")
"""The folders that a run writes to."""

_TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?", re.DOTALL)
_TEMPORARY_FINAL = re.compile(r"\.(annotations|panoptic|quarantine|run)-[a-z0-9_]{8}\.json")


@dataclass(frozen=True)
class Chunk:
    """A complete shard: its ``number``, ``file``, number of ``inputs``, seconds and counts."""

    number: int
    file: str
    inputs: int
    bytes: int
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Chunks:
    """The shards of one run folder; raises InputError while another process is using it."""

    out: Path
    _lock: BaseFileLock | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """The folder of the shards."""
        return self.out / "shards"

    @property
    def begun(self) -> bool:
        """Whether there is a run to resume."""
        return (self.folder / "settings.json").exists() and (self.folder / "inputs.txt").exists()

    def require_begun(self) -> None:
        """Raise InputError if there is no run."""
        if not self.begun:
            raise InputError(f"{self.out} is not a run folder (no shards/settings.json); pass the --out of `annofree segment`")

    def require_complete(self) -> None:
        """Raise InputError unless the run is complete."""
        if not self.complete:
            raise InputError(f"the run in {self.out} is not complete; give its command again first, which goes on with it")

    def lock(self) -> None:
        """Lock the folder until this process ends or calls ``unlock``."""
        taken = f"expected one run at a time in {self.out}, and another is at work; wait for it"
        self._lock = acquire_lock(self.folder / "lock", taken)

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def begin(self, settings: Mapping[str, Any], ids: Iterable[str]) -> None:
        """Store the settings of a new run."""
        self._empty()  # of a beginning that was cut short
        write_atomic(self.folder / "inputs.txt", lambda path: _write_lines(path, ids))
        self.keep_settings(settings)

    def keep_settings(self, settings: Mapping[str, Any]) -> None:
        """Write and flush the settings."""
        text = json.dumps(settings, indent=1) + "\n"
        write_atomic(self.folder / "settings.json", lambda path: _write_text(path, text))
        _sync_folder(self.folder)

    def read_settings(self) -> dict[str, Any]:
        """Read the settings; raises InputError if unreadable."""
        try:
            return dict(json.loads((self.folder / "settings.json").read_text(encoding="ascii")))
        except (OSError, ValueError) as problem:
            raise InputError(f"expected a run in {self.out}, but its settings cannot be read: {problem}") from None

    def read_ids(self) -> list[str]:
        """The ids of all images, in order."""
        with (self.folder / "inputs.txt").open(encoding="ascii") as lines:
            return [json.loads(line) for line in lines]

    def compare(self, ids: Iterable[str]) -> str | None:
        """Tell how the images are others than those of the run; None where they are the same."""
        change = find_first_change(self.read_ids(), ids)
        return change and f"of the pictures {change}"

    def list_whole(self) -> dict[int, Chunk]:
        """The complete shards by number: the later of two lines counts, and files must be intact."""
        last = {line["number"]: Chunk(**line) for line in self._lines() if "number" in line}
        return {k: last[k] for k in sorted(last) if _size(self.folder / last[k].file) == last[k].bytes}

    def list_sizes(self) -> list[int]:
        """How many inputs each shard stands for that was ever whole, in order."""
        last = {line["number"]: line["inputs"] for line in self._lines() if "number" in line}
        return [last[k] for k in sorted(last)]

    @property
    def complete(self) -> bool:
        """Whether the results are written."""
        last = None
        for last in self._lines():  # noqa: B007
            pass
        return last is not None and "complete" in last

    @property
    def environments(self) -> list[dict[str, Any]]:
        """The environments of the shards, each once, in order."""
        return [line["environment"] for line in self._lines() if "environment" in line]

    def read_seconds(self) -> Iterator[Mapping[str, float]]:
        """The seconds of each stretch of work, of all calls that wrote them down, by part and in ``total``."""
        for line in self._lines():
            yield line.get("seconds") or line.get("about", {}).get("seconds", {})

    def record_environment(self, environment: Mapping[str, Any]) -> None:
        """Record the environment of the following shards, unless it is recorded already."""
        if environment not in self.environments:
            self.append({"environment": environment})

    def close(self, number: int, rows: Sequence[Row], about: Mapping[str, Any]) -> Chunk:
        """Write a shard, and then its line."""
        before = self.list_whole().get(number) if (self.folder / f"{number:05}.jsonl").exists() else None
        name = f"{number:05}.jsonl" if before is None else _next(before.file)
        write_atomic(self.folder / name, lambda path: _write_lines(path, rows))
        _sync_folder(self.folder)
        shard = Chunk(number, name, len(rows), _size(self.folder / name), dict(about))
        self.append(vars(shard))
        if before is not None:
            (self.folder / before.file).unlink(missing_ok=True)
        return shard

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line to the manifest, on the disk when this returns; what is left of a torn one goes first."""
        path = self.folder / "manifest.jsonl"
        with path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            if file.read() not in (b"", b"\n"):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(line).encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read_rows(self) -> Iterator[Row]:
        """What came of each image, shard by shard; raises InputError for a damaged shard."""
        for shard in self.list_whole().values():
            yield from self.read_rows_of(shard)

    def read_rows_of(self, shard: Chunk) -> Iterator[Row]:
        """What came of the images of one shard."""
        path = self.folder / shard.file
        try:
            with path.open(encoding="ascii") as lines:
                yield from map(json.loads, lines)
        except ValueError as problem:
            raise InputError(f"{path} is damaged ({problem}); delete it, and the same command does that part again") from None

    def clean(self) -> None:
        """Remove partly written files after a kill: all names that begin with a dot in the folders of a run."""
        for name in RESULTS:
            for folder, _, files in os.walk(self.out / name):
                for file in files:
                    if file.startswith(".") and _TEMPORARY.fullmatch(file):
                        Path(folder, file).unlink()
        for path in self.out.glob(".*.json"):
            if _TEMPORARY_FINAL.fullmatch(path.name):
                path.unlink()

    def clear(self) -> None:
        """Remove all files of a run."""
        for name in RESULTS[1:]:
            shutil.rmtree(self.out / name, ignore_errors=True)
        for name in ("annotations.json", "panoptic.json", "quarantine.json", "run.json"):
            (self.out / name).unlink(missing_ok=True)
        self._empty()

    def _empty(self) -> None:
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if path.name != "lock" and path.is_file():
                path.unlink()

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self.folder / "manifest.jsonl"
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
            if line.endswith(b"\n"):  # else the last, torn
                yield json.loads(line)


def settle(paths: Iterable[Path]) -> None:
    """Flush files and their folders to disk."""
    folders = set()
    for path in paths:
        _sync(path, os.O_RDWR)
        folders.add(path.parent)
    for folder in folders:
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere folders cannot be opened
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_lines(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON value per line, in ASCII: file names may be invalid Unicode."""
    with path.open("w", encoding="ascii", newline="\n") as lines:
        for value in values:
            lines.write(json.dumps(value, allow_nan=False) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _next(file: str) -> str:
    """Name the replacement of a shard: 00001.jsonl, 00001-2.jsonl, ..."""
    number, _, version = file.removesuffix(".jsonl").partition("-")
    return f"{number}-{int(version or 1) + 1}.jsonl"
