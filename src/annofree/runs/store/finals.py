"""The files of a complete run, as those read them who come after it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from annofree.errors import InputError
from annofree.io.files.checksums import is_unchanged
from annofree.io.files.paths import confine
from annofree.runs.store.chunks import Chunks

__all__ = ["require_intact", "require_unchanged"]


def require_unchanged(run: Path, *names: str) -> None:
    """Raise InputError where a file of all images is not as the run wrote it; a folder without its state is not checked."""
    state = run / "shards" / "manifest.jsonl"
    known = ((Chunks(run).read_completion() or {}) if state.is_file() else {}).get("files", {})
    for name in names:
        if name in known and not is_unchanged(run / name, known[name], state.stat().st_mtime_ns):
            _refuse(run / name)


def require_intact(run: Path, places: Iterable[str]) -> None:
    """Do the same for files of single images; those that are gone are passed over, for some remove overlays to save room."""
    state = run / "shards" / "manifest.jsonl"
    if not state.is_file():
        return
    since, shards = state.stat().st_mtime_ns, Chunks(run)
    touched = {place for place in places if place and _is_touched(confine(run, place), since)}
    for shard in shards.list_whole().values() if touched else ():
        for row in shards.read_rows_of(shard):
            for place, known in row.get("files", {}).items():
                if place in touched and not is_unchanged(run / place, known):
                    _refuse(run / place)


def _is_touched(path: Path, since: int) -> bool:
    return path.exists() and max(path.stat().st_mtime_ns, path.stat().st_ctime_ns) >= since


def _refuse(path: Path) -> None:
    raise InputError(
        f"expected {path} as its run wrote it, but it was changed since or is damaged; give the command of the run "
        "again, which writes it anew, or move the folder shards away to go on with it as it is"
    )
