"""Pages stand outside of runs: a run owns its folder."""

from __future__ import annotations

from pathlib import Path

from annofree.errors import InputError

__all__ = ["require_outside_runs"]


def require_outside_runs(out: Path) -> None:
    """Raise InputError for a folder that is a run or lies in one.

    >>> require_outside_runs(Path("examples/page"))
    """
    place = out.resolve()
    for folder in (place, *place.parents):
        if (folder / "run.json").is_file():
            raise InputError(f"expected --out outside of runs, got {out}, in the run {folder}; choose another folder")
