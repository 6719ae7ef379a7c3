"""One thread that does one job after another, a bounded queue before it, and no job that is waited for without end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from queue import Empty, Full, Queue
from typing import Any, TypeVar

from annofree.errors import AnnofreeError

__all__ = ["BusyError", "LateError", "Worker"]

T = TypeVar("T")


class BusyError(AnnofreeError):
    """More waits already than may; ``retry_after`` are seconds after which to try again."""

    def __init__(self, waiting: int, retry_after: int = 1) -> None:
        super().__init__(f"expected room in the queue, but {waiting} questions wait already; ask again in a moment")
        self.retry_after = retry_after


class LateError(AnnofreeError):
    """An answer took longer than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"expected an answer within {seconds:g} s, and none came; ask again, or serve with a longer --timeout")


class Worker:
    """Does jobs one at a time, in their order; at most ``most`` wait, and none is waited for longer than ``timeout`` seconds.

    A job that nobody waits for any more is passed over when its turn comes.

    >>> worker = Worker()
    >>> worker.do(lambda: 1 + 1)
    2
    >>> worker.close()
    """

    def __init__(self, most: int = 64, timeout: float = 60.0) -> None:
        self.most, self.timeout = most, timeout
        self._queue: Queue[tuple[Future[Any], Callable[[], Any]] | None] = Queue(most)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return self._queue.qsize()

    def offer(self, job: Callable[[], T]) -> Future[T]:
        """Put a job in the queue; raises BusyError where it is full."""
        future: Future[T] = Future()
        try:
            self._queue.put_nowait((future, job))
        except Full:
            raise BusyError(self.most) from None
        return future

    def do(self, job: Callable[[], T]) -> T:
        """Do a job in its turn and wait for it, in any thread but the worker's; raises BusyError, LateError, and its own."""
        future = self.offer(job)
        try:
            return future.result(self.timeout)
        except FutureTimeout:
            if future.done() and not future.cancelled():
                raise  # the job's own
            future.cancel()
            raise LateError(self.timeout) from None

    async def ask(self, job: Callable[[], T]) -> T:
        """Do the same without blocking the loop."""
        future = self.offer(job)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.timeout)
        except TimeoutError:
            if future.done() and not future.cancelled():
                raise
            raise LateError(self.timeout) from None

    def close(self) -> None:
        """End after the job at hand; those that wait are cancelled."""
        self._closed.set()
        while True:
            try:
                waiting = self._queue.get_nowait()
            except Empty:
                break
            if waiting is not None:
                waiting[0].cancel()
        self._queue.put(None)
        self._thread.join(5)

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            future, job = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except BaseException as problem:  # whoever asked is told
                future.set_exception(problem)
            del item, future, job
            if self._closed.is_set():
                return
