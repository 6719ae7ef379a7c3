"""Ray in one process: workers do their jobs when they are asked for, and die where a test wants them to."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

__all__ = ["FakeRay"]


class _RayError(Exception):
    pass


class _RayTaskError(_RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Answer:
    def __init__(self, ask: Callable[[], Any]) -> None:
        self.ask = ask


class _Pieces:
    """What a job gives, a piece at a time; ``dies`` is asked before each, and the worker is dead from then on."""

    def __init__(self, pieces: Iterator[Any], dies: Callable[[], bool]) -> None:
        self.pieces, self.dies = pieces, dies

    def __next__(self) -> _Answer:
        if self.dies():
            return _Answer(_die)
        try:
            piece = next(self.pieces)
        except StopIteration:
            raise
        except Exception as problem:
            return _Answer(partial(_raise, _RayTaskError(problem)))
        return _Answer(lambda: piece)


def _raise(problem: Exception) -> Any:
    raise problem


def _die() -> Any:
    raise _RayError("The worker died.\nMore of it.")


class FakeRay:
    """What ``RayPool`` needs of Ray, ready in any order; ``dies`` says whether a worker dies now."""

    exceptions = SimpleNamespace(RayError=_RayError, RayTaskError=_RayTaskError)

    def __init__(self, dies: Callable[[], bool] = lambda: False, seed: int = 0) -> None:
        self.dies, self.rng, self.begun, self.killed = dies, random.Random(seed), 0, 0

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 3.0}

    def put(self, value: Any) -> Any:
        return value

    def get(self, answer: _Answer) -> Any:
        return answer.ask()

    def wait(self, answers: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return [self.rng.choice(answers)], []

    def kill(self, actor: Any) -> None:
        self.killed += 1

    def remote(self, kind: type) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: self._begin(kind())))

    def _begin(self, worker: Any) -> Any:
        self.begun += 1

        def load(make: Any) -> Any:
            try:
                return worker.load(make)
            except Exception as problem:
                raise _RayTaskError(problem) from problem

        do = SimpleNamespace(remote=lambda job: _Pieces(worker.process(job), self.dies))
        return SimpleNamespace(
            load=SimpleNamespace(remote=lambda make: _Answer(lambda: load(make))),
            process=SimpleNamespace(options=lambda **_: do),
        )
