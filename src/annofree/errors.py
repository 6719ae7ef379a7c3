"""The exceptions that annofree raises on purpose.

    AnnofreeError
    ├── InputError          a value, a file or a folder that cannot be used as given
    │   └── ImageError      one image that cannot be read
    └── MissingError        something that has to be installed or fetched first

Each message says what was expected, what arrived and what to do.  The command line prints it as one line.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["AnnofreeError", "ImageError", "InputError", "MissingError", "build_unknown_error"]


_LONGEST = 4000  # signs of a message; a name of a megabyte is told by its ends


class AnnofreeError(Exception):
    """Anything that annofree refuses, with a message made for the person who asked."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"


class InputError(AnnofreeError, ValueError):
    """A value, a file or a folder that cannot be used as given."""


class ImageError(InputError):
    """One image that cannot be read; a folder run names it and goes on."""


class MissingError(AnnofreeError):
    """Something that has to be installed or fetched first."""


def build_unknown_error(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Build the error for a name that is not in a registry, with the nearest names that are.

    >>> print(build_unknown_error("method", "zipp", ["zip", "sam_clip"]))
    unknown method 'zipp'; did you mean 'zip'? Known: sam_clip, zip
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else "."
    return InputError(f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}")
