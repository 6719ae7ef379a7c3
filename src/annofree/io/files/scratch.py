"""A folder for what is on its way, which the next call removes where a kill left it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from annofree.errors import InputError
from annofree.io.files.lock import hold_lock

__all__ = ["open_scratch", "remove_scratch"]

_WITHIN = {"lock", "new"}


@contextmanager
def open_scratch(out: Path, kind: str) -> Iterator[Path]:
    """Yield an empty folder beside ``out``, on the same disk, and remove it in the end.

    Those of killed calls of the same ``kind`` for the same ``out`` are removed first; one that is at work holds the lock in its
    own.  Raises OSError where there cannot be one.
    """
    remove_scratch(out, kind)
    prefix = _name_prefix(out, kind)
    with (
        tempfile.TemporaryDirectory(prefix=prefix, dir=out.parent, ignore_cleanup_errors=True) as name,
        hold_lock(Path(name, "lock"), f"expected {name} for this call alone"),
    ):
        (Path(name) / "new").mkdir()
        yield Path(name) / "new"


def remove_scratch(out: Path, kind: str) -> None:
    """Remove the folders of killed calls of this ``kind`` for this ``out``, known by what is in them."""
    for left in out.parent.glob(f"{_escape(_name_prefix(out, kind))}????????"):
        with suppress(OSError):  # it is gone, or somebody else's
            if left.is_dir() and not left.is_symlink() and {path.name for path in left.iterdir()} <= _WITHIN:
                _remove_left(left)


def _name_prefix(out: Path, kind: str) -> str:
    return f".{kind}-{out.name[:100]}-"


def _remove_left(folder: Path) -> None:
    try:
        with hold_lock(folder / "lock", "at work"):
            pass
    except InputError:
        return
    shutil.rmtree(folder, ignore_errors=True)


def _escape(text: str) -> str:
    """A text as a pattern that it alone fits."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)
