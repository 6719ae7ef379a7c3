import gc
import itertools
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from annofree.errors import ImageError, InputError, MissingError
from annofree.io import image_sources as sources
from annofree.io.images import silence_pillow
from annofree.runs import batch_encoder, clock
from annofree.runs.batch_encoder import BatchEncoder, attempt
from annofree.runs.clock import StageTimer
from annofree.structures import Image

STUCK = 600.0  # seconds after which a wait is a hang, on any machine


@dataclass
class Stub:
    """A method that raises ``problem`` at images of width 13, and at more than ``most`` images."""

    problem: BaseException | None = None
    most: int = 99
    batches: list[list[str]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def remarks(self, classes: Any) -> list[str]:
        return []

    def encode(self, images: Sequence[Image]) -> list[Any]:
        self.batches.append([Path(i.id).name for i in images])
        if len(images) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        for image in images:
            self.trip(image)
        return list(images)

    def trip(self, image: Image) -> None:
        if self.problem and image.size[1] == 13:
            raise self.problem


@dataclass
class Record:
    done: list[str] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)
    less: list[int] = field(default_factory=list)
    clock: StageTimer = field(default_factory=StageTimer)

    def go(self, method: Any, paths: Sequence[Path], batch_size: int = 4) -> None:
        feed = BatchEncoder(method, batch_size, 2, self.clock, self.less.append)
        with silence_pillow():
            for batch in feed.encode_batches([(k, path.name, str(path)) for k, path in enumerate(paths)]):
                for one in batch:
                    if one.problem:
                        self.failed[one.id] = one.problem
                    else:
                        self.done.append(one.id)


def pictures(folder: Path, count: int, guilty: Sequence[int] = (), broken: Sequence[int] = ()) -> list[Path]:
    paths = [folder / f"{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        PIL.Image.fromarray(np.zeros((4, 13 if i in guilty else 6, 3), np.uint8)).save(path)
        if i in broken:
            path.write_bytes(b"no image")
    return paths


def test_every_picture_is_handed_on_in_order_and_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))  # each look takes a second
    record, method = Record(), Stub()
    record.clock.start()
    record.go(method, pictures(tmp_path, 5), batch_size=2)
    assert record.done == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert method.batches == [["0.png", "1.png"], ["2.png", "3.png"], ["4.png"]]
    assert {part: s for part, s in record.clock.seconds.items() if s} == {"load": 6, "read": 3, "encode": 3}


def test_a_batch_that_takes_too_much_memory_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_encoder, "find_total_memory", lambda: 4 * 2 * 72)  # two images of 4 x 6 fit
    record, method = Record(), Stub()
    record.go(method, pictures(tmp_path, 6, broken=[4]), batch_size=4)
    assert record.done == ["0.png", "1.png", "2.png", "3.png", "5.png"]
    assert method.batches == [["0.png", "1.png", "2.png"], ["3.png"], ["5.png"]]


def test_a_bad_picture_is_named_and_the_rest_of_its_batch_goes_on(tmp_path: Path) -> None:
    record, method = Record(), Stub()
    record.go(method, pictures(tmp_path, 6, broken=[1, 4]), batch_size=4)
    assert record.done == ["0.png", "2.png", "3.png", "5.png"]
    assert method.batches == [["0.png", "2.png", "3.png"], ["5.png"]]  # cut by place, whatever can be read
    assert set(record.failed) == {"1.png", "4.png"}
    assert all(isinstance(problem, ImageError) for problem in record.failed.values())


@pytest.mark.parametrize("problem", [InputError("no"), RuntimeError("no"), torch.cuda.OutOfMemoryError("no"), MemoryError()])
def test_only_the_guilty_picture_fails(tmp_path: Path, problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    record = Record()
    record.go(Stub(problem), pictures(tmp_path, 4, guilty=[2]), batch_size=3)
    assert record.done == ["0.png", "1.png", "3.png"]
    assert record.failed == {"2.png": problem}
    assert bool(emptied) == isinstance(problem, torch.cuda.OutOfMemoryError)


def test_batches_are_halved_where_memory_runs_out_and_stay_so(tmp_path: Path) -> None:
    record, method = Record(), Stub(most=2)
    record.go(method, pictures(tmp_path, 12), batch_size=8)
    assert len(record.done) == 12 and not record.failed
    assert record.less == [4, 2]
    assert [len(batch) for batch in method.batches] == [8, 4, 2, 2, 2, 2, 2, 2]


def test_where_one_picture_is_too_much_it_is_named(tmp_path: Path) -> None:
    record = Record()
    record.go(Stub(MemoryError("big")), pictures(tmp_path, 4, guilty=[3]), batch_size=4)
    assert (record.done, list(record.failed), record.less) == (["0.png", "1.png", "2.png"], ["3.png"], [2, 1])


def test_a_kept_failure_does_not_keep_tensors(tmp_path: Path) -> None:
    record = Record()
    record.go(Stub(RuntimeError("no")), pictures(tmp_path, 1, guilty=[0]))
    trace = record.failed["0.png"].__traceback__
    held = []
    while trace:
        held += [v for v in trace.tb_frame.f_locals.values() if isinstance(v, Image)]
        trace = trace.tb_next
    assert not held


OURS = [TypeError(), AttributeError(), KeyError(), NotImplementedError(), RecursionError(), MissingError(), KeyboardInterrupt()]


@pytest.mark.parametrize("problem", OURS)
def test_what_no_picture_is_to_blame_for_ends_the_work(tmp_path: Path, problem: BaseException) -> None:
    record, before = Record(), list(warnings.filters)
    with pytest.raises(type(problem)):
        record.go(Stub(problem), pictures(tmp_path, 6, guilty=[0]), batch_size=2)
    assert not record.failed
    assert list(warnings.filters) == before
    gc.collect()
    assert not [t for t in threading.enumerate() if t.name.startswith("annofree-read")]


@pytest.mark.parametrize("problem", OURS)
def test_an_attempt_lets_through_what_no_picture_is_to_blame_for(problem: BaseException) -> None:
    def do() -> None:
        raise problem

    with pytest.raises(type(problem)):
        attempt(StageTimer(), "instances", do)


def test_too_few_encodings_are_a_bug_of_the_method(tmp_path: Path) -> None:
    class Forgetful(Stub):
        def encode(self, images: Sequence[Image]) -> list[Any]:
            return list(images[1:])

    with pytest.raises(ValueError, match="expected 3 encodings of as many images, got 2"):
        Record().go(Forgetful(), pictures(tmp_path, 3))


class Counted(list[tuple[int, str, str]]):
    """Images to come, and how many of them were taken."""

    taken = 0

    def __iter__(self) -> Iterator[tuple[int, str, str]]:
        for entry in super().__iter__():
            self.taken += 1
            yield entry


def test_the_next_batch_is_read_while_the_method_works(tmp_path: Path) -> None:
    read: list[str] = []
    one_more = threading.Condition()
    original = sources.read_place

    def noted(place: str, id: str | None = None) -> Image:  # noqa: A002
        assert threading.current_thread() is not threading.main_thread()
        with one_more:
            read.append(place)
            one_more.notify_all()
        return original(place, id)

    class Patient(Stub):
        def encode(self, images: Sequence[Image]) -> list[Any]:
            wanted = min(2 * len(self.batches) + 4, 6)
            assert entries.taken == wanted  # a batch ahead, and never two: memory
            with one_more:
                assert one_more.wait_for(lambda: len(read) == wanted, timeout=STUCK)
            return super().encode(images)

    entries = Counted((k, path.name, str(path)) for k, path in enumerate(pictures(tmp_path, 6)))
    with silence_pillow():
        done = [
            one.id
            for batch in BatchEncoder(Patient(), 2, 2, reader=noted).encode_batches(entries)
            for one in batch
            if not one.problem
        ]
    assert done == [f"{k}.png" for k in range(6)]


def test_no_pictures_no_batch_and_no_threads(tmp_path: Path) -> None:
    record = Record()
    record.go(Stub(), [])
    assert not record.done
    for wrong in ((0, 1), (1, 0)):
        with pytest.raises(InputError, match="at least 1, got 0"):
            BatchEncoder(Stub(), *wrong)
