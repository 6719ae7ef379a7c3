"""Indices: what is written, that a kill costs nothing, and what is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tests.support.indexing import Colors, content

from annofree.errors import InputError
from annofree.io.files.checksums import take_checksum
from annofree.io.files.lock import acquire_lock
from annofree.io.image_sources import Source
from annofree.retrieval.build_index import build_index
from annofree.retrieval.open_index import open_index
from annofree.structures import Image
from annofree.testing.tolerances import assert_close


def pictures(folder: Path, count: int, broken: Sequence[int] = (), odd: Sequence[int] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        path = folder / f"{i:02}.png"
        PIL.Image.fromarray(rng.integers(0, 256, (4, 13 if i in odd else 5, 3), np.uint8)).save(path)
        if i in broken:
            path.write_bytes(b"no image")
    return folder


def test_progress_goes_on_from_what_an_earlier_call_did(tmp_path: Path) -> None:
    photos, steps = pictures(tmp_path / "photos", 10), list[tuple[int, int]]()
    for _ in range(2):
        build_index(
            Source([photos]), tmp_path / "out", Colors(), batch_size=3, shard_size=4, on_progress=lambda *s: steps.append(s)
        )
        (tmp_path / "out" / "ids-00001.json").unlink()
        (tmp_path / "out" / "manifest.json").write_text(
            json.dumps(take_checksum(json.loads((tmp_path / "out" / "manifest.json").read_text())) | {"complete": False})
        )
    assert steps == [(0, 10), (3, 10), (4, 10), (7, 10), (8, 10), (10, 10), (6, 10), (9, 10), (10, 10)]


def test_each_picture_has_a_row(tmp_path: Path) -> None:
    photos, clip = pictures(tmp_path / "photos", 10), Colors()
    steps: list[tuple[int, int]] = []
    manifest = build_index(
        Source([photos]), tmp_path / "out", clip, batch_size=3, shard_size=4, on_progress=lambda *s: steps.append(s)
    )
    index = open_index(tmp_path / "out")
    assert (len(index), index.dimension, [s.rows for s in index.shards]) == (10, 3, [4, 4, 2])
    assert clip.batches == [3, 1, 3, 1, 2]
    assert steps == [(0, 10), (3, 10), (4, 10), (7, 10), (8, 10), (10, 10)]
    rows = np.arange(10)
    ids = index.read_ids(rows)
    assert ids == sorted(p.name for p in photos.iterdir())
    assert index.read_ids(np.array([9, 0, 9])) == ["09.png", "00.png", "09.png"]
    for name, vector in zip(ids, index.read_vectors(rows), strict=True):
        with PIL.Image.open(index.place(name)) as image:
            expected = Colors().encode_image([Image(np.array(image))])[0]
        assert_close(vector, expected, dtype=torch.float16, message=name)
    assert np.array_equal(np.concatenate([v for _, v in index.stream_chunks(3)]), index.read_vectors(rows))
    assert [first for first, _ in index.stream_chunks(3)] == [0, 3, 4, 7, 8]
    assert np.load(tmp_path / "out" / "embeddings-00001.npy").dtype == np.float16
    assert manifest == take_checksum(json.loads((tmp_path / "out" / "manifest.json").read_text()))
    assert {k: manifest[k] for k in ("inputs", "rows", "shards", "failed", "dtype", "complete", "model")} == {
        "inputs": 10,
        "rows": 10,
        "shards": [4, 4, 2],
        "failed": {},
        "dtype": "float16",
        "complete": True,
        "model": clip.provenance,
    }


def test_what_fails_is_named_left_out_and_not_tried_again(tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos", 9, broken=[0, 3, 4, 5], odd=[7])
    clip = Colors()
    for again in (False, True):
        failed = build_index(Source([photos]), tmp_path / "out", clip, shard_size=3)["failed"]
        assert list(failed) == ["00.png", "03.png", "04.png", "05.png", "07.png"], again
        assert all(str(photos / name) in why for name, why in failed.items() if name != "07.png")
        assert "no finite embedding" in failed["07.png"]
    assert clip.seen == ["01.png", "02.png", "06.png", "07.png", "08.png"]  # once
    index = open_index(tmp_path / "out")
    assert index.manifest["shards"] == [2, 0, 2]
    assert index.read_ids(np.arange(4)) == ["01.png", "02.png", "06.png", "08.png"]
    assert not (tmp_path / "out" / "embeddings-00001.npy").exists()


def test_where_all_pictures_fail_the_index_is_empty(tmp_path: Path) -> None:
    build_index(Source([pictures(tmp_path / "photos", 2, broken=[0, 1])]), tmp_path / "out", Colors())
    index = open_index(tmp_path / "out")
    assert (len(index), index.dimension, list(index.stream_chunks()), index.read_ids(np.zeros(0, np.int64))) == (0, 0, [], [])


def test_another_model_or_other_settings_are_refused(tmp_path: Path) -> None:
    photos, out = pictures(tmp_path / "photos", 3), tmp_path / "out"
    build_index(Source([photos]), out, Colors(), about={"models": "a"})
    before = content(out)
    with pytest.raises(InputError, match=r"model\.sha256\.weights was 'colours', now it is 'other'"):
        build_index(Source([photos]), out, Colors("other"), about={"models": "a"})
    with pytest.raises(InputError, match="shard_size was 4096, now it is 2"):
        build_index(Source([photos]), out, Colors(), shard_size=2, about={"models": "a"})
    with pytest.raises(InputError, match=r"about\.models was 'a', now it is None"):
        build_index(Source([photos]), out, Colors())
    assert content(out) == before


def test_other_pictures_are_refused(tmp_path: Path) -> None:
    photos, out = pictures(tmp_path / "photos", 3), tmp_path / "out"
    build_index(Source([photos]), out, Colors())
    moved = photos / "01.png"
    for change, said in (
        (lambda: moved.rename(photos / "01b.png"), r"number 2, 01\.png is now 01b\.png"),
        (lambda: (photos / "01b.png").rename(photos / "02b.png"), r"number 2, 01\.png is now 02\.png"),
        (lambda: (photos / "02b.png").unlink(), r"number 2, 01\.png is now 02\.png"),
        (lambda: (photos / "02.png").rename(moved), r"number 3, 02\.png is gone"),
        (lambda: pictures(photos, 4), r"number 4, 03\.png is new"),
    ):
        change()
        with pytest.raises(InputError, match=said):
            build_index(Source([photos]), out, Colors())


def test_shards_of_a_list_that_was_lost_are_refused(tmp_path: Path) -> None:
    photos, out = pictures(tmp_path / "photos", 3), tmp_path / "out"
    build_index(Source([photos]), out, Colors())
    (out / "inputs.txt").unlink()
    (photos / "00.png").unlink()
    with pytest.raises(InputError, match="start anew"):
        build_index(Source([photos]), out, Colors())


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="found none"):
        build_index(Source([tmp_path / "photos"]), tmp_path / "out", Colors())


@pytest.mark.parametrize("setting", ["batch_size", "shard_size", "threads"])
def test_settings_below_one_are_refused(tmp_path: Path, setting: str) -> None:
    settings: dict[str, Any] = {setting: 0}
    with pytest.raises(InputError, match="at least 1, got 0"):
        build_index(Source([pictures(tmp_path, 1)]), tmp_path / "out", Colors(), **settings)


def test_an_index_that_is_none_or_not_complete_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="annofree index"):
        open_index(tmp_path)
    out = tmp_path / "out"
    build_index(Source([pictures(tmp_path / "photos", 3)]), out, Colors())
    np.save(out / "embeddings-00000.npy", np.zeros((2, 3), np.float16))
    with pytest.raises(InputError, match="as it was written, but it is damaged"):
        open_index(out)
    (out / "checksums-00000.json").unlink()  # as of an earlier version
    with pytest.raises(InputError, match="expected 3 rows"):
        open_index(out)
    np.save(out / "embeddings-00000.npy", np.zeros((3, 3), np.int16))
    with pytest.raises(InputError, match="int16"):
        open_index(out)
    (out / "embeddings-00000.npy").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        open_index(out)
    manifest = take_checksum(json.loads((out / "manifest.json").read_text()))
    (out / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    with pytest.raises(InputError, match="not complete"):
        open_index(out)
    (out / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="annofree index"):
        open_index(out)


# Each moment is in a process of its own, which ends itself as kill -9 does, or is ended from outside as a batch is at work.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.support.indexing import Colors, content
from annofree.io.files.checksums import take_checksum
from annofree.retrieval.build_index import build_index
from annofree.io.image_sources import Source

photos, out = Path(sys.argv[1]), Path(sys.argv[2])

class Struck(Colors):
    def encode_image(self, images):
        strike("batch")
        strike("outside")
        return super().encode_image(images)

left = {}

def strike(what):
    if what in left:
        left[what] -= 1
        if left[what] == 0 and what == "outside":
            os.write(left["reach"], b".")
            signal.pause()
        elif left[what] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

replace = Path.replace

def replacing(self, target):
    strike("before")
    moved = replace(self, target)
    strike("after")
    return moved

Path.replace = replacing

def build_network(to):
    build_index(Source([photos]), to, Struck(), batch_size=3, shard_size=5)

def killed(to, what, value):
    reached, reach = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            left.update({what: value, "reach": reach})
            build_network(to)
        finally:
            os._exit(0)
    os.close(reach)
    if what == "outside":
        assert os.read(reached, 1), "ended by itself"
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == signal.SIGKILL

build_network(out / "whole")
expected, hits = content(out / "whole"), 0
moments = [("batch", 1), ("batch", 4), *(("before", n) for n in range(1, 11)), *(("after", n) for n in (1, 2, 3, 9))]
for number, moment in enumerate([*moments, ("outside", 2), ("outside", 3)]):
    folder = out / str(number)
    hits += killed(folder, *moment)
    if number % 4 == 0:
        killed(folder, "after", 2)  # and once more
    build_network(folder)
    assert content(folder) == expected, moment
print("killed", hits)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_costs_nothing(tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos", 20, broken=[2, 5, 6, 7, 8, 9], odd=[11])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, photos, tmp_path / "out"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=1800,  # a hang
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # manifest, inputs, three embeddings (one shard has no image), four ids and the manifest again make ten files
    assert int(done.stdout.split()[1]) == 2 + 10 + 4 + 2


def files_in(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != "lock"}


def test_shards_that_are_cut_or_have_another_byte_are_named_and_embedded_again(tmp_path: Path) -> None:
    source, out = Source([pictures(tmp_path / "photos", 5)]), tmp_path / "out"
    build_index(source, out, Colors(), shard_size=2)
    expected = files_in(out)
    for name in sorted(set(expected) - {"manifest.json", "inputs.txt"}):
        flipped = bytearray(expected[name])
        flipped[len(flipped) // 2] ^= 1
        for damaged in (bytes(flipped), expected[name][:-3], b""):
            (out / name).write_bytes(damaged)
            with pytest.raises(InputError, match=f"{name[-10:-5]}|embeddings|checksums"):
                opened = open_index(out)
                opened.read_ids(np.arange(len(opened)))
            build_index(source, out, Colors(), shard_size=2)
            assert {k: v for k, v in files_in(out).items() if k[:9] != "checksums"} == {
                k: v for k, v in expected.items() if k[:9] != "checksums"
            }
            open_index(out)


@pytest.mark.parametrize("content", ["[]", "{}", "[" * 100_000, '{"format": "annofree index 1", "complete": 3}'])
def test_a_damaged_manifest_is_one_line(tmp_path: Path, content: str) -> None:
    source, out = Source([pictures(tmp_path / "photos", 3)]), tmp_path / "out"
    build_index(source, out, Colors())
    (out / "manifest.json").write_text(content)
    for call in (lambda: open_index(out), lambda: build_index(source, out, Colors())):
        with pytest.raises(InputError, match="manifest") as found:
            call()
        assert len(str(found.value).splitlines()) == 1


def test_an_image_that_changed_is_embedded_again(tmp_path: Path) -> None:
    photos, out = pictures(tmp_path / "photos", 3), tmp_path / "out"
    build_index(Source([photos]), out, Colors())
    before = files_in(out)
    first, *_, last = sorted(path for path in photos.rglob("*") if path.is_file())
    first.write_bytes(last.read_bytes())
    build_index(Source([photos]), out, Colors())
    assert files_in(out)["embeddings-00000.npy"] != before["embeddings-00000.npy"]


@pytest.mark.parametrize("what", ["image", "head", "ids"])
def test_what_changed_is_told(tmp_path: Path, what: str) -> None:
    """A head that is no Python any more is damage as any other."""
    photos, out, said = pictures(tmp_path / "photos", 4), tmp_path / "out", list[str]()
    build_index(Source([photos]), out, Colors(), shard_size=2, on_note=said.append)
    whole = content(out)
    assert said == []
    if what == "image":
        path = sorted(p for p in photos.rglob("*") if p.is_file())[0]
        path.write_bytes(path.read_bytes() + b" ")
    else:
        path = out / ("embeddings-00000.npy" if what == "head" else "ids-00000.json")
        path.write_bytes(path.read_bytes().replace(b"{", b"(", 1))
    build_index(Source([photos]), out, Colors(), shard_size=2, on_note=said.append)
    assert said == ["files or images of shards 0 changed since they were indexed; they are embedded again"]
    changed = {name for name, held in content(out).items() if held != whole[name]}
    assert changed <= {"checksums-00000.json"}, "results are what they would be"


def test_an_index_into_its_own_images_and_two_at_a_time_are_refused(tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos", 3)
    with pytest.raises(InputError, match="which has the images; choose another --out"):
        build_index(Source([photos]), photos, Colors())
    (tmp_path / "out").mkdir()
    held = acquire_lock(tmp_path / "out" / "lock", "taken")
    with pytest.raises(InputError, match="one call at a time"):
        build_index(Source([photos]), tmp_path / "out", Colors())
    held.release()
