"""The work of a run: image after image to rows and files, shard after shard to the disk."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import overload

from annofree.errors import InputError
from annofree.io.atomic import make_folder
from annofree.io.callbacks import Callbacks
from annofree.io.files.checksums import is_unchanged, measure_file
from annofree.io.image_checksums import measure_image
from annofree.io.images import silence_pillow
from annofree.io.settings_diff import list_differences
from annofree.io.text import clean_text
from annofree.runs.batch_encoder import EncodeResult, Entry, attempt
from annofree.runs.config import EncodingSource, RunConfig, name_encodings_file
from annofree.runs.encodings import EncodingFile, Packed, pack, write_encodings
from annofree.runs.environment import describe_environment
from annofree.runs.store.checks import Chunk
from annofree.runs.store.chunks import Chunks, Row, settle
from annofree.runs.store.layout import RunFolder
from annofree.runs.store.names import ResultNames
from annofree.runs.tasks import Prediction, Tasks

__all__ = ["Executor", "explain_write_errors"]

_CLASSES = "labels/classes.json"
_LONGEST = 30.0  # seconds of work that a kill can cost, beyond a batch


class Executor:
    """Processes the remaining images of a run."""

    def __init__(
        self, request: RunConfig, callbacks: Callbacks, shards: Chunks, folder: RunFolder, tasks: Tasks, feed: EncodingSource
    ) -> None:
        self.request, self.callbacks, self.shards = request, callbacks, shards
        self.folder, self.tasks, self.feed = folder, tasks, feed
        self.names = ResultNames(self.request.ids)
        self.stretch: int = self.shards.read_settings()["stretch"]
        self.packed: dict[str, Packed] = {}
        # images are looked after, unless what is seen of them was kept by another run
        self.root = None if "relabelled" in request.settings else request.root
        self.weighed = bool(self.shards.list_sizes())
        self.done, self.failed, self.to_do = 0, 0, 0
        self.environment, self.told = describe_environment(), False

    def run_pending(self, retry: bool) -> None:
        """Redo damaged shards, then process the remaining images."""
        own = self._own()
        again, done = self._again(own, retry)
        rest = own[done:]
        self.to_do = sum(len(numbers) for _, numbers, _ in again) + len(rest)
        if done and self.to_do:
            self.callbacks.on_note(f"going on: {len(own) - self.to_do} of {len(own)} pictures are done")
        if self.to_do:
            self._compare_environments()
        self.since = time.perf_counter()
        self.feed.clock.switch("other")  # all before was loading
        if self.to_do:
            self.callbacks.on_progress(0, self.to_do)
        with silence_pillow():
            for shard, numbers, rows in again:
                self._redo(shard, numbers, rows)
            self._new(rest, len(self.shards.list_sizes()))

    def _compare_environments(self) -> None:
        """Note differences between this environment and that of the finished part."""
        known = self.shards.environments
        if known and self.environment not in known:
            others = "; ".join(list_differences(known[-1], self.environment))
            self.callbacks.on_note(f"the rest is made elsewhere, and its last digits may differ: {others}")

    def _own(self) -> list[int]:
        """The numbers of the images of this part."""
        i, n = self.request.part
        return [k for k in range(len(self.request.ids)) if k // self.stretch % n == i - 1]

    def _again(self, own: list[int], retry: bool) -> tuple[list[tuple[int, list[int], list[Row]]], int]:
        """The shards to do again: number, images, and rows that stay; and how many images all the shards have."""
        whole, start, again = self.shards.list_whole(), 0, []
        for shard, inputs in enumerate(self.shards.list_sizes()):
            numbers = own[start : start + inputs]
            start += inputs
            if shard not in whole or self._is_damaged(whole[shard]):
                again.append((shard, numbers, list[Row]()))
            elif retry and whole[shard].about["failed"]:
                rows = list(self.shards.read_rows_of(whole[shard]))
                kept = [row for row in rows if "failed" not in row]
                again.append((shard, [row["n"] for row in rows if "failed" in row], kept))
        return again, start

    def _is_damaged(self, shard: Chunk) -> bool:
        """Whether files of a shard, or its images, changed since; says which."""
        damage = self.shards.find_damage(shard, self.root)
        if shard.number == 0:  # classes.json is written with the first label map
            classes = (self.shards.read_completion() or {}).get("files", {}).get(_CLASSES)
            damage.files += [_CLASSES] if classes and not is_unchanged(self.request.out / _CLASSES, classes) else []
        for line in damage.describe():
            self.callbacks.on_note(f"{line}; that part is done again")
        return bool(damage)

    def _redo(self, shard: int, numbers: list[int], kept: list[Row]) -> None:
        rows = list(kept)
        if self.request.keep and kept:
            file = EncodingFile(name_encodings_file(self.request.out, shard), self.tasks.encoding_kinds)
            self.packed = {row["id"]: pack(file.read(row["id"])) for row in kept}
        for batch in self.feed.encode_batches(self._entries(numbers)):
            rows += [self._row(encoded) for encoded in batch]
        self._close(shard, sorted(rows, key=lambda row: int(row["n"])))

    def _new(self, numbers: list[int], shard: int) -> None:
        """Do images for the first time; what is whole when something ends the work is kept."""
        rows: list[Row] = []
        try:
            for group in self._groups(numbers):
                for batch in self.feed.encode_batches(self._entries(group)):
                    rows += [self._row(encoded) for encoded in batch]
                    last = batch[-1].number
                    if (last + 1) % self.stretch == 0 or last == numbers[-1] or time.perf_counter() - self.since > _LONGEST:
                        self._close(shard, rows)
                        rows, shard = [], shard + 1
        except BaseException:
            if rows:
                self.folder.written[:] = [path for path in self.folder.written if path.exists()]
                with suppress(OSError, InputError):
                    self._close(shard, rows)
            raise

    def _groups(self, numbers: list[int]) -> Iterator[list[int]]:
        """What batches may be cut from at one go: no shard holds images of two stretches."""
        size = self.feed.batch_size
        if not numbers or (self.stretch % size == 0 and numbers[0] % self.stretch % size == 0):
            yield numbers
            return
        start = 0
        for k, number in enumerate(numbers):
            if k + 1 == len(numbers) or numbers[k + 1] // self.stretch != number // self.stretch:
                yield numbers[start : k + 1]
                start = k + 1

    def _entries(self, numbers: Sequence[int]) -> Sequence[Entry]:
        return _Entries(numbers, self.request.ids, f"{self.request.root}/".replace("//", "/"))

    def _row(self, one: EncodeResult) -> Row:
        """Predict for one encoding, write the results, and return its row."""
        found = self._answer(one)
        row = self._failed(one, found) if isinstance(found, Exception) else self._found(one, found)
        self.done += 1
        self.callbacks.on_progress(self.done, self.to_do)
        known = None if self.root is None or "failed" in row else measure_image(one.place)
        return {"n": one.number, "id": one.id, **row} | ({} if known is None else {"input": known})

    def _answer(self, one: EncodeResult) -> Prediction | Exception:
        if one.problem is not None:
            return one.problem
        timed = self.feed.clock.count
        return attempt(self.feed.clock, "other", lambda: self.tasks.predict(one.encoding, self.request.vocabulary, timed))

    def _found(self, one: EncodeResult, prediction: Prediction) -> Row:
        detections, joined = prediction.detections, prediction.panoptic
        if detections is not None and self.request.min_score > 0:
            detections = detections[detections.scores >= self.request.min_score]
        with self.feed.clock.count("write"), explain_write_errors(self.request.out):
            if self.request.keep:
                self.packed[one.id] = self._weighed(pack(one.encoding))
            segments = None if joined is None else (joined.segments, joined.to_coco())
            return self.folder.record(
                self.names.find_names(one.id),
                one.size,
                one.image,
                detections=detections,
                labels=prediction.label_map,
                segments=segments,
            )

    def _failed(self, one: EncodeResult, problem: Exception) -> Row:
        shown = clean_text(one.place)
        lines = str(problem).replace(one.place, shown).splitlines()
        why = clean_text(lines[0]) if lines else type(problem).__name__
        why = why if shown in why else f"{shown}: {why}"
        self.failed += 1
        self.callbacks.on_failure(shown, why)
        return {"failed": why, "place": shown}

    def _weighed(self, packed: Packed) -> Packed:
        """Say once how much room the encodings take; raises InputError where there is less."""
        if not self.weighed:
            self.weighed = True
            need, free = packed.bytes * self.to_do, disk_usage(self.request.out).free
            each = f"encodings take about {_size(packed.bytes)} a picture, {_size(need)} for {self.to_do} pictures"
            self.callbacks.on_note(f"{each}; {_size(free)} are free")
            if need > free:
                raise InputError(f"{each}, but only {_size(free)} are free; make room, or run without --keep-encodings")
        return packed

    def _close(self, shard: int, rows: list[Row]) -> None:
        """Store a shard with its files, and its manifest line last."""
        failed = sum("failed" in row for row in rows)
        found = sum(len(row.get("annotations", ())) for row in rows)
        about = {"images": len(rows) - failed, "failed": failed, "instances": found, "seconds": self.feed.clock.take_lap()}
        with self.feed.clock.count("write"), explain_write_errors(self.request.out):
            files = {}
            if self.request.keep:
                path = name_encodings_file(self.request.out, shard)
                self._keep(path, [row["id"] for row in rows if "failed" not in row])
                files = {path.relative_to(self.request.out).as_posix(): measure_file(path)}
            settle(self.folder.written)
            if not self.told:
                self.shards.record_environment(self.environment)
                self.told = True
            self.shards.close(shard, rows, about, files)
        self.folder.written.clear()
        self.packed.clear()
        self.since = time.perf_counter()

    def _keep(self, path: Path, ids: Sequence[str]) -> None:
        make_folder(path.parent)
        write_encodings(path, {id_: self.packed[id_] for id_ in ids})
        self.folder.written.append(path)


@dataclass(frozen=True)
class _Entries(Sequence[Entry]):
    """Images to come, put together when they are asked for: a million places would take their room."""

    numbers: Sequence[int]
    ids: Sequence[str]
    root: str

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Entry]: ...
    def __getitem__(self, place: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(place, slice):
            return [self._entry(number) for number in self.numbers[place]]
        return self._entry(self.numbers[place])

    def _entry(self, number: int) -> Entry:
        return number, self.ids[number], self.root + self.ids[number]


@contextmanager
def explain_write_errors(out: Path) -> Iterator[None]:
    """Turn write errors into a readable message."""
    try:
        yield
    except OSError as problem:
        full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else problem.strerror or str(problem)
        where = f" ({problem.filename})" if problem.filename and not full else ""
        again = "once there is room, the same command goes on" if full else "the same command goes on"
        raise InputError(f"results cannot be written to {out}: {why}{where}; what was done is kept, and {again}") from problem


def _size(count: float) -> str:
    """Format a number of bytes.

    >>> _size(1_234_567)
    '1.2 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
