"""The work of a run: image after image to rows and files, shard after shard to the disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from shutil import disk_usage

from annofree.errors import InputError
from annofree.io.atomic import make_folder
from annofree.io.callbacks import Callbacks
from annofree.io.files.checksums import is_unchanged, measure_file
from annofree.io.images import silence_pillow
from annofree.io.settings_diff import list_differences
from annofree.runs.config import EncodingSource, RunConfig, name_encodings_file
from annofree.runs.encodings import EncodingFile, Packed, pack, write_encodings
from annofree.runs.engines.engine import Engine, LocalEngine, RunImages
from annofree.runs.engines.image_work import ImageDone, ImageWork
from annofree.runs.store.checks import Chunk
from annofree.runs.store.chunks import Chunks, Row, settle
from annofree.runs.store.disk import explain_write_errors
from annofree.runs.store.layout import RunFolder
from annofree.runs.store.names import ResultNames
from annofree.runs.tasks import Tasks, TasksInfo

__all__ = ["Executor"]

_CLASSES = "labels/classes.json"
_LONGEST = 30.0  # seconds of work that a kill can cost, beyond a batch


class Executor:
    """Processes the remaining images of a run, here or by an engine that is given in the place of encodings."""

    def __init__(
        self,
        request: RunConfig,
        callbacks: Callbacks,
        shards: Chunks,
        folder: RunFolder,
        tasks: Tasks | TasksInfo,
        feed: EncodingSource | Engine,
    ) -> None:
        self.request, self.callbacks, self.shards = request, callbacks, shards
        self.folder, self.tasks = folder, tasks
        self.stretch: int = self.shards.read_settings()["stretch"]
        self.images = RunImages(request.ids, str(request.root), ResultNames(request.ids), self.stretch)
        self.packed: dict[str, Packed] = {}
        self.engine = feed if isinstance(feed, Engine) else self._work_here(tasks, feed)
        # images are looked after, unless what is seen of them was kept by another run
        self.root = request.root if request.watched else None
        self.weighed = bool(self.shards.list_sizes())
        self.done, self.failed, self.to_do, self.told = 0, 0, 0, 0

    def _work_here(self, tasks: Tasks | TasksInfo, feed: EncodingSource) -> Engine:
        asked = self.request
        if not isinstance(tasks, Tasks):
            raise TypeError("expected tasks that are loaded here, with encodings that are made here")
        work = ImageWork(self.folder, tasks, asked.vocabulary, feed.clock, asked.min_score, asked.keep, asked.watched)
        return LocalEngine(feed, work)

    def run_pending(self, retry: bool) -> None:
        """Redo damaged shards, then process the remaining images."""
        own = self._own()
        again, done = self._again(own, retry)
        rest = own[done:]
        self.to_do = sum(len(numbers) for _, numbers, _ in again) + len(rest)
        if done and self.to_do:
            self.callbacks.on_note(f"going on: {len(own) - self.to_do} of {len(own)} images are done")
        if self.to_do:
            self._compare_environments()
        self.since = time.perf_counter()
        self.engine.clock.switch("other")  # all before was loading
        if self.to_do:
            self.callbacks.on_progress(0, self.to_do)
        groups = (*(numbers for _, numbers, _ in again), *self._groups(rest))
        with silence_pillow(), closing(self.engine.stream(self.images, groups, self._take)) as batches:
            for shard, numbers, rows in again:
                self._redo(shard, numbers, rows, batches)
            self._new(rest, len(self.shards.list_sizes()), batches)

    def _compare_environments(self) -> None:
        """Note differences between this environment and that of the finished part."""
        known, ours = self.shards.environments, self.engine.list_environments()[0]
        if known and ours not in known:
            others = "; ".join(list_differences(known[-1], ours))
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

    def _redo(self, shard: int, numbers: list[int], kept: list[Row], batches: Iterator[list[Row]]) -> None:
        rows = list(kept)
        if self.request.keep and kept:
            file = EncodingFile(name_encodings_file(self.request.out, shard), self.tasks.encoding_kinds)
            self.packed |= {row["id"]: pack(file.read(row["id"])) for row in kept}
        while len(rows) < len(numbers) + len(kept):
            rows += next(batches)
        self._close(shard, sorted(rows, key=lambda row: int(row["n"])))

    def _new(self, numbers: list[int], shard: int, batches: Iterator[list[Row]]) -> None:
        """Do images for the first time; what is whole when something ends the work is kept."""
        rows: list[Row] = []
        try:
            for batch in batches:
                rows += batch
                last = rows[-1]["n"]
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
        size = self.engine.batch_size
        if not numbers or (self.stretch % size == 0 and numbers[0] % self.stretch % size == 0):
            yield numbers
            return
        start = 0
        for k, number in enumerate(numbers):
            if k + 1 == len(numbers) or numbers[k + 1] // self.stretch != number // self.stretch:
                yield numbers[start : k + 1]
                start = k + 1

    def _take(self, image: ImageDone) -> Row:
        """Take in what became of an image: files that were written elsewhere, its encoding, and that it is done."""
        row = image.row
        with self.engine.clock.count("write"), explain_write_errors(self.request.out):
            for place, data in image.files.items():
                self.folder.take(place, data)
            if image.packed is not None:
                self.packed[row["id"]] = self._weighed(image.packed)
        if "failed" in row:
            self.failed += 1
            self.callbacks.on_failure(row["place"], row["failed"])
        self.done += 1
        self.callbacks.on_progress(self.done, self.to_do)
        return row

    def _weighed(self, packed: Packed) -> Packed:
        """Say once how much room the encodings take; raises InputError where there is less."""
        if not self.weighed:
            self.weighed = True
            need, free = packed.bytes * self.to_do, disk_usage(self.request.out).free
            each = f"encodings take about {_size(packed.bytes)} an image, {_size(need)} for {self.to_do} images"
            self.callbacks.on_note(f"{each}; {_size(free)} are free")
            if need > free:
                raise InputError(f"{each}, but only {_size(free)} are free; make room, or run without --keep-encodings")
        return packed

    def _close(self, shard: int, rows: list[Row]) -> None:
        """Store a shard with its files, and its manifest line last."""
        failed = sum("failed" in row for row in rows)
        found = sum(len(row.get("annotations", ())) for row in rows)
        about = {"images": len(rows) - failed, "failed": failed, "instances": found, "seconds": self.engine.clock.take_lap()}
        with self.engine.clock.count("write"), explain_write_errors(self.request.out):
            files = {}
            if self.request.keep:
                path = name_encodings_file(self.request.out, shard)
                self._keep(path, [row["id"] for row in rows if "failed" not in row])
                files = {path.relative_to(self.request.out).as_posix(): measure_file(path)}
            settle(self.folder.written)
            for environment in self.engine.list_environments()[self.told :]:
                self.shards.record_environment(environment)
                self.told += 1
            self.shards.close(shard, rows, about, files)
        self.folder.written.clear()
        for row in rows:
            self.packed.pop(row["id"], None)
        self.since = time.perf_counter()

    def _keep(self, path: Path, ids: Sequence[str]) -> None:
        make_folder(path.parent)
        write_encodings(path, {id_: self.packed[id_] for id_ in ids})
        self.folder.written.append(path)


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
