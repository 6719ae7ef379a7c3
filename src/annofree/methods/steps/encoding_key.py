"""By what encodings of a method are shared, where steps come after it."""

from __future__ import annotations

from typing import Any

__all__ = ["find_encoding_key"]


def find_encoding_key(method: Any) -> tuple[Any, ...]:
    """The ``encoding_key`` of a method; the object itself for one that has none, so that it shares with nothing else.

    >>> method = object()
    >>> find_encoding_key(method) == (id(method),)
    True
    """
    return tuple(getattr(method, "encoding_key", (id(method),)))
