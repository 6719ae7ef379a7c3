"""Workers on the machines of a Ray cluster, or on this one: nothing else here knows Ray.

Each worker is an actor that loads once and then does jobs, piece by piece.  Pieces are taken in as they come, so that the
object store holds a few of each worker at most, and they are given on in the order of the jobs.  Where a worker dies, another
begins, and what is left of the job is done again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from annofree.errors import InputError, MissingError
from annofree.io.decode_budget import find_total_memory
from annofree.runs.engines.job_line import JobLine, Order
from annofree.runs.engines.worker_plan import WorkerPlan, plan_workers

__all__ = ["Cluster", "RayPool", "Worker"]

Job = TypeVar("Job")
JobIn = TypeVar("JobIn", contravariant=True)
Kept = TypeVar("Kept")

_PIECES = 2  # of a worker that may wait in the object store
_AHEAD = 4  # jobs a worker that may be begun from the one that is due on
_DEATHS = 5  # in a row, beside one of each worker, with nothing done in between
_PATIENCE = 30.0  # seconds, until it is said that no worker answers
_STARTS = 3  # tries: Ray gives up after 30 s where a machine is busy
_STORE = 1 << 30  # bytes at most of the object store, where Ray is started here
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody is told
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` makes Ray copy the working folder to each worker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do anyway some day, and warns of until then
}
_SILENT = {"log_to_driver": False, "logging_level": "ERROR"}
_ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # no other machines, on any system: the loopback interface will do
    "RAY_worker_niceness": "0",  # else workers wait for whatever else the machine does
}
"""What Ray is told where it is started here."""


class Worker(Protocol[JobIn]):
    """What a worker does."""

    @property
    def about(self) -> tuple[Any, Any]:
        """What has to be the same of all workers, and what may differ."""
        ...

    def process(self, job: JobIn) -> Iterator[Any]:
        """Do a job, and yield what came of it, piece by piece."""
        ...


@dataclass(frozen=True)
class Cluster:
    """Where workers are, and how many."""

    # of a cluster, such as auto, or None for this machine alone
    address: str | None = None
    # None for a worker a GPU, or one for four processors
    workers: int | None = None


class _Actor:
    """Runs in the process of the worker."""

    def load(self, make: Callable[[], Worker[Any]]) -> tuple[Any, Any]:
        self._worker = make()
        return self._worker.about

    def process(self, job: Any) -> Iterator[Any]:
        yield from self._worker.process(job)


@dataclass
class _Busy(Generic[Job]):
    """A worker at a job, and what is left of it."""

    actor: Any
    number: int
    left: Job


@dataclass
class RayPool(Generic[Job]):
    """Workers that do jobs; enter it to have them, and leave it to let them go.

    ``advance`` says what is left of a job after a piece.  Raises MissingError without Ray, InputError for a cluster that is not
    there and where workers die again and again, and whatever loading and a job raise over there.
    """

    cluster: Cluster
    device: str
    advance: Callable[[Job, Any], Job]
    on_note: Callable[[str], None] = lambda text: None
    # what may differ of workers, of those that began
    own: list[Any] = field(default_factory=list)
    _shared: Any = None
    _loading: dict[Any, Any] = field(default_factory=dict)  # workers by what they will answer
    _idle: list[Any] = field(default_factory=list)
    _busy: dict[Any, _Busy[Job]] = field(default_factory=dict)  # by where pieces come
    _deaths: int = 0
    _told: bool = False

    def __enter__(self) -> RayPool[Job]:
        self._ray = _import_ray(self.cluster.address)
        self._started = not self._ray.is_initialized()
        if self._started:
            with _keep_signals():
                _connect(self._ray, self.cluster.address)
        try:
            self.plan = plan_workers(self._ray.cluster_resources(), self.device, self.cluster.workers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for actor in (*self._loading.values(), *self._idle, *(one.actor for one in self._busy.values())):
            self._end(actor)
        if self._started:
            self._ray.shutdown()

    def start(self, make: Callable[[WorkerPlan], Callable[[], Worker[Job]]]) -> Any:
        """Enter and ``load`` workers, as ``make`` makes them by the plan; where that fails, nothing is left of it."""
        self.__enter__()
        try:
            return self.load(make(self.plan))
        except BaseException:
            self.__exit__()
            raise

    def load(self, make: Callable[[], Worker[Job]]) -> Any:
        """Begin all workers, each as ``make`` makes it, and return what is the same of all as soon as one is there."""
        self._make = self._ray.put(make)
        for _ in range(self.plan.workers):
            self._begin_worker()
        while not self._idle:
            self._wait()
        return self._shared

    def stream(self, jobs: Iterable[Job], arrived: Callable[[Any], Kept]) -> Generator[Kept, None, None]:
        """Give on what ``arrived`` makes of each piece, in the order of the jobs, though it gets them as they come."""
        line, order = JobLine(jobs), Order[Kept]()
        while True:
            self._hand_out(line, order.due + _AHEAD * self.plan.workers)
            if not self._busy and line.is_empty:
                return
            for source in self._wait():
                self._take(source, line, order, arrived)
            yield from order.take_due()

    def _begin_worker(self) -> None:
        plan = self.plan
        threads = {"env_vars": {"OMP_NUM_THREADS": str(plan.threads)}}
        kind = self._ray.remote(_Actor).options(
            num_cpus=plan.cpus, num_gpus=plan.gpus, scheduling_strategy="SPREAD", runtime_env=threads
        )
        actor = kind.remote()
        self._loading[actor.load.remote(self._make)] = actor

    def _hand_out(self, line: JobLine[Job], end: int) -> None:
        """Give a job to each worker that has none, of the jobs before number ``end``."""
        while self._idle and (taken := line.take_next(end)) is not None:
            actor, (number, job) = self._idle.pop(), taken
            stream = {"num_returns": "streaming", "_generator_backpressure_num_objects": _PIECES}
            self._busy[actor.process.options(**stream).remote(job)] = _Busy(actor, number, job)

    def _wait(self) -> list[Any]:
        """Wait until something comes, welcome workers that loaded, and return where pieces came."""
        ready, _ = self._ray.wait([*self._loading, *self._busy], num_returns=1, timeout=_PATIENCE)
        for answer in ready:
            if answer in self._loading:
                self._welcome(answer, self._loading.pop(answer))
        if not ready and not self._idle and not self._busy and not self._told:
            self._told = True
            free = self._ray.available_resources()
            self.on_note(f"no worker began yet; each takes {self.plan.cpus:g} CPUs, and {free.get('CPU', 0):g} are free")
        return [answer for answer in ready if answer in self._busy]

    def _welcome(self, answer: Any, actor: Any) -> None:
        try:
            shared, own = self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as problem:
            raise problem.cause from None
        except self._ray.exceptions.RayError as problem:
            self._replace(actor, problem)
            return
        if self._shared not in (None, shared):
            raise InputError("expected the same models on all machines, but those of a worker differ; fetch them anew there")
        self._shared = shared
        self.own += [] if own in self.own else [own]
        self._idle.append(actor)

    def _take(self, source: Any, line: JobLine[Job], order: Order[Kept], arrived: Callable[[Any], Kept]) -> None:
        """Take in a piece, the end of a job, or that its worker died."""
        busy = self._busy[source]
        try:
            piece = self._ray.get(next(source))
        except StopIteration:
            del self._busy[source]
            self._idle.append(busy.actor)
            order.end(busy.number)
        except self._ray.exceptions.RayTaskError as problem:
            raise problem.cause from None
        except self._ray.exceptions.RayError as problem:
            del self._busy[source]
            line.restore(busy.number, busy.left)
            self._replace(busy.actor, problem)
        else:
            busy.left, self._deaths = self.advance(busy.left, piece), 0
            order.add(busy.number, arrived(piece))

    def _replace(self, actor: Any, problem: Exception) -> None:
        """Begin another worker in the place of one that died."""
        self._end(actor)
        self._deaths += 1
        why = next(iter(str(problem).splitlines()), type(problem).__name__)
        if self._deaths > _DEATHS + self.plan.workers:
            raise InputError(
                f"expected workers to stay, but {self._deaths} died one after the other: {why} "
                "Is memory short? Try fewer --workers; what was done is kept, and the same command goes on"
            )
        self.on_note(f"a worker died, and another does its work: {why}")
        self._begin_worker()

    def _end(self, actor: Any) -> None:
        with suppress(Exception):  # it may be dead, or Ray may be
            self._ray.kill(actor)


@contextmanager
def _keep_signals() -> Iterator[None]:
    """Let SIGTERM do what it did before Ray came, which would print where each thread is."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError):  # of a thread that is not the first, which Ray leaves alone
            signal.signal(signal.SIGTERM, before)


def _import_ray(address: str | None) -> Any:
    """Import Ray, which reads the environment as it is imported."""
    for name, value in (_QUIET if address else _QUIET | _ALONE).items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise MissingError('expected Ray for --engine ray, but it is not installed; pip install "annofree[ray]"') from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Join the cluster at an address, or start one on this machine; raises InputError where there is none."""
    if address is None:
        _start(ray)
        return
    if "://" in address:
        raise InputError(
            f"expected --address as host:port or auto, got {address!r}; give the command on a machine of the cluster"
        )
    try:
        ray.init(address=address, **_SILENT)
    except (ConnectionError, OSError, ValueError, RuntimeError) as problem:
        why = next(iter(str(problem).splitlines()), "")
        raise InputError(f"expected a Ray cluster at {address}, but none answers: {why} Start one: ray start --head") from None


def _start(ray: Any) -> None:
    """Start Ray on this machine alone."""
    why, store = "", min(_STORE, find_total_memory() // 4)
    for _ in range(_STARTS):
        try:
            ray.init(address="local", include_dashboard=False, object_store_memory=store, **_SILENT)
            return
        except Exception as problem:  # Ray has no other
            why = next(iter(str(problem).splitlines()), type(problem).__name__)
            ray.shutdown()
    raise InputError(
        f"expected Ray to start on this machine, but it does not: {why} Is the machine busy? Give the command again"
    )
