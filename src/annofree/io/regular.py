"""Files that end: pipes, sockets and devices are none, and reading them may wait or go on for ever."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

__all__ = ["require_regular"]

_ASKED_FOR = ("/dev/", "/proc/")  # such as /dev/stdin, and what a shell makes of <(command)


def require_regular(path: Path) -> Path:
    """Return a path; raises OSError where nothing is there, and for a pipe, a socket or a device that is not named as such.

    >>> require_regular(Path("examples/validation/truth.json")).name
    'truth.json'
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode) and not path.as_posix().startswith(_ASKED_FOR):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, and no file", str(path))
    return path
