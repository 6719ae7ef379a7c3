"""Networks are trained side by side: in time, in order, and each ends with what began it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from annofree.errors import AnnofreeError, InputError
from annofree.pipelines.training.side_by_side import TrainJob, train_side_by_side
from annofree.training.engine.data import catch_stop


@dataclass(frozen=True)
class Recipe:
    out: Path
    steps: int = 40
    broken: bool = False


def fit(recipe: Recipe, *, device: str, on_progress: Callable[[int, int], None], say: Callable[[str], None]) -> None:
    """Write when it began and ended, and with how many threads, as a training would."""
    recipe.out.mkdir(parents=True)
    if recipe.broken:
        raise InputError("expected labels, got none")
    began, log = time.time(), recipe.out / "log.jsonl"
    with catch_stop() as asked:
        for step in range(1, recipe.steps + 1):
            time.sleep(0.05)
            with log.open("a") as opened:
                opened.write(json.dumps({"step": step}) + "\n")
            if asked():
                (recipe.out / "checkpoint").touch()
                raise KeyboardInterrupt
    (recipe.out / "when.json").write_text(json.dumps([began, time.time(), torch.get_num_threads(), os.getpid()]))
    say(f"{recipe.out.name} is trained")


def end(recipe: Recipe, **others: Any) -> None:
    """Be killed, as for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def read(folder: Path) -> Any:
    return json.loads((folder / "when.json").read_text())


@contextmanager
def watch(seen: list[tuple[int, int]]) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: seen.append((done, total))


def test_as_many_at_once_as_there_are_cores_and_each_after_what_it_needs(tmp_path: Path) -> None:
    jobs = {
        "tuned": TrainJob(fit, Recipe(tmp_path / "tuned"), after="first"),
        "first": TrainJob(fit, Recipe(tmp_path / "first")),
        "other": TrainJob(fit, Recipe(tmp_path / "other"), after="long since there"),
    }
    seen, said = list[tuple[int, int]](), list[str]()
    train_side_by_side(jobs, lambda what: watch(seen), say=said.append, cores=4)
    first, other, tuned = (read(tmp_path / name) for name in ("first", "other", "tuned"))
    assert max(first[0], other[0]) < min(first[1], other[1]) <= first[1] <= tuned[0]
    assert {first[2], other[2], tuned[2]} == {1} and os.getpid() not in (first[3], other[3], tuned[3])
    assert sorted(said) == ["first is trained", "other is trained", "tuned is trained"]
    assert seen == sorted(seen) and seen[-1] == (120, 120)


@pytest.mark.parametrize(("cores", "count"), [(1, 2), (4, 1)])
def test_one_core_or_one_job_stays_in_this_process(tmp_path: Path, cores: int, count: int) -> None:
    jobs = {str(i): TrainJob(fit, Recipe(tmp_path / str(i), steps=1)) for i in range(count)}
    train_side_by_side(jobs, lambda what: watch([]), say=lambda line: None, cores=cores)
    assert [read(tmp_path / name)[3] for name in jobs] == [os.getpid()] * count


def test_an_error_of_one_ends_the_others_with_a_checkpoint(tmp_path: Path) -> None:
    jobs = {
        "long": TrainJob(fit, Recipe(tmp_path / "long", steps=10_000)),
        "short": TrainJob(fit, Recipe(tmp_path / "short", steps=20)),
        "broken": TrainJob(fit, Recipe(tmp_path / "broken", broken=True), after="short"),
        "never": TrainJob(fit, Recipe(tmp_path / "never"), after="broken"),
    }
    with pytest.raises(InputError, match="expected labels"):
        train_side_by_side(jobs, lambda what: watch([]), say=lambda line: None, cores=2)
    assert (tmp_path / "long" / "checkpoint").exists() and not (tmp_path / "never").exists()


def test_trainings_that_wait_for_one_another_are_refused(tmp_path: Path) -> None:
    jobs = {one: TrainJob(fit, Recipe(tmp_path / one), after=other) for one, other in (("a", "b"), ("b", "a"))}
    with pytest.raises(InputError, match="got a, b, which wait for one another"):
        train_side_by_side(jobs, lambda what: watch([]), say=lambda line: None, cores=2)


def test_one_that_is_killed_is_told(tmp_path: Path) -> None:
    jobs = {name: TrainJob(end, Recipe(tmp_path / name)) for name in ("one", "two")}
    with pytest.raises(AnnofreeError, match="was ended from outside, with exit status -9; the same call goes on with it"):
        train_side_by_side(jobs, lambda what: watch([]), say=lambda line: None, cores=2)


@pytest.mark.parametrize(("how", "kept"), [(signal.SIGINT, True), (signal.SIGKILL, False)])
def test_nothing_goes_on_after_what_began_it(tmp_path: Path, how: signal.Signals, kept: bool) -> None:
    code = (
        "from pathlib import Path; from tests.pipelines.test_side_by_side import *\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        f"    jobs = {{n: TrainJob(fit, Recipe(Path({str(tmp_path)!r}) / n, 10_000)) for n in ('one', 'two')}}\n"
        "    train_side_by_side(jobs, lambda what: watch([]), cores=2)\n"
    )
    (tmp_path / "begin.py").write_text(code)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, tmp_path / "begin.py"], env=environment, stderr=subprocess.DEVNULL) as begun:
        logs = [tmp_path / name / "log.jsonl" for name in ("one", "two")]
        end = time.monotonic() + 120
        while not all(log.exists() and log.stat().st_size for log in logs):
            assert begun.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        begun.send_signal(how)
        begun.wait(60)
    time.sleep(1)
    sizes = [log.stat().st_size for log in logs]
    time.sleep(0.5)
    assert [log.stat().st_size for log in logs] == sizes
    assert [(log.parent / "checkpoint").exists() for log in logs] == [kept, kept]
