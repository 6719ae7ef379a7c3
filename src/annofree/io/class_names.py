"""Class names as people give them: in a text, in a list, or in a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from annofree.errors import InputError
from annofree.io.regular import require_regular

if TYPE_CHECKING:
    from annofree.structures import Vocabulary

__all__ = ["read_vocabulary"]


@overload
def read_vocabulary(
    classes: str | Iterable[str] | Vocabulary | None,
    classes_file: str | Path | None = None,
    *,
    optional: Literal[False] = False,
) -> Vocabulary: ...
@overload
def read_vocabulary(
    classes: str | Iterable[str] | Vocabulary | None, classes_file: str | Path | None = None, *, optional: bool
) -> Vocabulary | None: ...
def read_vocabulary(
    classes: str | Iterable[str] | Vocabulary | None, classes_file: str | Path | None = None, *, optional: bool = False
) -> Vocabulary | None:
    """Read class names from the one argument or the other; ``optional``, neither gives None.

    Raises InputError for neither, for both, for a file that cannot be read, and for names that do not serve.

    >>> read_vocabulary("dog, cat: kitten | tabby").names
    ('dog', 'cat')
    """
    from annofree.structures import Vocabulary

    if isinstance(classes, Vocabulary) and classes_file is None:
        return classes
    if optional and classes is None and classes_file is None:
        return None
    if (classes is None) == (classes_file is None):
        raise InputError(
            'expected either --classes "dog, cat" or --classes-file FILE, got ' + ("neither" if classes is None else "both")
        )
    if classes_file is not None:
        return Vocabulary.of(_lines(Path(classes_file)))
    return Vocabulary.of([] if isinstance(classes, str) and not classes.strip() else classes)  # type: ignore[arg-type]  # not None


def _lines(path: Path) -> list[str]:
    """Read a name a line; empty lines and those that begin with # are passed over."""
    try:
        lines = require_regular(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"expected a text file of class names at {path}, but it cannot be read: {problem}") from None
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
