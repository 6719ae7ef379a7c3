"""One method over many pictures on this machine: read ahead, go on after a bad picture, keep the time."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from annofree.datasets.folder import decode_image, pillow_quiet
from annofree.errors import AnnofreeError, ImageError, InputError, MissingError
from annofree.structures import Image, Vocabulary

__all__ = ["Timings", "run"]

T = TypeVar("T")


@dataclass(frozen=True)
class Timings:
    """How many pictures a run finished and failed, and the seconds it took.

    ``seconds_read`` is spent in the background while the method works, so the parts may sum to more than the total.

    >>> Timings(images=6, failed=1, seconds_total=3.0).images_per_second
    2.0
    """

    images: int = 0
    failed: int = 0
    seconds_total: float = 0.0
    seconds_read: float = 0.0
    seconds_encode: float = 0.0
    seconds_instances: float = 0.0

    @property
    def images_per_second(self) -> float:
        """Finished pictures a second of the whole run, 0 when there are none."""
        return self.images / self.seconds_total if self.images else 0.0

    def as_dict(self) -> dict[str, float]:
        """All of it, rounded to milliseconds, as run.json holds it."""
        return {k: round(v, 3) for k, v in asdict(self).items()} | {"images_per_second": round(self.images_per_second, 3)}


class Encoder(Protocol):
    """Whoever can encode pictures: a method, or several."""

    def encode(self, images: Sequence[Image]) -> Sequence[Any]:
        """One encoding an image, in order."""
        ...


def run(
    method: Encoder,
    paths: Sequence[Path],
    vocabulary: Vocabulary,
    *,
    batch_size: int = 4,
    ask: Callable[[Any, Vocabulary], Any] | None = None,
    on_result: Callable[[Path, Image, Any], None],
    on_failure: Callable[[Path, Exception], None],
    on_progress: Callable[[int, int], None] | None = None,
) -> Timings:
    """Ask a method for a vocabulary in many pictures, and hand each answer to ``on_result`` as soon as it is there.

    ``ask`` gets an encoding and the vocabulary; unless given, it is the method's ``instances``.
    Pictures are read one batch ahead in a background thread and encoded ``batch_size`` at a time.  One that cannot be
    read, or on which the method fails, goes to ``on_failure`` and the others go on; ``on_progress`` gets the pictures
    dealt with and their number.  The callbacks run in the caller's thread, and what they raise ends the run, as do
    programming errors, MissingError and Ctrl-C.  Raises InputError for a batch size below 1.
    """
    if batch_size < 1:
        raise InputError(f"expected a batch size of at least 1, got {batch_size}")
    ask = ask or method.instances  # type: ignore[attr-defined]
    job = _Job(method, ask, vocabulary, len(paths), on_result, on_failure, on_progress)
    with job.clock.of("total"), pillow_quiet(), ThreadPoolExecutor(1, thread_name_prefix="annofree-read") as reader:
        batches = [paths[i : i + batch_size] for i in range(0, len(paths), batch_size)]
        for images, failures in _one_ahead(reader, batches, job.clock):
            for path, problem in failures:
                job.fail(path, problem)
            job.process(images)
    return job.timings


_Read = tuple[list[tuple[Path, Image]], list[tuple[Path, ImageError]]]


def _one_ahead(reader: Executor, batches: Sequence[Sequence[Path]], clock: _Clock) -> Iterator[_Read]:
    """Yield each batch when it is read, while the next is being read."""
    coming: deque[Future[_Read]] = deque()
    for batch in batches:
        coming.append(reader.submit(_read, batch, clock))
        if len(coming) > 1:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def _read(paths: Sequence[Path], clock: _Clock) -> _Read:
    images: list[tuple[Path, Image]] = []
    failures: list[tuple[Path, ImageError]] = []
    with clock.of("read"):
        for path in paths:
            try:
                images.append((path, decode_image(path)))
            except ImageError as problem:
                failures.append((path, problem))
    return images, failures


class _Clock:
    def __init__(self) -> None:
        self.seconds = {"total": 0.0, "read": 0.0, "encode": 0.0, "instances": 0.0}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start


@dataclass
class _Job:
    method: Encoder
    ask: Callable[[Any, Vocabulary], Any]
    vocabulary: Vocabulary
    total: int
    on_result: Callable[[Path, Image, Any], None]
    on_failure: Callable[[Path, Exception], None]
    on_progress: Callable[[int, int], None] | None
    clock: _Clock = field(default_factory=_Clock)
    images: int = 0
    failed: int = 0

    @property
    def timings(self) -> Timings:
        return Timings(self.images, self.failed, **{f"seconds_{part}": s for part, s in self.clock.seconds.items()})

    def process(self, batch: Sequence[tuple[Path, Image]]) -> None:
        """Encode a batch at once or, should that fail, one by one, so that only the guilty picture fails."""
        if not batch:
            return
        encodings = self._try("encode", lambda: self.method.encode([image for _, image in batch]))
        if not isinstance(encodings, Exception):
            for (path, image), encoding in zip(batch, encodings, strict=True):
                self.finish(path, image, encoding)
        elif len(batch) == 1:
            self.fail(batch[0][0], encodings)
        else:
            for one in batch:
                self.process([one])

    def finish(self, path: Path, image: Image, encoding: Any) -> None:
        """Ask one encoding, and hand on what was found."""
        found = self._try("instances", lambda: self.ask(encoding, self.vocabulary))
        if isinstance(found, Exception):
            self.fail(path, found)
            return
        self.on_result(path, image, found)
        self.images += 1
        self._progress()

    def fail(self, path: Path, problem: Exception) -> None:
        """Hand on what went wrong with one picture."""
        self.on_failure(path, problem)
        self.failed += 1
        self._progress()

    def _try(self, part: str, do: Callable[[], T]) -> T | Exception:
        """Return what ``do`` returns or, where the picture may be to blame, what it raises."""
        try:
            with self.clock.of(part):
                return _settled(do())
        except (MissingError, NotImplementedError, RecursionError):
            raise  # the same for every picture
        except (AnnofreeError, RuntimeError, MemoryError) as problem:
            # Frames hold tensors; a kept exception would keep the memory that the next attempt needs.
            traceback.clear_frames(problem.__traceback__)
            failure = problem
        if isinstance(failure, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
        return failure

    def _progress(self) -> None:
        if self.on_progress:
            self.on_progress(self.images + self.failed, self.total)


def _settled(value: T) -> T:
    """Wait for the device, so that time is counted where it is spent and errors rise where they belong."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return value
