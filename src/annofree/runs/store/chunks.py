"""Incremental storage of a run, to resume it after any interruption.

OUT/shards
├── settings.json   settings; with inputs.txt they identify the run
├── inputs.txt      the ids of all images, a JSON text a line, in order
├── 00000.jsonl     what came of a stretch of images, one row an image
├── manifest.jsonl  complete shards, environments and seconds, one line each; append-only
└── cleared.json    settings of a run that --fresh has begun to remove

A shard is on the disk before its line is.  A row that has "failed" is of an image that gave no result.  A row has size and
checksum of its image (`input`) and of the files made of it (`files`), the line of a shard those of its own files, and the line
that says that the run is complete those of the files of all images.  Settings and each line of the manifest have a checksum
of what they hold, and the settings that of the inputs.  Runs of earlier versions have none, and are not checked.  A last line
of the manifest that is cut short is passed over.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.atomic import write_atomic
from annofree.io.files.checksums import add_checksum, measure_file, take_checksum
from annofree.io.files.lock import hold_lock
from annofree.io.files.paths import confine
from annofree.io.regular import require_regular
from annofree.io.settings_diff import find_first_change
from annofree.runs.store.checks import Chunk, check_row, check_settings, explain_damage, read_chunk
from annofree.runs.store.clearing import CLEARED, clear_run, clear_state, refuse_foreign
from annofree.runs.store.damage import Damage, find_shard_damage
from annofree.runs.store.disk import settle, settle_folder, write_lines, write_text

__all__ = ["RESULTS", "Chunk", "Chunks", "Row", "settle"]

Row = dict[str, Any]

RESULTS = ("shards", "overlays", "overlays-semantic", "labels", "panoptic", "encodings")
"""The folders that a run writes to."""

_TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?", re.DOTALL)
_TEMPORARY_FINAL = re.compile(r"\.(annotations|panoptic|quarantine|run)-[a-z0-9_]{8}\.json")


@dataclass
class Chunks:
    """The shards of one run folder; raises InputError while another process is using it."""

    out: Path
    _seen: dict[tuple[str, int, int, int], bool] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        """The folder of the shards."""
        return self.out / "shards"

    @property
    def begun(self) -> bool:
        """Whether there is a run to resume."""
        return (self.folder / "settings.json").exists() and (self.folder / "inputs.txt").exists()

    @property
    def cleared(self) -> bool:
        """Whether there is a run that was not yet removed whole."""
        return (self.folder / CLEARED).exists()

    def require_free(self) -> None:
        """Raise InputError unless a run is here, or nothing stands where one would write."""
        if not self.begun and not self.cleared:
            refuse_foreign(self.out)

    def require_begun(self) -> None:
        """Raise InputError if there is no run."""
        if not self.begun:
            raise InputError(f"{self.out} is not a run folder (no shards/settings.json); pass the --out of `annofree segment`")

    def require_complete(self) -> None:
        """Raise InputError unless the run is complete."""
        if not self.complete:
            raise InputError(f"the run in {self.out} is not complete; give its command again first, which goes on with it")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Lock the folder for as long as a block lasts; raises InputError where its folders lead elsewhere."""
        for name in RESULTS:
            confine(self.out, name)
        with hold_lock(self.folder / "lock", f"expected one run at a time in {self.out}, and another is at work; wait for it"):
            yield

    def begin(self, settings: Mapping[str, Any], ids: Iterable[str]) -> None:
        """Store the settings of a new run."""
        clear_state(self.folder)  # of a beginning that was cut short
        write_atomic(self.folder / "inputs.txt", lambda path: write_lines(path, ids))
        self.keep_settings(settings)

    def keep_settings(self, settings: Mapping[str, Any]) -> None:
        """Write and flush the settings, and what the inputs were."""
        held = add_checksum({**settings, "inputs": measure_file(self.folder / "inputs.txt")})
        text = json.dumps(held, indent=1) + "\n"
        write_atomic(self.folder / "settings.json", lambda path: write_text(path, text))
        settle_folder(self.folder)

    def read_settings(self) -> dict[str, Any]:
        """Read the settings; raises InputError if unreadable, or of another version."""
        held = check_settings(self.folder / "settings.json", self.out)
        return {key: value for key, value in held.items() if key != "inputs"}

    def read_ids(self) -> list[str]:
        """The ids of all images, in order; raises InputError if unreadable."""
        path, known = self.folder / "inputs.txt", check_settings(self.folder / "settings.json", self.out).get("inputs")
        with explain_damage(path, self.out), require_regular(path).open(encoding="ascii") as lines:
            if known not in (None, measure_file(path)):
                raise ValueError("it does not hold what was written")
            ids = [json.loads(line) for line in lines]
            if not all(isinstance(id_, str) for id_ in ids):
                raise ValueError("expected a text in each line")
            return ids

    def compare(self, ids: Iterable[str]) -> str | None:
        """Tell how the images are others than those of the run; None where they are the same."""
        change = find_first_change(self.read_ids(), ids)
        return change and f"of the images {change}"

    def list_whole(self) -> dict[int, Chunk]:
        """The complete shards by number: the later of two lines counts, and files must be intact."""
        last = self._last()
        return {k: last[k] for k in sorted(last) if self._is_intact(last[k])}

    def list_sizes(self) -> list[int]:
        """How many inputs each shard stands for that was ever whole, in order."""
        last = self._last()
        return [last[k].inputs for k in sorted(last)]

    def _last(self) -> dict[int, Chunk]:
        path = self.folder / "manifest.jsonl"
        with explain_damage(path, self.out):
            chunks = [read_chunk(line) for line in self._lines() if "number" in line]
            last = {chunk.number: chunk for chunk in chunks}
            if sorted(last) != list(range(len(last))):
                raise ValueError(f"shards {sorted(last)} instead of 0 to {len(last) - 1}")
        return last

    def _is_intact(self, chunk: Chunk) -> bool:
        """Whether a shard has the bytes that its line says; each is read once."""
        try:
            held = (self.folder / chunk.file).stat()
        except OSError:
            return False
        if held.st_size != chunk.bytes or chunk.crc is None:
            return held.st_size == chunk.bytes
        key = chunk.file, held.st_size, held.st_mtime_ns, chunk.crc
        if key not in self._seen:
            self._seen[key] = measure_file(self.folder / chunk.file) == [chunk.bytes, chunk.crc]
        return self._seen[key]

    @property
    def complete(self) -> bool:
        """Whether the results are written."""
        return self.read_completion() is not None

    def read_completion(self) -> dict[str, Any] | None:
        """The line that says that the run is complete, which is the last one then; it may have the ``files`` of all images."""
        last: dict[str, Any] = {}
        for last in self._lines():  # noqa: B007
            pass
        return last if "complete" in last else None

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

    def close(
        self, number: int, rows: Sequence[Row], about: Mapping[str, Any], files: Mapping[str, Sequence[int]] | None = None
    ) -> Chunk:
        """Write a shard, and then its line; ``files`` are others of the whole shard, as ``measure_file`` has them."""
        name = f"{number:05}.jsonl"
        before = self._last().get(number)
        before = before if before is not None and self._is_intact(before) else None
        if before is not None:
            name = _next(before.file)
        write_atomic(self.folder / name, lambda path: write_lines(path, rows))
        settle_folder(self.folder)
        size, crc = measure_file(self.folder / name)
        shard = Chunk(number, name, len(rows), size, dict(about), crc, dict(files or {}))
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
            file.write(json.dumps(add_checksum(line)).encode("ascii") + b"\n")
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
            with require_regular(path).open(encoding="ascii") as lines:
                for line in lines:
                    yield check_row(json.loads(line))
        except (ValueError, RecursionError) as problem:
            raise InputError(f"{path} is damaged ({problem}); delete it, and the same command does that part again") from None

    def find_damage(self, shard: Chunk, root: Path | None = None) -> Damage:
        """What the run wrote for a shard and is not there any more, and which of its images below ``root`` changed."""
        return find_shard_damage(self.out, self.folder / shard.file, self.read_rows_of(shard), shard.files, root)

    def require_whole(self) -> None:
        """Raise InputError that names a shard which is not as it was written, or a file of it."""
        whole = self.list_whole()
        for shard in self._last().values():
            named = [] if shard.number in whole else [f"shards/{shard.file}"]
            if named := named or self.find_damage(shard).files:
                raise InputError(
                    f"expected {self.out / named[0]} as its run wrote it, but it is gone or damaged; "
                    "give the command of that run again, which does that part anew"
                )

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
        """Remove all files of a run, and no others."""
        self.clean()
        clear_run(self.out)

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self.folder / "manifest.jsonl"
        with explain_damage(path, self.out):
            text = require_regular(path).read_bytes() if path.exists() else b""
            for line in text.split(b"\n")[:-1]:  # what follows the last break is torn
                held = json.loads(line)
                if not isinstance(held, dict):
                    raise ValueError(f"expected an object in each line, got {held!r}")
                yield take_checksum(held)


def _next(file: str) -> str:
    """Name the replacement of a shard: 00001.jsonl, 00001-2.jsonl, ..."""
    number, _, version = file.removesuffix(".jsonl").partition("-")
    return f"{number}-{int(version or 1) + 1}.jsonl"
