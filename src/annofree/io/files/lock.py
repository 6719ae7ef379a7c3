"""One process at a time: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from annofree.errors import InputError
from annofree.io.atomic import make_folder

__all__ = ["acquire_lock", "hold_lock"]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def acquire_lock(path: Path, taken: str, wait: bool = False) -> BaseFileLock:
    """Take the lock of a file, until its ``release`` or the end of this process, a kill included.

    At once or not at all, unless one is to ``wait``.  The file may stay; only a process that is alive locks others out.  On a
    disk that has no locks nobody is.  Raises InputError with the message ``taken`` where somebody holds it, another holder in
    this process too, and for a link.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "lock")
    >>> held = acquire_lock(path, "expected one at a time, and another is at work; wait for it")
    >>> acquire_lock(path, "expected one at a time, and another is at work; wait for it")
    Traceback (most recent call last):
    ...
    annofree.errors.InputError: expected one at a time, and another is at work; wait for it
    >>> held.release()
    """
    make_folder(path.parent)
    if path.is_symlink():  # taking it would empty the file that the link leads to
        raise InputError(f"expected a lock of our own at {path}, but it is a link; remove the link")
    lock = FileLock(path, thread_local=False)  # held by the process, whichever of its threads lets it go
    try:
        with suppress(NotImplementedError):  # a system without locks
            lock.acquire(blocking=wait)
    except Timeout:
        raise InputError(taken) from None
    except OSError as problem:
        if problem.errno not in _NO_LOCKS:
            raise InputError(
                f"expected a lock at {path}, but it cannot be taken: {problem.strerror}; choose another --out"
            ) from None
    return lock


@contextmanager
def hold_lock(path: Path, taken: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a file for as long as a block lasts; raises what ``acquire_lock`` does."""
    lock = acquire_lock(path, taken, wait)
    try:
        yield
    finally:
        lock.release()
