"""What an engine is: whoever does images of a run, in the order of the run; and the engine that is this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

from annofree.runs.batch_encoder import Entry
from annofree.runs.clock import StageTimer
from annofree.runs.config import EncodingSource
from annofree.runs.engines.image_work import ImageDone, ImageWork
from annofree.runs.environment import describe_environment
from annofree.runs.store.chunks import Row
from annofree.runs.store.names import ResultNames

__all__ = ["Engine", "LocalEngine", "RunImages"]

Arrived = Callable[[ImageDone], Row]
"""Takes in what became of an image, as soon as it is known, and returns its row."""


@dataclass(frozen=True)
class RunImages:
    """The images of a run by number: their ids, where they are, and what their results are called."""

    ids: Sequence[str]
    root: str
    names: ResultNames
    # images in a stretch
    stretch: int

    def list_entries(self, numbers: Sequence[int]) -> Sequence[Entry]:
        """The number, id and place of some images."""
        return _Entries(numbers, self.ids, f"{self.root}/".replace("//", "/"))


class Engine(ABC):
    """Does images of a run; batches begin where those of an undisturbed run begin, so that results are the same."""

    # counts the seconds of the run
    clock: StageTimer
    # images encoded together
    batch_size: int

    @abstractmethod
    def stream(self, images: RunImages, groups: Iterable[Sequence[int]], arrived: Arrived) -> Generator[list[Row], None, None]:
        """The rows of groups of images, some at a time, in order; ``arrived`` hears of each image once, in any order."""

    @abstractmethod
    def list_environments(self) -> list[dict[str, Any]]:
        """The environments of whoever does the work, as far as they are known."""


@dataclass
class LocalEngine(Engine):
    """The engine that is this process: encodings come from a source, batch by batch."""

    feed: EncodingSource
    work: ImageWork

    def __post_init__(self) -> None:
        self.clock, self.batch_size = self.feed.clock, self.feed.batch_size
        self._environment = describe_environment()

    def stream(self, images: RunImages, groups: Iterable[Sequence[int]], arrived: Arrived) -> Generator[list[Row], None, None]:
        """Do one batch after the other, and none before it is asked for."""
        for numbers in groups:
            for batch in self.feed.encode_batches(images.list_entries(numbers)):
                yield [arrived(self.work.process(one, images.names.find_names(one.id))) for one in batch]

    def list_environments(self) -> list[dict[str, Any]]:
        """That of this process."""
        return [self._environment]


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
