"""What of a run is no longer as it was when it was made: files that it wrote, and images that it looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.io.files.paths import confine
from annofree.io.image_checksums import is_image_unchanged
from annofree.runs.store.checks import find_damage

__all__ = ["Damage", "find_shard_damage"]


@dataclass
class Damage:
    """The ``files`` of a run that are gone or changed, and the ``images`` that changed, by their places."""

    files: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.files or self.images)

    def describe(self) -> list[str]:
        """Return a line for each kind.

        >>> Damage(images=["a.jpg", "b.jpg"]).describe()
        ['2 images changed since they were looked at, such as a.jpg']
        """
        told = {"of the run's files are gone or damaged": self.files, "images changed since they were looked at": self.images}
        return [f"{len(places)} {words}, such as {places[0]}" for words, places in told.items() if places]


def find_shard_damage(out: Path, shard: Path, rows: Iterable[dict[str, Any]], files: Any, root: Path | None) -> Damage:
    """Look after the files of a ``shard``, and after its images below ``root`` where there is one.

    Those that were not touched since the shard was written are known by their size, any other by checksum.
    """
    since, found = shard.stat().st_mtime_ns, Damage()
    _look(out, files, since, found)
    for row in rows:
        _look(out, row.get("files", {}), since, found)
        known, place = row.get("input"), str(root) + "/" + row["id"]
        if known and root is not None and not is_image_unchanged(place, known, since):
            found.images.append(place)
    return found


def _look(out: Path, files: dict[str, list[int]], since: int, found: Damage) -> None:
    for place in files:
        confine(out, place)
    found.files += find_damage(out, files, since)
