"""Many images through one method on this machine: read ahead, go on after a bad image.

    ids -> read in threads, one batch ahead -> encoded in batches -> predicted one by one

Batches are defined by position in the list, so a resumed run has exactly the batches of an uninterrupted one.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, TypeVar

import torch

from annofree.errors import AnnofreeError, ImageError, InputError, MissingError
from annofree.io.decode_budget import find_total_memory
from annofree.io.image_sources import Reader, read_images, read_place
from annofree.runs.clock import StageTimer
from annofree.structures import Image

__all__ = ["BatchEncoder", "EncodeResult", "Encoder", "Entry", "attempt", "synchronize"]

T = TypeVar("T")

Entry = tuple[int, str, str]
"""An image to come: its number among all, its id, and its place."""

_SHARE = 4  # of all memory, that the pixels of a batch may take
_NO_ROOM = ("out of memory", "can't allocate memory", "not enough memory")


class Encoder(Protocol):
    """Whoever can encode images: a method, or several."""

    def encode(self, images: Sequence[Image]) -> Sequence[Any]:
        """One encoding an image, in order."""
        ...


@dataclass(frozen=True, eq=False)
class EncodeResult:
    """What became of an image so far: its ``encoding``, or the ``problem`` with it; the ``image`` where it was read."""

    number: int
    id: str
    place: str
    size: tuple[int, int] = (0, 0)
    image: Image | None = None
    encoding: Any = None
    problem: Exception | None = None


@dataclass
class BatchEncoder:
    """Reads and encodes images, ``batch_size`` at a time, while ``threads`` threads read the next batch with ``reader``.

    Where memory runs out, batches are halved, for good, down to one image, which then is to blame.  Where anything else goes
    wrong with a batch, its images are encoded one by one, so that only the guilty one fails.  Programming errors,
    MissingError and Ctrl-C end the work.  Raises InputError for a batch size or a number of threads below 1.
    """

    method: Encoder
    batch_size: int = 4
    threads: int = 4
    clock: StageTimer = field(default_factory=StageTimer)
    on_less: Callable[[int], None] = lambda size: None
    reader: Reader = read_place
    _most: int = field(init=False)

    def __post_init__(self) -> None:
        for what, value in (("batch size", self.batch_size), ("number of threads", self.threads)):
            if value < 1:
                raise InputError(f"expected a {what} of at least 1, got {value}")
        self._most = self.batch_size

    def encode_batches(self, entries: Sequence[Entry]) -> Iterator[list[EncodeResult]]:
        """What became of some images, batch by batch, in order; enter ``silence_pillow`` around this.

        Two batches are in memory: the current and the next.  One whose pixels take more than a quarter of this machine's
        memory is cut.
        """
        places, most = ((id_, place) for _, id_, place in entries), find_total_memory() // _SHARE
        with closing(_closable(read_images(places, self.threads, self.batch_size + 1, self.reader))) as images:
            for start in range(0, len(entries), self.batch_size):
                left = entries[start : start + self.batch_size]
                while left:
                    with self.clock.count("read"):
                        read = _take(islice(images, len(left)), most)
                    yield self._encoded(left[: len(read)], read)
                    left = left[len(read) :]

    def _encoded(self, entries: Sequence[Entry], images: Sequence[Image | ImageError]) -> list[EncodeResult]:
        encodings = iter(self._tried([image for image in images if isinstance(image, Image)]))
        return [_outcome(e, p, next(encodings) if isinstance(p, Image) else p) for e, p in zip(entries, images, strict=True)]

    def _tried(self, images: Sequence[Image]) -> list[Any]:
        """An encoding or a problem an image, in order."""
        if not images:
            return []
        step = self._most  # may shrink on the way
        if len(images) > step:
            return [one for i in range(0, len(images), step) for one in self._tried(images[i : i + step])]
        found = attempt(self.clock, "encode", lambda: list(self.method.encode(images)))
        if not isinstance(found, Exception):
            if len(found) != len(images):
                raise ValueError(f"expected {len(images)} encodings of as many images, got {len(found)}")
            return found
        if len(images) == 1:
            return [found]
        if not _is_out_of_memory(found):
            return [one for image in images for one in self._tried([image])]
        self._most = max(1, len(images) // 2)
        self.on_less(self._most)
        return self._tried(images)


def _take(images: Iterable[tuple[str, str, Image | ImageError]], most: int) -> list[Image | ImageError]:
    """Images until their pixels take more than so many bytes."""
    taken: list[Image | ImageError] = []
    for _, _, image in images:
        taken.append(image)
        most -= image.pixels.nbytes if isinstance(image, Image) else 0
        if most < 0:
            break
    return taken


def _closable(images: Iterator[T]) -> Generator[T, None, None]:
    yield from images


def _outcome(entry: Entry, picture: Image | ImageError, found: Any) -> EncodeResult:
    image = picture if isinstance(picture, Image) else None
    what: dict[str, Any] = {"problem" if isinstance(found, Exception) else "encoding": found}
    return EncodeResult(*entry, size=image.size if image else (0, 0), image=image, **what)


def attempt(clock: StageTimer, part: str, do: Callable[[], T]) -> T | Exception:
    """Return what ``do`` returns or, where the image may be to blame, what it raises."""
    try:
        with clock.count(part):
            return synchronize(do())
    except (MissingError, NotImplementedError, RecursionError):
        raise  # the same for every image
    except (AnnofreeError, RuntimeError, MemoryError) as problem:
        # Tracebacks hold tensors: drop them to free memory for the next attempt.
        traceback.clear_frames(problem.__traceback__)
        failure = problem
    if isinstance(failure, torch.cuda.OutOfMemoryError):
        torch.cuda.empty_cache()
    return failure


def _is_out_of_memory(problem: Exception) -> bool:
    if isinstance(problem, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(problem, RuntimeError) and any(words in str(problem).lower() for words in _NO_ROOM)


def synchronize(value: T) -> T:
    """Synchronize the device and return the value, so that time and errors are attributed correctly.

    >>> synchronize(3)
    3
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return value
