"""Pixels in memory are bounded by bytes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from annofree.errors import ImageError
from annofree.io import decode_budget, image_sources, images
from annofree.io.decode_budget import acquire_memory, find_free_memory, find_total_memory
from annofree.io.image_sources import read_images
from annofree.structures import Image

SIZE = 40 * 30 * 7


class Reader:
    """Reads images of 40 x 30, counting the bytes that are claimed at a time."""

    def __init__(self, troubled: dict[str, int] | None = None) -> None:
        self.now = self.most = 0
        self.lock, self.troubled = threading.Lock(), troubled or {}

    def __call__(self, place: str, id: str | None = None) -> Image:  # noqa: A002
        acquire_memory(SIZE)
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.troubled[place] = self.troubled.get(place, 0) - 1
        time.sleep(0.002)
        with self.lock:
            self.now -= 1
        if self.troubled[place] >= 0:
            raise MemoryError
        return Image(np.zeros((30, 40, 3), np.uint8), id or place)


def read_all(reader: Reader, count: int = 12, threads: int = 4) -> list[Image | ImageError]:
    return [image for _, _, image in read_images(((str(k), str(k)) for k in range(count)), threads, 8, reader)]


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (SIZE, 2), (1 << 40, 4)])
def test_as_many_are_decoded_at_once_as_there_is_room_for(limit: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sources, "find_free_memory", lambda: 4 * limit)
    reader = Reader()
    found = read_all(reader)
    assert [image.id for image in found if isinstance(image, Image)] == [str(k) for k in range(12)]
    assert reader.most <= most


def test_who_stops_early_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sources, "find_free_memory", lambda: 0)
    reading = read_images(((str(k), str(k)) for k in range(12)), 4, 8, Reader())
    next(reading)
    reading.close()  # type: ignore[attr-defined]


def test_where_memory_runs_out_an_image_is_read_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sources, "find_free_memory", lambda: 4 * SIZE)
    found = read_all(Reader({"3": 1, "4": 2, "7": 1}))
    assert [k for k, image in enumerate(found) if isinstance(image, ImageError)] == [4]
    assert "fits into memory, but 4 does not" in str(found[4])


def test_an_image_that_takes_more_than_is_free_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PIL.Image.new("RGB", (400, 300)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "_LARGE", 400)
    monkeypatch.setattr(images, "find_free_memory", lambda: 10_000)
    with pytest.raises(ImageError, match=r"a\.png does not \(400 x 300 pixels take 0\.00 GB to read"):
        images.read_image(tmp_path / "a.png")


def test_memory_of_this_machine() -> None:
    assert 1 << 26 < find_free_memory() <= find_total_memory()


def test_a_group_may_have_less_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "max").write_text("1000\n")
    (tmp_path / "now").write_text("400\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(decode_budget, "_LIMITS", (str(tmp_path / "none"), str(tmp_path / "max")))
    monkeypatch.setattr(decode_budget, "_USED", (str(tmp_path / "now"),))
    assert (find_free_memory(), find_total_memory()) == (600, 1000)
