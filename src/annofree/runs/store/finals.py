"""The files of all images of a complete run, as those read them who come after it."""

from __future__ import annotations

from pathlib import Path

from annofree.errors import InputError
from annofree.io.files.checksums import is_unchanged
from annofree.runs.store.chunks import Chunks

__all__ = ["require_unchanged"]


def require_unchanged(run: Path, name: str) -> None:
    """Raise InputError where a file of a complete run is not as the run wrote it; a folder without its state is not checked."""
    completion = Chunks(run).read_completion() if (run / "shards" / "manifest.jsonl").is_file() else None
    known = (completion or {}).get("files", {}).get(name)
    if known and not is_unchanged(run / name, known, (run / "shards" / "manifest.jsonl").stat().st_mtime_ns):
        raise InputError(
            f"expected {run / name} as its run wrote it, but it was changed since or is damaged; give the command of the run "
            "again, which writes it anew, or move the folder shards away to go on with it as it is"
        )
