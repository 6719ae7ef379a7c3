"""A line on a terminal that counts seconds while something loads."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from annofree.apps.cli.eta import format_duration
from annofree.io.text import clean_text

if TYPE_CHECKING:
    from annofree.runs.clock import StageTimer

__all__ = ["Ticking"]

_EVERY = 0.2  # seconds


class Ticking:
    """Writes over one line again and again, from a thread, until it is stopped; stands back while downloads draw bars."""

    def __init__(self, what: str, clock: StageTimer) -> None:
        self._what, self._clock, self._width = what, clock, 0
        self._over, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._tick, name="annofree-ticking", daemon=True)

    def start(self) -> None:
        """Begin to count."""
        self._thread.start()

    def say(self, text: str) -> None:
        """Print a line of its own."""
        with self._lock:
            self._write(clean_text(text), "\n")

    def stop(self, last: str = "") -> None:
        """Leave a last text on the line, or nothing; calls after the first do nothing."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            self._write(last, "\n" if last else "\r")

    def _tick(self) -> None:
        while not self._over.wait(_EVERY):  # at first, too: a call that is refused at once has no such line
            if not _others_draw():
                with self._lock:
                    self._write(f"{self._what} … {format_duration(self._clock.elapsed, 1)}")

    def _write(self, text: str, end: str = "") -> None:
        sys.stderr.write(f"\r{text:<{self._width}}{end}")
        sys.stderr.flush()
        self._width = 0 if end else len(text)


def _others_draw() -> bool:
    """Whether tqdm, which the hub's downloads are shown by, has bars on the screen."""
    return bool(getattr(getattr(sys.modules.get("tqdm.std"), "tqdm", None), "_instances", ()))
