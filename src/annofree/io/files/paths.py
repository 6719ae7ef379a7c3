"""Paths that somebody else's file names, kept inside the folder that they belong to."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from annofree.errors import InputError
from annofree.io.atomic import make_folder, write_atomic
from annofree.io.text import clean_text

__all__ = ["confine", "confine_name", "copy_file", "explain_os_error"]


def confine(root: Path, name: str | Path) -> Path:
    """Return ``root``/``name``; raises InputError where it lies outside of ``root``, by its name or by a link on the way.

    >>> confine(Path("run"), "overlays/a.jpg").as_posix()
    'run/overlays/a.jpg'
    >>> confine(Path("run"), "../secret.txt")
    Traceback (most recent call last):
    annofree.errors.InputError: expected a file inside run, got '../secret.txt', which lies outside; it was left alone
    """
    path = confine_name(root, name)
    inside, place = os.path.realpath(root), os.path.realpath(path)
    if place != inside and not place.startswith(os.path.join(inside, "")):  # noqa: PTH118 -- for every file of a run
        raise InputError(
            f"expected a file inside {root}, but a link leads from {clean_text(path)} out of it, to {clean_text(place)}; "
            "put the file itself in the place of the link"
        )
    return path


def confine_name(root: Path, name: str | Path) -> Path:
    """Do the same by the name alone: links that the owner of ``root`` made are followed wherever they lead."""
    text = os.fspath(name)
    parts = text.replace("\\", "/").split("/") if os.name == "nt" else text.split("/")
    if "\0" in text:
        raise InputError(f"expected the name of a file inside {root}, got {text!r}, which has a NUL in it")
    if ".." in parts or os.path.isabs(text) or Path(text).drive:  # noqa: PTH117
        raise InputError(f"expected a file inside {root}, got {text!r}, which lies outside; it was left alone")
    return root / text


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole or not at all; the copy has no rights that its source has not, nor more than new files get."""
    make_folder(target.parent)
    write_atomic(target, lambda temporary: shutil.copyfile(source, temporary), source.stat().st_mode & 0o644)


_REMEDIES = {
    errno.ENOSPC: "make room and give the same command again",
    errno.EDQUOT: "make room and give the same command again",
    errno.EROFS: "choose another --out",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), and give the same command again",
    errno.EACCES: "change its rights, or choose another --out",
    errno.EPERM: "change its rights, or choose another --out",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "remove the links that lead to themselves",
    errno.EMFILE: "close files, or raise the limit: ulimit -n",
}


def explain_os_error(problem: OSError) -> str:
    """Return a line that says which file could not be read or written, why, and what to do.

    >>> explain_os_error(OSError(errno.ENOSPC, "No space left on device", "out/run.json"))
    'expected to read or write out/run.json, but: No space left on device; make room and give the same command again'
    """
    what = clean_text(str(problem.filename)) if problem.filename is not None else "a file"
    remedy = _REMEDIES.get(problem.errno or 0, "check it, and give the same command again")
    return f"expected to read or write {what}, but: {problem.strerror or problem}; {remedy}"
