"""The acts of people on a run or a workspace, on the disk before anybody is told that they are.

FOLDER/corrections
├── journal.jsonl   one line a group of acts, an undo or a redo; append-only
└── lock            held by the one process that writes

A line has a checksum of what it holds.  A last line that is cut short, by a kill or a full disk, is passed over, and goes with
the next act.  Reading needs no lock.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from annofree.errors import InputError
from annofree.io.atomic import make_folder, name_errors
from annofree.io.files.checksums import add_checksum, take_checksum
from annofree.io.files.lock import acquire_lock
from annofree.io.regular import require_regular
from annofree.runs.corrections.acts import History, Instance, prepare_acts
from annofree.runs.store.disk import settle_folder

__all__ = ["Journal", "OutdatedError", "find_journal", "has_corrections", "read_histories"]

_FORMAT = 1


class OutdatedError(InputError):
    """An act on an image as it was before somebody else's act."""


def find_journal(folder: Path) -> Path:
    """The file of the acts on a run or a workspace."""
    return folder / "corrections" / "journal.jsonl"


def has_corrections(folder: Path) -> bool:
    """Whether people corrected anything there."""
    place = find_journal(folder)
    return place.is_file() and place.stat().st_size > 0


def read_histories(folder: Path) -> dict[str, History]:
    """The acts on each image, by its id; raises InputError for a journal that is damaged elsewhere than at its end."""
    histories: dict[str, History] = {}
    for line in _read_lines(find_journal(folder))[0]:
        histories.setdefault(line["image"], History()).record(line)
    return histories


class Journal:
    """The acts on a run or a workspace, for the one process that writes them; for threads.

    Raises InputError where another process writes, and for a journal that is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.path = find_journal(folder)
        make_folder(self.path.parent)
        taken = f"expected one server at a time for {folder}, and another is at work; use its page, or stop it first"
        self._lock: BaseFileLock = acquire_lock(self.path.parent / "lock", taken)
        self._turn = threading.Lock()
        self.histories: dict[str, History] = {}
        self._order: list[str] = []
        try:
            lines, self._end = _read_lines(self.path)
            for line in lines:
                self._take(line)
        except BaseException:
            self._lock.release()
            raise

    @property
    def revision(self) -> int:
        """How many lines there are."""
        return len(self._order)

    def list_changed(self, since: int) -> list[str]:
        """The images of the lines after a revision, each once."""
        return list(dict.fromkeys(self._order[max(0, since) :]))

    def find(self, image: str) -> History:
        """The acts on an image, none where nobody touched it."""
        return self.histories.get(image, History())

    def act(self, image: str, asked: Any, shown: list[Instance], size: tuple[int, int], revision: Any, who: str) -> None:
        """Do acts on an image as it is ``shown``; raises OutdatedError for another revision than the present one."""
        with self._turn:
            history = self.find(image)
            _require_present(history, revision)
            acts = prepare_acts(asked, shown, history, size, revision + 1)
            self._append({"image": image, "revision": revision + 1, **_sign(who), "size": list(size), "acts": acts})

    def take_step(self, image: str, way: str, who: str, revision: Any = None) -> None:
        """Take the last acts on an image back (``undo``), or do them again (``redo``).

        Raises InputError where there are none, and OutdatedError for a ``revision`` that is given and is not the present one.
        """
        with self._turn:
            history = self.find(image)
            if revision is not None:
                _require_present(history, revision)
            if not history.has_step(way):
                raise InputError(f"expected something to {way} in this image, and there is nothing")
            self._append({"image": image, "revision": history.revision + 1, **_sign(who), way: True})

    def close(self) -> None:
        """Let others write."""
        self._lock.release()

    def _append(self, line: Mapping[str, Any]) -> None:
        """Write a line, on the disk when this returns, and take it in."""
        with name_errors(self.path), self.path.open("a+b") as file:
            if file.seek(0, os.SEEK_END) != self._end:
                file.truncate(self._end)  # what a kill or a full disk cut short
            whole = {"format": _FORMAT, **line}
            text = json.dumps(add_checksum(whole)).encode("ascii") + b"\n"
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if not self._order:
            settle_folder(self.path.parent)
        self._end += len(text)
        self._take(whole)

    def _take(self, line: Mapping[str, Any]) -> None:
        self.histories.setdefault(line["image"], History()).record(line)
        self._order.append(line["image"])


def _require_present(history: History, revision: Any) -> None:
    if type(revision) is not int or revision != history.revision:
        raise OutdatedError(
            f"expected revision {history.revision} of the image, got {str(revision)!r:.40}: it was changed elsewhere, "
            "in another tab perhaps; look at it as it is now"
        )


def _sign(who: str) -> dict[str, str]:
    return {"who": who, "when": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")}


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines of a journal, and where the last whole one ends."""
    lines: list[dict[str, Any]] = []
    end = 0
    for number, (text, is_last) in enumerate(_split(path), 1):
        try:
            if not text.endswith(b"\n"):
                raise ValueError("it is cut short")
            lines.append(_check_line(json.loads(text)))
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            if is_last:
                break
            raise InputError(
                f"expected acts in {path}, but line {number} is damaged ({problem}); put a copy in its place, or move it away"
            ) from None
        end += len(text)
    return lines, end


def _split(path: Path) -> Iterator[tuple[bytes, bool]]:
    """The lines of a file, each with whether it is the last."""
    if not path.exists():
        return
    with require_regular(path).open("rb") as file:
        before: bytes | None = None
        for text in file:
            if before is not None:
                yield before, False
            before = text
        if before is not None:
            yield before, True


def _check_line(held: Any) -> dict[str, Any]:
    line = take_checksum(held)
    if line["format"] != _FORMAT or not isinstance(line["image"], str) or type(line["revision"]) is not int:
        raise ValueError("it is of another version")
    return line
