"""annofree's own folder, and what is written down there of each model at its first fetch.

A published file without a known hash is trusted on first use; later changes are errors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.hub.cards import hash_file
from annofree.io.atomic import write_json
from annofree.io.read_json import read_json_object

__all__ = ["Seen", "find_home", "make_slug"]


def find_home() -> Path:
    """Return annofree's own folder, which may not exist yet."""
    if own := os.environ.get("ANNOFREE_HOME"):
        return Path(own).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "annofree"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "annofree"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "annofree"


def make_slug(name: str) -> str:
    """Return a model's name as a valid file name.

    >>> make_slug("open_clip:ViT-B-16/datacomp_xl_s13b_b90k")
    'open_clip--ViT-B-16--datacomp_xl_s13b_b90k'
    """
    return name.replace(":", "--").replace("/", "--")


@dataclass(frozen=True)
class Seen:
    """Recorded state of a model's files: sha256, size and time (ns) by name; of what was ``renewed``, over its card's."""

    hub: str = ""
    revision: str = ""
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    renewed: bool = False

    @classmethod
    def of(cls, name: str) -> Seen:
        """Read the recorded state of a model; empty if there is none."""
        path = _seen(name)
        try:
            seen = cls(**read_json_object(path))
            if not all({"sha256", "size", "time"} <= set(known) for known in seen.files.values()):
                raise ValueError("expected sha256, size and time of each file")
            return seen
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as problem:
            raise InputError(
                f"{path} should hold what {name} was at its first fetch, but cannot be read: {problem}; delete it, "
                f"and `annofree models pull {name}`"
            ) from None

    @staticmethod
    def forget(name: str) -> None:
        """Delete the recorded state, so that the model is trusted again at the next download."""
        _seen(name).unlink(missing_ok=True)

    def find_sha256(self, name: str) -> str | None:
        """The recorded hash of a file."""
        known = self.files.get(name)
        return known["sha256"] if known else None

    def look(self, path: Path, again: bool = False) -> dict[str, Any]:
        """Hash a file, unless its size and time are unchanged and ``again`` is not set."""
        stat, known = path.stat(), self.files.get(path.name)
        stamp = {"size": stat.st_size, "time": stat.st_mtime_ns}
        if known and not again and all(known[k] == v for k, v in stamp.items()):
            return dict(known)
        return {"sha256": hash_file(path), **stamp}

    def write(self, name: str) -> None:
        """Save the recorded state; a read-only folder is not an error here (``annofree doctor`` reports it)."""
        with suppress(OSError):
            _seen(name).parent.mkdir(parents=True, exist_ok=True)
            write_json(_seen(name), asdict(self), indent=2)


def _seen(name: str) -> Path:
    return find_home() / "seen" / f"{make_slug(name)}.json"
