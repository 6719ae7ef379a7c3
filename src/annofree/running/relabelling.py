"""Asking again what a run has seen, with other names: no picture is encoded, for the run kept its encodings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.datasets.sources import read_place
from annofree.errors import ImageError, InputError
from annofree.formats.run_shards import Row, Shard, Shards
from annofree.running.encodings import EncodingFile, kinds_of
from annofree.running.local import Clock, Encoded, Entry
from annofree.running.requests import encodings_file
from annofree.running.tasks import Tasks
from annofree.structures import Image

__all__ = ["Kept", "asked_of", "part_of"]


@dataclass
class Kept:
    """The encodings that the run in ``folder`` kept, for the methods of ``tasks``, which have to make the same ones.

    ``images`` says whether pictures are read too, to be drawn on.  Raises InputError for a run that kept none or is not
    complete, and for one of other models or of settings that make other encodings, naming the difference.
    """

    folder: Path
    tasks: Tasks
    images: bool = False
    device: str = "cpu"
    batch_size: int = 16
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        settings = asked_of(self.folder)
        if settings["encoding"] != self.tasks.encoding_key:
            before, now = " and ".join(settings["encoding"]), " and ".join(self.tasks.encoding_key)
            raise InputError(f"the encodings in {self.folder} are others: they were made by {before}, not by {now}")
        self._shards = Shards(self.folder)
        self._whole = list(self._shards.whole().values())
        self._firsts = [next(self._shards.rows_of(shard))["n"] for shard in self._whole]
        self._kinds = {name: kind for method in self.tasks.methods for name, kind in kinds_of(method).items()}
        self._open: tuple[int, EncodingFile, dict[int, Row]] | None = None

    def batches(self, entries: Sequence[Entry]) -> Iterator[list[Encoded]]:
        """The encodings, or why there is none."""
        for start in range(0, len(entries), self.batch_size):
            yield [self._read(*entry) for entry in entries[start : start + self.batch_size]]

    def _read(self, number: int, id_: str, place: str) -> Encoded:
        with self.clock.of("read"):
            file, rows = self._shard(bisect_right(self._firsts, number) - 1)
            row = rows[number]
            if "failed" in row:
                return Encoded(number, id_, place, problem=ImageError(row["failed"]))
            try:
                image: Image | None = read_place(place, id_) if self.images else None
            except ImageError as problem:
                return Encoded(number, id_, place, problem=problem)
            size = row["image"]["height"], row["image"]["width"]
            return Encoded(number, id_, place, size, image, file.read(id_))

    def _shard(self, index: int) -> tuple[EncodingFile, dict[int, Row]]:
        if self._open is None or self._open[0] != index:
            shard: Shard = self._whole[index]
            file = EncodingFile(encodings_file(self.folder, shard.number), self._kinds, self.device)
            self._open = index, file, {row["n"]: row for row in self._shards.rows_of(shard)}
        return self._open[1], self._open[2]


def asked_of(folder: Path) -> dict[str, Any]:
    """What a complete run that kept its encodings was asked for; raises InputError for any other folder."""
    shards = Shards(folder)
    if not shards.begun:
        raise InputError(f"expected the folder of a run, and {folder} is none; give what --out was")
    settings = shards.settings()
    if not settings["asked"]["encodings"]:
        raise InputError(f"the run in {folder} kept no encodings; make it again with --keep-encodings")
    if not shards.complete:
        raise InputError(f"the run in {folder} is not complete; give its command again first, which goes on with it")
    return settings


def part_of(settings: dict[str, Any]) -> tuple[int, int]:
    """Which part of the pictures a run took.

    >>> part_of({"asked": {"part": "2/4"}})
    (2, 4)
    """
    i, _, n = settings["asked"]["part"].partition("/")
    return int(i), int(n)
