"""What long work says while it runs: progress, notes and failures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Callbacks"]


@dataclass(frozen=True)
class Callbacks:
    """Functions that long work calls; those left out do nothing.

    >>> heard = []
    >>> Callbacks(on_note=heard.append).on_note("resuming: 3 of 10 images are done")
    >>> heard
    ['resuming: 3 of 10 images are done']
    """

    # (name or path of an image, reason): an image failed, and the work continues without it
    on_failure: Callable[[str, str], None] = lambda name, reason: None
    # (done, total): units of work finished by this call
    on_progress: Callable[[int, int], None] = lambda done, total: None
    # a remark in words
    on_note: Callable[[str], None] = lambda text: None
    # (what is counted, what is loaded first): other work begins, and progress counts it; no text where nothing is loaded
    on_stage: Callable[[str, str], None] = lambda what, loading: None
