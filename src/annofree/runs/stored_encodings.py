"""Asking again what a run has seen, with other names: no image is encoded, for the run kept its encodings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from annofree.detections.bank import BankSettings
from annofree.errors import ImageError, InputError
from annofree.io.callbacks import Callbacks
from annofree.io.image_sources import read_place
from annofree.methods.answering import Answering
from annofree.methods.archive_bank import collect_archive_bank
from annofree.retrieval.masked_archive import MaskedArchive
from annofree.runs.batch_encoder import EncodeResult, Entry
from annofree.runs.clock import StageTimer
from annofree.runs.config import name_encodings_file
from annofree.runs.encodings import EncodingFile
from annofree.runs.store.chunks import Chunk, Chunks, Row
from annofree.runs.store.damage import Damage
from annofree.runs.tasks import Tasks
from annofree.structures import Image, Vocabulary

__all__ = ["StoredEncodings", "read_settings", "read_shard"]


@dataclass
class StoredEncodings:
    """The stored encodings of the run in ``folder``, for the methods of ``tasks``, which must be compatible.

    ``images`` says whether images are read too, to be drawn on.  Raises InputError for a run that kept none or is not
    complete, and for one of other models or of settings that make other encodings, naming the difference.
    """

    folder: Path
    tasks: Tasks
    images: bool = False
    device: str = "cpu"
    batch_size: int = 16
    clock: StageTimer = field(default_factory=StageTimer)

    def __post_init__(self) -> None:
        settings = read_settings(self.folder)
        if settings["encoding"] != self.tasks.encoding_key:
            before, now = " and ".join(settings["encoding"]), " and ".join(self.tasks.encoding_key)
            raise InputError(f"the encodings in {self.folder} are others: they were made by {before}, not by {now}")
        self._shards = Chunks(self.folder)
        self._shards.require_whole()
        self._whole = list(self._shards.list_whole().values())
        self._firsts = [next(self._shards.read_rows_of(shard))["n"] for shard in self._whole]
        self._kinds = self.tasks.encoding_kinds
        self._open: tuple[int, EncodingFile, dict[int, Row]] | None = None

    def encode_batches(self, entries: Sequence[Entry]) -> Iterator[list[EncodeResult]]:
        """Yield encodings, or the reason why there is none."""
        for start in range(0, len(entries), self.batch_size):
            yield [self._read(*entry) for entry in entries[start : start + self.batch_size]]

    def read_encodings(self) -> Iterator[Any]:
        """What was kept of each image that could be encoded, one at a time: one encoding a method."""
        for index in range(len(self._whole)):
            file, rows = self._shard(index)
            yield from (file.read(row["id"]) for row in rows.values() if "failed" not in row)

    def find_changed_images(self, root: Path) -> Damage:
        """Which of the images below ``root`` are no longer those that were encoded."""
        found = (self._shards.find_damage(shard, root) for shard in self._whole)
        return Damage(images=[place for one in found for place in one.images])

    def with_calibration(self, vocabulary: Vocabulary) -> Tasks:
        """Return the tasks with presence set against that in the folder; raises InputError for methods that gate no class."""
        method = self.tasks.instances
        calibrate = getattr(method, "with_calibration", None)
        if calibrate is None:
            raise InputError("expected a method that asks whether a class is in an image at all, such as zip; leave it out")
        return replace(self.tasks, instances=calibrate((encoding[0] for encoding in self.read_encodings()), vocabulary))

    def with_bank(self, vocabulary: Vocabulary, settings: BankSettings, whose: StoredEncodings | None = None) -> Tasks:
        """Return the tasks with a bank of this folder, or ``whose`` it is, that shares in names and scores.

        Raises InputError for methods whose candidates CLIP does not look at one by one, and where nothing is told surely.
        """
        encodings = (encoding[0] for encoding in (whose or self).read_encodings())
        return self._give_bank(lambda method: method.with_bank_of(encodings, vocabulary, settings))

    def with_archive(
        self, vocabulary: Vocabulary, settings: BankSettings, archive: MaskedArchive, callbacks: Callbacks
    ) -> Tasks:
        """Return the tasks with a bank of an archive; its images are read and looked at, unless they were before.

        Raises InputError as ``with_bank`` does, and for an archive of none of the names.
        """
        return self._give_bank(lambda method: collect_archive_bank(method, archive, vocabulary, settings, callbacks))

    def _give_bank(self, give: Callable[[Any], Any]) -> Tasks:
        """The tasks with their method as ``give`` makes it of that without a bank."""
        method = self.tasks.instances or self.tasks.semantic
        if not isinstance(method, Answering):
            raise InputError(
                "expected a run of --policy answer whose candidates CLIP names, such as that of consensus, for a bank; make it "
                "again so, or leave --bank out"
            )
        banked, owner = give(method), {"instances": self.tasks.instances, "semantic": self.tasks.semantic}
        return replace(self.tasks, **{task: banked for task, one in owner.items() if one is method})

    def _read(self, number: int, id_: str, place: str) -> EncodeResult:
        with self.clock.count("read"):
            file, rows = self._shard(bisect_right(self._firsts, number) - 1)
            row = rows[number]
            if "failed" in row:
                return EncodeResult(number, id_, place, problem=ImageError(row["failed"]))
            try:
                image: Image | None = read_place(place, id_) if self.images else None
            except ImageError as problem:
                return EncodeResult(number, id_, place, problem=problem)
            size = row["image"]["height"], row["image"]["width"]
            return EncodeResult(number, id_, place, size, image, file.read(id_))

    def _shard(self, index: int) -> tuple[EncodingFile, dict[int, Row]]:
        if self._open is None or self._open[0] != index:
            shard: Chunk = self._whole[index]
            file = EncodingFile(name_encodings_file(self.folder, shard.number), self._kinds, self.device)
            self._open = index, file, {row["n"]: row for row in self._shards.read_rows_of(shard)}
        return self._open[1], self._open[2]


def read_settings(folder: Path) -> dict[str, Any]:
    """Settings of a complete run with stored encodings; raises InputError for any other folder."""
    shards = Chunks(folder)
    shards.require_begun()
    settings = shards.read_settings()
    if not settings["asked"]["encodings"]:
        raise InputError(f"the run in {folder} kept no encodings; make it again with --keep-encodings")
    shards.require_complete()
    return settings


def read_shard(settings: dict[str, Any]) -> tuple[int, int]:
    """Which part of the images a run took.

    >>> read_shard({"asked": {"part": "2/4"}})
    (2, 4)
    """
    i, _, n = settings["asked"]["part"].partition("/")
    return int(i), int(n)
