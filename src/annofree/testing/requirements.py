"""Assertions of the conformance suites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from annofree.errors import InputError

__all__ = ["require", "require_refused"]


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with the message unless the condition holds."""
    # Not an assert statement: python -O must not turn the suite off.
    if not condition:
        raise AssertionError(message)


def require_refused(what: str, call: Callable[[], Any]) -> None:
    """Raise AssertionError unless the call raises InputError."""
    try:
        call()
    except InputError:
        return
    except Exception as error:
        raise AssertionError(f"{what}: expected InputError, got {type(error).__name__}: {error}") from error
    raise AssertionError(f"{what}: expected InputError, got an answer")
