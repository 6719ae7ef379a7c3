import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from annofree.datasets import folder
from annofree.errors import ImageError, InputError, MissingError
from annofree.running import local
from annofree.running.local import Timings, run
from annofree.structures import Detections, Image, Vocabulary

DOGS = Vocabulary.of("dog")


@dataclass
class Stub:
    """A method that finds nothing, and raises ``problem`` at pictures of width 13: in ``encode`` or in ``instances``."""

    problem: BaseException | None = None
    at: str = "encode"
    batches: list[list[str]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def remarks(self, classes: Any) -> list[str]:
        return []

    def encode(self, images: Sequence[Image]) -> list[Any]:
        self.batches.append([Path(i.id).name for i in images])
        for image in images:
            self.trip("encode", image)
        return list(images)

    def instances(self, image: Any, classes: Any) -> Detections:
        self.trip("instances", image)
        return Detections.none(image.size, classes.names)

    def trip(self, at: str, image: Image) -> None:
        if self.problem and at == self.at and image.size[1] == 13:
            raise self.problem


@dataclass
class Record:
    done: list[str] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)
    progress: list[tuple[int, int]] = field(default_factory=list)

    def go(self, method: Stub, paths: Sequence[Path], **more: Any) -> Timings:
        return run(
            method,
            paths,
            DOGS,
            on_result=lambda path, image, found: self.done.append(path.name),
            on_failure=lambda path, problem: self.failed.update({path.name: problem}),
            on_progress=lambda done, total: self.progress.append((done, total)),
            **more,
        )


def pictures(folder: Path, count: int, guilty: Sequence[int] = (), broken: Sequence[int] = ()) -> list[Path]:
    paths = [folder / f"{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        PIL.Image.fromarray(np.zeros((4, 13 if i in guilty else 6, 3), np.uint8)).save(path)
        if i in broken:
            path.write_bytes(b"no picture")
    return paths


def test_every_picture_is_handed_on_in_order_and_in_batches(tmp_path: Path) -> None:
    record, method = Record(), Stub()
    timings = record.go(method, pictures(tmp_path, 5), batch_size=2)
    assert record.done == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert method.batches == [["0.png", "1.png"], ["2.png", "3.png"], ["4.png"]]
    assert record.progress == [(k, 5) for k in range(1, 6)]
    assert (timings.images, timings.failed) == (5, 0)
    assert 0 < timings.seconds_encode <= timings.seconds_total and timings.seconds_read > 0
    assert timings.images_per_second == 5 / timings.seconds_total


def test_a_bad_picture_is_named_and_the_rest_of_its_batch_goes_on(tmp_path: Path) -> None:
    record = Record()
    timings = record.go(Stub(), pictures(tmp_path, 5, broken=[1, 4]), batch_size=4)
    assert record.done == ["0.png", "2.png", "3.png"]
    assert set(record.failed) == {"1.png", "4.png"}
    assert all(isinstance(problem, ImageError) for problem in record.failed.values())
    assert (timings.images, timings.failed, record.progress[-1]) == (3, 2, (5, 5))


@pytest.mark.parametrize("at", ["encode", "instances"])
@pytest.mark.parametrize("problem", [InputError("no"), RuntimeError("no"), torch.cuda.OutOfMemoryError("no"), MemoryError()])
def test_only_the_guilty_picture_fails(tmp_path: Path, problem: Exception, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    record = Record()
    record.go(Stub(problem, at), pictures(tmp_path, 4, guilty=[2]), batch_size=3)
    assert record.done == ["0.png", "1.png", "3.png"]
    assert record.failed == {"2.png": problem}
    assert bool(emptied) == isinstance(problem, torch.cuda.OutOfMemoryError)


def test_a_kept_failure_does_not_keep_tensors(tmp_path: Path) -> None:
    record = Record()
    record.go(Stub(RuntimeError("no")), pictures(tmp_path, 1, guilty=[0]))
    trace = record.failed["0.png"].__traceback__
    held = []
    while trace:
        held += [v for v in trace.tb_frame.f_locals.values() if isinstance(v, Image)]
        trace = trace.tb_next
    assert not held


@pytest.mark.parametrize("at", ["encode", "instances"])
@pytest.mark.parametrize(
    "problem",
    [TypeError(), AttributeError(), KeyError(), NotImplementedError(), RecursionError(), MissingError(), KeyboardInterrupt()],
)
def test_what_no_picture_is_to_blame_for_ends_the_run(tmp_path: Path, problem: BaseException, at: str) -> None:
    record, before = Record(), list(warnings.filters)
    with pytest.raises(type(problem)):
        record.go(Stub(problem, at), pictures(tmp_path, 6, guilty=[0]), batch_size=2)
    assert not record.failed
    assert list(warnings.filters) == before
    assert not [t for t in threading.enumerate() if t.name.startswith("annofree-read")]


def test_what_a_callback_raises_ends_the_run(tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        run(Stub(), pictures(tmp_path, 2), DOGS, on_result=full, on_failure=lambda path, problem: None)


def test_too_few_encodings_are_a_bug_of_the_method(tmp_path: Path) -> None:
    class Forgetful(Stub):
        def encode(self, images: Sequence[Image]) -> list[Any]:
            return list(images[1:])

    with pytest.raises(ValueError, match="zip"):
        Record().go(Forgetful(), pictures(tmp_path, 3))


def test_the_next_batch_is_read_while_the_method_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = folder.decode_image

    def noted(path: Path) -> Image:
        assert threading.current_thread() is not threading.main_thread()
        read.append(path.name)
        return original(path)

    class Patient(Stub):
        def encode(self, images: Sequence[Image]) -> list[Any]:
            wanted = min(len(self.batches) + 2, 3)
            for _ in range(500):
                if len(read) >= wanted:
                    break
                time.sleep(0.01)
            assert len(read) == wanted  # one ahead, and never two: memory
            return super().encode(images)

    monkeypatch.setattr(local, "decode_image", noted)
    assert Record().go(Patient(), pictures(tmp_path, 3), batch_size=1).images == 3


def test_no_pictures_and_no_batch(tmp_path: Path) -> None:
    timings = Record().go(Stub(), [])
    assert (timings.images, timings.failed, timings.images_per_second) == (0, 0, 0.0)
    with pytest.raises(InputError, match="at least 1, got 0"):
        Record().go(Stub(), pictures(tmp_path, 1), batch_size=0)
