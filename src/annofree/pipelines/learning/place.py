"""Where a learning is, and what its images are good for: what is refused or told before anything is found or trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from annofree.errors import InputError

__all__ = ["require_own_place", "require_readable", "restart_moved", "tell_held"]

_OWNERS = (
    ("learn.json", "learning"),
    ("run.json", "run"),
    ("shards/settings.json", "run"),
    ("detector.json", "detector"),
    ("archive.json", "archive"),
)
"""What tells that a folder is somebody's, and whose."""
_NAMED = 3  # images that a line names


def require_own_place(out: Path) -> None:
    """Raise InputError for a folder that is, or lies in, a run, a detector, an archive, or in that of another learning.

    >>> require_own_place(Path("examples/learned"))
    """
    place = out.resolve()
    for folder in (place, *place.parents):
        for mark, what in _OWNERS:
            if (folder / mark).is_file() and (what, folder) != ("learning", place):
                raise InputError(
                    f"expected --out outside of what else was made, got {out}, in the {what} {folder}; choose another"
                )


def restart_moved(out: Path, summary: Mapping[str, Any], run: Path, say: Callable[[str], None]) -> None:
    """Where a learning was moved, throw away the ``run`` of the round in progress, which is made again.

    For such a run holds the place of its detector among its settings, and would be taken for another one's.
    """
    place, before = str(out.resolve()), summary.get("place")
    if before not in (None, place) and run.is_dir():
        say(f"the learning was moved here from {before}, so the last round looks at the images again from the first on")
        shutil.rmtree(run)


def require_readable(failed: Mapping[str, str], count: int, say: Callable[[str], None]) -> None:
    """Tell which of ``count`` images take no part as they cannot be read; raises InputError where none can."""
    if not failed:
        return
    named = "; ".join(list(failed.values())[:_NAMED])  # which say of which image they are
    named += "; ..." if len(failed) > _NAMED else ""
    if len(failed) == count:
        raise InputError(f"expected images that can be read, but of {count} none can: {named}; name another folder")
    say(f"{len(failed)} of {count} images take no part: {named}")


def tell_held(ids: Sequence[str], held: Sequence[str], say: Callable[[str], None]) -> None:
    """Say of a folder with few images that rounds are judged on what was learned from."""
    if not held:
        say(f"{len(ids)} images are too few to spare any from training: rounds are judged on what they learned from")
