"""How many bytes of pixels may be in memory at once: reading ahead is bounded by memory, not by a count of images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from threading import Condition

__all__ = ["DecodeBudget", "acquire_memory", "find_free_memory", "find_total_memory"]

_UNKNOWN = 1 << 62
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")

_CLAIM: ContextVar[Callable[[int], None] | None] = ContextVar("claim", default=None)


def find_total_memory() -> int:
    """Bytes that this process could have: the machine's, or less where its group or its address space is limited."""
    return min(_read_meminfo("MemTotal"), _read_number(_LIMITS), _find_address_space()[0])


def find_free_memory() -> int:
    """Bytes that this process can still get; very many where the system does not say."""
    whole, taken = _find_address_space()
    group = _read_number(_LIMITS)
    return max(0, min(_read_meminfo("MemAvailable"), group - _read_number(_USED) if group < _UNKNOWN else group, whole - taken))


def acquire_memory(size: int) -> None:
    """Wait until so many bytes may be taken, where somebody counts them; to be called before pixels are decoded."""
    claim = _CLAIM.get()
    if claim is not None:
        claim(size)


class DecodeBudget:
    """Bytes of pixels of images that are read ahead: ``limit`` at most, beside the one that is waited for.

    An image takes what decoding needs with ``acquire_memory``, then what its pixels are, and gives them back when it is handed
    on.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[int, int] = {}
        self._decoding, self._next, self._alone = set[int](), 0, False
        self._changed = Condition()

    @contextmanager
    def count_claims(self, number: int) -> Iterator[None]:
        """Count what is claimed inside for an image; images are numbered from 0 in their order."""
        token = _CLAIM.set(lambda size: self._claim(number, size))
        try:
            yield
        finally:
            _CLAIM.reset(token)

    def keep(self, number: int, size: int) -> None:
        """Count what an image takes that was decoded and is not handed on yet."""
        with self._changed:
            self._decoding.discard(number)
            self._held[number] = size
            self._changed.notify_all()

    def advance(self) -> None:
        """No longer count the image that was waited for, and let the next one begin whatever it takes."""
        with self._changed:
            self._held.pop(self._next, None)
            self._next += 1
            self._changed.notify_all()

    def drop_limit(self) -> None:
        """Let everybody begin, so that nobody waits for ever."""
        with self._changed:
            self.limit = _UNKNOWN
            self._changed.notify_all()

    @contextmanager
    def wait_alone(self) -> Iterator[None]:
        """Let nobody decode inside, after all that began have ended."""
        with self._changed:
            self._alone = True
            self._changed.wait_for(lambda: not self._decoding)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _claim(self, number: int, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(number, size))
            self._decoding.add(number)
            self._held[number] = size

    def _has_room(self, number: int, size: int) -> bool:
        return not self._alone and (number == self._next or sum(self._held.values()) + size <= self.limit)


def _read_meminfo(key: str) -> int:
    with suppress(OSError):
        found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
        return int(found[1]) << 10 if found else _UNKNOWN
    return _UNKNOWN


def _read_number(places: tuple[str, ...]) -> int:
    """The number in the first of some files that is there and holds one."""
    for place in places:
        with suppress(OSError, ValueError):
            return min(_UNKNOWN, int(Path(place).read_text(encoding="ascii")))
    return _UNKNOWN


def _find_address_space() -> tuple[int, int]:
    """The limit of this process's address space, and what it takes of it."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return _UNKNOWN, 0
        return limit, int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return _UNKNOWN, 0
