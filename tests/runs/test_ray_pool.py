"""Workers of a cluster that is this process: order, deaths, errors, and whole runs of which any part goes wrong."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.support.fake_ray import FakeRay

from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.runs.engines import ray_pool
from annofree.runs.engines.ray_pool import Cluster, RayPool
from annofree.runs.engines.worker_plan import plan_workers
from annofree.runs.store.layout import RunFolder


class Letters:
    """A worker that gives a text letter by letter."""

    def __init__(self, about: str = "same", refused: str = "") -> None:
        self.about, self.refused = (about, "own"), refused

    def process(self, job: str) -> Iterator[str]:
        for letter in job:
            if letter == self.refused:
                raise InputError(f"no {letter}")
            yield letter


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray = FakeRay()
    monkeypatch.setattr(ray_pool, "_import_ray", lambda address: ray)
    return ray


def pool(workers: int = 3, **options: Any) -> RayPool[str]:
    return RayPool[str](Cluster(None, workers), "cpu", lambda job, piece: job[len(piece) :], **options)


WORDS = ["one", "two", "three", "", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_come_in_order_whoever_dies(fake: FakeRay, seed: int) -> None:
    fake.rng, notes, heard = random.Random(seed), list[str](), list[str]()
    fake.dies = lambda: fake.rng.random() < 0.2

    def hear(piece: str) -> str:
        heard.append(piece)
        return piece

    with pool(on_note=notes.append) as workers:
        assert workers.load(Letters) == "same"
        assert "".join(workers.stream(WORDS, hear)) == "".join(WORDS)
    assert sorted(heard) == sorted("".join(WORDS))
    assert fake.begun == 3 + len(notes) == fake.killed
    assert set(notes) <= {"a worker died, and another does its work: The worker died."}


def test_no_job_is_begun_long_before_the_one_that_is_due(fake: FakeRay) -> None:
    begun = list[int]()

    def jobs() -> Iterator[str]:
        for number in range(100):
            begun.append(number)
            yield "ab"

    with pool(1) as workers:
        workers.load(Letters)
        stream = workers.stream(jobs(), str)
        next(stream)
        assert len(begun) == 2  # the one at work and the next
        stream.close()


def test_workers_that_die_again_and_again_are_told(fake: FakeRay) -> None:
    fake.dies = lambda: True
    with pool() as workers, pytest.raises(InputError, match=r"expected workers to stay, but 9 died .* fewer --workers"):
        workers.load(Letters)
        list(workers.stream(WORDS, str))


def test_what_a_worker_refuses_is_raised_here(fake: FakeRay) -> None:
    with pool() as workers, pytest.raises(InputError, match="no v"):
        workers.load(partial(Letters, refused="v"))
        list(workers.stream(WORDS, str))
    assert fake.killed == 3
    with pool() as workers, pytest.raises(TypeError, match="nonesuch"):
        workers.load(partial(Letters, nonesuch=1))  # type: ignore[call-arg]


def test_workers_of_other_models_are_refused(fake: FakeRay) -> None:
    names = iter(["one", "other", "one"])
    with pool() as workers, pytest.raises(InputError, match="the same models on all machines"):
        workers.load(lambda: Letters(next(names)))
        list(workers.stream(WORDS, str))


def test_a_cluster_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert plan_workers({"CPU": 2.0}, "cpu", 2).cpus < 1  # whole processors for workers leave none for others
    assert plan_workers({"CPU": 2.0}, "cpu", 8).cpus == pytest.approx(0.225)
    assert plan_workers({"CPU": 32.0, "GPU": 4.0}, "cuda:0", None).workers == 4
    assert plan_workers({"CPU": 64.0}, "cpu", None).threads == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert plan_workers({"CPU": 64.0}, "cpu", None).threads == 1
    with pytest.raises(InputError, match="expected a GPU"):
        plan_workers({"CPU": 2.0}, "cuda", None)


@pytest.mark.parametrize("seed", range(2))
def test_a_run_leaves_the_very_files_of_a_local_one(fake: FakeRay, ray_kills: ModuleType, seed: int, tmp_path: Path) -> None:
    local = ray_kills.draw_and_run(tmp_path, 43)
    fake.rng = random.Random(seed)
    fake.dies = lambda: fake.rng.random() < 0.1
    run = ray_kills.run_on_ray(tmp_path / "pictures", tmp_path / "ray", None, 0.0)
    assert ray_kills.digest(tmp_path / "ray") == local
    assert [one["threads"] for one in run["environments"]] == [run["environments"][0]["threads"]]
    assert run["timings"]["images"] == 42 and run["timings"]["failed"] == 1
    assert ray_kills.run_on_ray(tmp_path / "pictures", tmp_path / "ray", None, 0.0) is None
    (tmp_path / "ray" / "panoptic" / "1" / "0001.png").unlink()
    (tmp_path / "ray" / "encodings" / "00002.safetensors").write_bytes(b"")
    ray_kills.run_on_ray(tmp_path / "pictures", tmp_path / "ray", None, 0.0)
    assert ray_kills.digest(tmp_path / "ray") == local


def test_a_full_disk_is_named_and_the_run_goes_on(
    fake: FakeRay, ray_kills: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, count, take = ray_kills.draw_and_run(tmp_path, 43), iter(range(1000)), RunFolder.take

    def fail(folder: RunFolder, place: str, data: bytes) -> None:
        if next(count) == 90:
            raise OSError(errno.ENOSPC, "No space left on device")
        take(folder, place, data)

    monkeypatch.setattr(RunFolder, "take", fail)
    with pytest.raises(InputError, match="the disk is full; what was done is kept"):
        ray_kills.run_on_ray(tmp_path / "pictures", tmp_path / "ray", None, 0.0)
    notes = list[str]()
    told = Callbacks(on_note=notes.append)
    ray_kills.run_on_ray(tmp_path / "pictures", tmp_path / "ray", None, 0.0, told)
    assert any(note.startswith("going on: ") for note in notes)
    assert ray_kills.digest(tmp_path / "ray") == local
