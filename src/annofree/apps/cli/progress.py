"""Progress on the error stream: loading as a step of its own, then how far the work is and what time is left.

On a terminal a line that counts and a bar; elsewhere plain lines, at most one in ten seconds, and one at the end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from annofree.apps.cli.eta import Eta, format_duration, format_pace
from annofree.apps.cli.ticking import Ticking
from annofree.io.callbacks import Callbacks
from annofree.io.text import clean_text

if TYPE_CHECKING:
    from annofree.runs.clock import StageTimer

__all__ = ["Display", "show_progress"]

_SECONDS_BETWEEN_LINES = 10.0


class Display:
    """Shows nothing, and tells the clock when loading is over: when it first hears how far the work is."""

    def __init__(self, what: str, eta: Eta, clock: StageTimer | None = None, loading: str = "") -> None:
        self.what, self.eta, self.clock, self.loading = what, eta, clock, loading

    def __call__(self, done: int, total: int) -> None:
        """Take in how many are done."""
        self._loaded()
        self.eta.update(done, total)
        self.show(done, total)

    def _loaded(self) -> None:
        clock, self.clock = self.clock, None
        if clock is not None:
            if clock.part == "load":
                clock.switch("other")
            self.end_loading(clock.seconds["load"])

    @property
    def callbacks(self) -> Callbacks:
        """What prints failures, and notes and progress unless it is quiet, on the error stream."""
        return Callbacks(lambda _, reason: self.say(f"failed: {reason}"), self, self.note, self.begin)

    def note(self, text: str) -> None:
        """Print a note, unless quiet."""
        if type(self) is not Display:
            self.say(f"note: {text}")

    def begin(self, what: str, loading: str = "") -> None:
        """Begin other work; ``loading`` says what it loads first, since the start of the command where that still lasts."""
        from annofree.runs.clock import StageTimer

        self.close()
        self.what, self.loading, self.clock = what, loading, (self.clock or StageTimer.started()) if loading else None
        self.eta.restart()
        self.begin_loading()

    def begin_loading(self) -> None:
        """Show that loading began."""

    def end_loading(self, seconds: float) -> None:
        """Show what loading took."""

    def show(self, done: int, total: int) -> None:
        """Show how far the work is."""

    def say(self, text: str) -> None:
        """Print a line on the error stream, whatever is shown there."""
        _print(text)

    def close(self) -> None:
        """Take away what would be in the way of other output."""


class _Lines(Display):
    """Plain lines, for files and pipes."""

    _last, _ended = 0.0, False

    def end_loading(self, seconds: float) -> None:
        _print(f"{self.loading}: {format_duration(seconds, 1)}")

    def show(self, done: int, total: int) -> None:
        now = self.eta.seconds
        if now < self._last:
            self._last = 0.0
        if done >= total:
            if total and not self._ended:
                _print(f"{self.what}: {done} of {total}" + (f" in {format_duration(now, 1)}" if now else ""))
            self._ended = True
            return
        self._ended = False  # other work began
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            _print(f"{self.what}: {done} of {total}, {format_remaining(self.eta)}")


class _Terminal(Display):
    """A line that counts while it loads, then a bar."""

    _ticking: Ticking | None = None
    _bar: Any = None

    def begin_loading(self) -> None:
        if self.clock is not None:
            self._ticking = Ticking(self.loading, self.clock)
            self._ticking.start()

    def end_loading(self, seconds: float) -> None:
        if self._ticking is not None:
            self._ticking.stop(f"{self.loading} … {format_duration(seconds, 1)}")

    def show(self, done: int, total: int) -> None:
        if self._bar is None and total:
            from annofree.apps.cli.bar import Bar

            self._bar = Bar(self.what, self.eta, total)
        if self._bar is not None:
            self._bar.show(done, total)

    def say(self, text: str) -> None:
        if self._ticking is not None:
            self._ticking.say(text)
        else:
            _print(text)

    def close(self) -> None:
        if self._ticking is not None:
            self._ticking.stop()
        if self._bar is not None:
            self._bar.close()
        self._ticking = self._bar = None


@contextmanager
def show_progress(
    what: str,
    quiet: bool = False,
    *,
    clock: StageTimer | None = None,
    loading: str = "loading models",
    batch: int = 1,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[Display]:
    """Give what is called with (done, total), from 0 or what an earlier call did on, and shows it on the error stream.

    With a ``clock``, all before the first such call is a step of its own, called ``loading``, since the clock's start.
    ``batch`` is how many are done together.
    """
    if quiet:
        from annofree.hub.download import silence

        silence()
    kind = Display if quiet or sys.stderr is None else _Terminal if _is_terminal() else _Lines
    display = kind(what, Eta(batch, now), clock, loading)
    display.begin_loading()
    try:
        yield display
    finally:
        display.close()


def format_remaining(eta: Eta) -> str:
    """The pace and the time that is left, in words."""
    pace, left = eta.pace, eta.estimate_left()
    return "estimating the time left" if pace is None or left is None else f"{format_pace(pace)}, {format_duration(left)} left"


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def _print(line: str) -> None:
    if sys.stderr is not None:  # closed; print would take the other stream
        print(clean_text(line, lines=True), file=sys.stderr, flush=True)
