"""The engine whose workers Ray has: each loads the models, and sends the rows and files of its images to this process.

So images are read where the workers are, from a folder that all machines have or from object storage, and the folder of the run
is on the disk of this process alone: nobody else writes there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import torch

from annofree.io.callbacks import Callbacks
from annofree.io.images import silence_pillow
from annofree.runs.batch_encoder import BatchEncoder, Entry
from annofree.runs.clock import StageTimer
from annofree.runs.config import RunConfig
from annofree.runs.engines.engine import Arrived, Engine, RunImages
from annofree.runs.engines.image_work import ImageDone, ImageWork
from annofree.runs.engines.ray_pool import Cluster, RayPool
from annofree.runs.engines.worker_plan import WorkerPlan
from annofree.runs.environment import describe_environment
from annofree.runs.store.chunks import Row
from annofree.runs.store.layout import RunFolder
from annofree.runs.store.names import ResultName
from annofree.runs.tasks import Tasks, TasksInfo

__all__ = ["RayEngine"]

_SCRATCH = "annofree-worker-"  # and the number of the process
_READERS = 2  # threads that read images ahead in a worker

_Images = Sequence[tuple[Entry, ResultName]]


@dataclass(frozen=True)
class _Batch:
    """What became of a batch, and what there is to say of it."""

    images: list[ImageDone]
    notes: list[str]


class RayEngine(Engine):
    """Workers of a cluster; enter it to have them.  ``make_tasks`` loads the models, in each worker."""

    def __init__(
        self,
        cluster: Cluster,
        request: RunConfig,
        make_tasks: Callable[[], Tasks],
        batch_size: int,
        clock: StageTimer,
        callbacks: Callbacks,
    ) -> None:
        self.request, self.make_tasks = request, make_tasks
        self.batch_size, self.clock, self.callbacks = batch_size, clock, callbacks
        self.pool = RayPool[_Images](cluster, request.device, _leave_out, callbacks.on_note)

    def __enter__(self) -> RayEngine:
        # the images of a job come with the job: a million names would be in the memory of each worker
        asked = replace(self.request, ids=("",))

        def make(plan: WorkerPlan) -> partial[_RunWorker]:
            return partial(_RunWorker, _Order(asked, self.make_tasks, self.batch_size, plan.threads))

        self.info: TasksInfo = self.pool.start(make)
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.__exit__()

    def stream(self, images: RunImages, groups: Iterable[Sequence[int]], arrived: Arrived) -> Generator[list[Row], None, None]:
        """Let workers do a stretch each; what they wrote is taken in as it comes."""

        def take_in(batch: _Batch) -> list[Row]:
            for note in batch.notes:
                self.callbacks.on_note(note)
            return [arrived(image) for image in batch.images]

        jobs = (_name_images(images, numbers) for group in groups for numbers in _cut(group, images.stretch))
        with closing(self.pool.stream(jobs, take_in)) as batches:
            while True:
                with self.clock.count("encode"):  # for others, whatever they do
                    rows = next(batches, None)
                if rows is None:
                    return
                yield rows

    def list_environments(self) -> list[dict[str, Any]]:
        """Those of the workers that began."""
        return self.pool.own


@dataclass(frozen=True)
class _Order:
    """What a worker has to know, once."""

    request: RunConfig
    make_tasks: Callable[[], Tasks]
    batch_size: int
    threads: int


class _RunWorker:
    """Does images in the process of a worker; results are written to a folder of its own, and sent from there."""

    def __init__(self, order: _Order) -> None:
        _clear_scratch()
        torch.set_num_threads(order.threads)
        asked, clock, self.notes = order.request, StageTimer(), list[str]()
        self.tasks = order.make_tasks()
        kinds = self.tasks.encoding_kinds if asked.keep else {}
        key, remarks = self.tasks.encoding_key, self.tasks.remarks(asked.vocabulary)
        self.about = TasksInfo(self.tasks.provenance, key, remarks, kinds), describe_environment()
        self.feed = BatchEncoder(self.tasks, order.batch_size, _READERS, clock, self._note_smaller_batches)
        self.asked, self.clock = asked, clock

    def process(self, images: _Images) -> Iterator[_Batch]:
        """Do some images, a batch at a time."""
        asked, names = self.asked, {entry[0]: name for entry, name in images}
        with TemporaryDirectory(prefix=f"{_SCRATCH}{os.getpid()}-") as scratch, silence_pillow():
            folder = RunFolder(Path(scratch), asked.vocabulary.names, asked.wanted, asked.stuff, asked.overlays)
            work = ImageWork(folder, self.tasks, asked.vocabulary, self.clock, asked.min_score, asked.keep, asked.watched)
            for batch in self.feed.encode_batches([entry for entry, _ in images]):
                yield _Batch([_bring(folder, work.process(one, names[one.number])) for one in batch], self.notes)
                self.notes = []

    def _note_smaller_batches(self, size: int) -> None:
        self.notes.append(f"memory ran out in a worker; from now on it encodes at most {size} images at once")


def _bring(folder: RunFolder, done: ImageDone) -> ImageDone:
    """Take along the files of an image, which are gone then."""
    files = {path.relative_to(folder.out).as_posix(): path.read_bytes() for path in folder.written}
    for path in folder.written:
        path.unlink()
    folder.written.clear()
    return replace(done, files=files)


def _name_images(images: RunImages, numbers: Sequence[int]) -> _Images:
    entries = images.list_entries(numbers)
    return [(entry, images.names.find_names(entry[1])) for entry in entries]


def _cut(group: Sequence[int], stretch: int) -> Iterator[Sequence[int]]:
    """The stretches that a group of images has a part of."""
    for _, own in groupby(group, lambda number: number // stretch):
        yield list(own)


def _leave_out(images: _Images, batch: _Batch) -> _Images:
    """What is left of a job after a batch."""
    return images[len(batch.images) :]


def _clear_scratch() -> None:
    """Remove what workers left that were killed."""
    for folder in Path(gettempdir()).glob(f"{_SCRATCH}*"):
        pid = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        if pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True
