"""What a run owns of its folder: how it is removed, and what of others is left alone.

A run is removed in an order that survives a kill: first its settings are put aside, so that it is none any more, then its
files, then the rest of its state.  What is found put aside is removed before anything else is begun.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from annofree.errors import InputError
from annofree.io.files.paths import confine
from annofree.io.regular import require_regular
from annofree.runs.store.names import ResultNames

__all__ = ["CLEARED", "FINALS", "clear_run", "clear_state", "refuse_foreign"]

CLEARED = "cleared.json"
FINALS = ("annotations.json", "panoptic.json", "quarantine.json", "run.json", "labels/shares.json", "labels/classes.json")
"""The files of all images."""

_FOLDERS = ("overlays", "overlays-semantic", "labels", "panoptic", "encodings")
_STATE = re.compile(
    r"(settings|cleared)\.json|inputs\.txt|manifest\.jsonl|\d{5,}(-\d+)?\.jsonl|\..+-[a-z0-9_]{8}(\.\w+)?", re.DOTALL
)


def clear_run(out: Path) -> None:
    """Remove all that a run wrote to a folder, and nothing else; goes on with what a kill cut short."""
    state = confine(out, "shards")
    with suppress(FileNotFoundError):
        (state / "settings.json").replace(state / CLEARED)
    for place in (*FINALS, *_list_results(state)):
        with suppress(FileNotFoundError, NotADirectoryError):
            confine(out, place).unlink()
    for name in _FOLDERS:
        _remove_empty(confine(out, name))
    clear_state(state)


def clear_state(folder: Path) -> None:
    """Remove the files of a run's state; what says that it is being removed goes last."""
    own = [path for path in folder.iterdir() if _STATE.fullmatch(path.name)] if folder.is_dir() else []
    for path in sorted(own, key=lambda path: (path.name == CLEARED, path.name)):
        path.unlink()


def refuse_foreign(out: Path) -> None:
    """Raise InputError where a folder has results that no run there wrote."""
    if foreign := _find_foreign(out):
        raise InputError(
            f"expected a new or empty folder, or that of a run, but {out} has {foreign}, which no run there wrote; "
            "choose another --out, or move it away"
        )


def _find_foreign(out: Path) -> str | None:
    """What stands where a run would write and that no run here wrote, None where all is free."""
    for name in (*FINALS[:4], *_FOLDERS):
        place = out / name
        if place.is_symlink() or place.is_file() or (place.is_dir() and any(place.iterdir())):
            return name
    return None


def _list_results(state: Path) -> Iterator[str]:
    """What the run may have made of its images, by their names."""
    try:
        with require_regular(state / "inputs.txt").open(encoding="ascii") as lines:
            ids = [str(json.loads(line)) for line in lines]
    except (OSError, ValueError):
        ids = []  # the files of a run whose list is gone stay
    names = ResultNames(ids)
    for result in map(names.find_names, ids):
        yield f"overlays/{result.stem}.jpg"
        yield f"overlays-semantic/{result.stem}.jpg"
        yield f"labels/{result.stem}.png"
        yield f"panoptic/{result.portable}.png"
    yield from (f"encodings/{path.name}" for path in (state.parent / "encodings").glob("[0-9]*.safetensors"))


def _remove_empty(folder: Path) -> None:
    """Remove a folder and those in it where nothing is left in them."""
    below = sorted((path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()), reverse=True)
    for path in (*below, folder):
        with suppress(OSError):
            path.rmdir()
