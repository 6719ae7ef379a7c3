"""Class names from the command line."""

from __future__ import annotations

from pathlib import Path

from annofree.errors import InputError

__all__ = ["read_classes"]


def read_classes(classes: str | None, classes_file: Path | None) -> str | list[str]:
    """Read class names from one option or the other; raises InputError for neither and both, and a file that is no text."""
    if (classes is None) == (classes_file is None):
        raise InputError(
            'expected either --classes "dog, cat" or --classes-file FILE, got ' + ("neither" if classes is None else "both")
        )
    if classes_file is None:
        return classes if classes and classes.strip() else []
    try:
        lines = classes_file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"expected a text file of class names at {classes_file}, but it cannot be read: {problem}") from None
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
