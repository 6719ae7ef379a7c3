"""When the process of a command began, and how it ends: as a person with a stopwatch has it."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NoReturn

from annofree.apps import IMPORTED
from annofree.runs.clock import StageTimer

__all__ = ["exit_now", "find_program_start", "is_program", "read_process_start", "start_clocks", "start_command_clock"]

_STAT = Path("/proc/self/stat")
_WAITED, _START = (11, 13), 22
"""Fields of /proc/PID/stat, from 1: minor and major faults of children that were waited for, and the start in ticks."""

_BEGAN: ContextVar[float | None] = ContextVar("began", default=None)


def read_process_start(imported: float = IMPORTED) -> float:
    """Return the moment of ``time.perf_counter`` at which this process began, on Linux, to 0.01 s.

    Elsewhere, and where a shell that had run other commands before turned into this process, it is when our first code was
    imported: what Python itself needs to start is missing then.
    """
    try:
        text = _STAT.read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()  # the second field, a name in brackets, may hold anything
        waited, ticks = any(int(fields[k - 3]) for k in _WAITED), int(fields[_START - 3])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return imported
    began = time.perf_counter() - age
    return imported if waited or began > imported else began


def is_program() -> bool:
    """Tell whether this process was started as the program that ``sys.argv`` names, and not as another that calls it."""
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    return program is not None and os.path.realpath(program) == os.path.realpath(sys.argv[0])


def find_program_start() -> float:
    """Return when this process began or, in a process that may have done other things before, the present moment."""
    return read_process_start() if is_program() else time.perf_counter()


@contextmanager
def start_clocks(at: float) -> Iterator[None]:
    """Let clocks of commands run from a moment of ``time.perf_counter`` on."""
    token = _BEGAN.set(at)
    try:
        yield
    finally:
        _BEGAN.reset(token)


def start_command_clock() -> StageTimer:
    """Return a clock that runs since the command was ``start_clocks``, or else from now on.

    >>> start_command_clock().running
    True
    """
    return StageTimer.started(_BEGAN.get())


def exit_now(code: str | int | None) -> NoReturn:
    """End with an exit code, as ``sys.exit`` does, but at once: threads and exit handlers end, and objects are not collected.

    The interpreter would look through all that the libraries made, for a second or more after the last word was said, which
    no clock of ours could tell.  In somebody else's program it is ``sys.exit``.
    """
    if is_program() and not isinstance(code, str):
        try:
            threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # closed by who started this
                    stream.flush()
        except OSError:
            sys.exit(code)  # a reader that went away
        os._exit(code or 0)
    sys.exit(code)
