"""Runs that are stopped, go on, are dealt out and joined; what they leave is what an undisturbed run leaves.

To the byte: the method counts pixels, and all is done in one environment.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.methods.registry import TASKS
from annofree.runs import executor as work
from annofree.runs.batch_encoder import BatchEncoder, EncodeResult, Entry
from annofree.runs.clock import PARTS, StageTimer
from annofree.runs.config import RunConfig
from annofree.runs.engines import engine
from annofree.runs.inputs import find_source
from annofree.runs.merge_shards import merge_runs
from annofree.runs.run import Run
from annofree.runs.store import layout as run_folder
from annofree.runs.store.chunks import Chunks
from annofree.runs.tasks import Tasks
from annofree.structures import Image, Vocabulary

COUNT = 21


class Stopped(BaseException):
    """As a kill, but in this process."""


class Stopping:
    """A feed that raises after some images, in the place of one that does not."""

    def __init__(self, feed: BatchEncoder, after: int, problem: BaseException) -> None:
        self.feed, self.after, self.problem = feed, after, problem
        self.seen: list[int] = []

    @property
    def clock(self) -> StageTimer:
        return self.feed.clock

    @property
    def batch_size(self) -> int:
        return self.feed.batch_size

    def encode_batches(self, entries: Sequence[Entry]) -> Iterator[list[EncodeResult]]:
        for batch in self.feed.encode_batches(entries):
            if len(self.seen) >= self.after:
                raise self.problem
            self.seen += [one.number for one in batch]
            yield batch


class Bench:
    """Runs over the same images."""

    def __init__(self, kills: ModuleType, images: Path, folder: Path) -> None:
        self.method, self.digest = kills.Colours(), kills.digest
        self.pictures, self.folder = images, folder
        self.notes: list[str] = []
        self.failures: list[str] = []

    def request(self, out: str = "out", **more: Any) -> RunConfig:
        source = find_source([self.pictures], self.folder)
        words, asked = Vocabulary.of("red, green, blue"), {"method": "colours"}
        ids = more.pop("ids", list(source.list_ids()))
        rest: dict[str, Any] = {"wanted": TASKS, "stuff": ("blue",), "stretch": 8, "overlays": False, "keep": True} | more
        return RunConfig(self.folder / out, ids, source.root, words, asked, **rest)

    def feed(self, batch_size: int = 4, after: int = 999, problem: BaseException | None = None) -> Stopping:
        return Stopping(BatchEncoder(self.tasks, batch_size, 2), after, problem or Stopped())

    @property
    def tasks(self) -> Tasks:
        return Tasks(TASKS, self.method, self.method, ("blue",))

    def go(self, request: RunConfig, feed: Stopping | None = None, **how: Any) -> dict[str, Any]:
        run = Run(request, Callbacks(lambda _, why: self.failures.append(why), on_note=self.notes.append))
        if not how.get("fresh") and run.check() and not how.get("retry"):
            return run.read_summary()
        return run.execute(self.tasks, feed or self.feed(), {"settings": {}}, **how)


@pytest.fixture
def bench(kills: ModuleType, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(work, "_LONGEST", math.inf)  # no shard is closed because the machine is slow
    return Bench(kills, images, tmp_path)


def test_killed_at_fifty_moments_it_leaves_the_very_files(tmp_path: Path) -> None:
    said = tmp_path / "said.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.kills",
        "--kills",
        "50",
        "--images",
        "100",
        "--json",
        str(said),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout
    found = json.loads(said.read_text(encoding="utf-8"))
    assert found["kills"] >= 50 and found["failed"] == 2
    assert not any(found["differ"]) and found["files"] > 2 * 97


@pytest.mark.parametrize("after", [0, 4, 8, 12, 20])
@pytest.mark.parametrize("problem", [Stopped(), KeyboardInterrupt()])
def test_a_run_that_was_stopped_goes_on(bench: Bench, undisturbed: dict[str, str], after: int, problem: BaseException) -> None:
    request, first = bench.request(), bench.feed(after=after, problem=problem)
    with pytest.raises(type(problem)):
        bench.go(request, first)
    assert not (request.out / "annotations.json").exists()
    then = bench.feed()
    summary = bench.go(request, then)
    assert first.seen + then.seen == list(range(COUNT))  # whole batches are kept
    assert bench.digest(request.out) == undisturbed
    run, last = summary["timings"], summary["timings"]["last_call"]
    assert (run["images"], run["failed"]) == (20, 1)
    assert last["images"] + last["failed"] == COUNT - after
    first_seconds = sum(line.get("total", 0) for line in list(Chunks(request.out).read_seconds())) - last["seconds_total"]
    assert run["seconds_total"] > last["seconds_total"] > 0 and first_seconds > 0
    assert first_seconds + last["seconds_total"] == pytest.approx(run["seconds_total"], abs=0.01)
    if after:
        assert f"going on: {after} of {COUNT} images are done" in bench.notes


def test_the_time_of_every_call_is_told_and_its_parts_add_up(bench: Bench) -> None:
    steps: list[tuple[int, int]] = []
    request = bench.request(overlays=True)
    run = Run(request, Callbacks(on_progress=lambda *step: steps.append(step)))
    told = run.execute(bench.tasks, bench.feed(), {})["timings"]
    assert steps == [(k, COUNT) for k in range(COUNT + 1)]
    for seconds in (told, told.pop("last_call")):
        parts = [f"seconds_{part}" for part in (*PARTS, "other")]
        assert [key for key in seconds if key.startswith("seconds_")] == ["seconds_total", *parts]
        assert sum(seconds[part] for part in parts) == pytest.approx(seconds["seconds_total"], abs=1e-9)
        assert all(seconds[part] >= 0 for part in parts[:-1]) and seconds["seconds_other"] > -0.01
        assert seconds["seconds_draw"] > 0 and seconds["seconds_write"] > 0 and seconds["seconds_load"] > 0


def test_a_clock_that_was_started_before_counts_from_there(bench: Bench) -> None:
    feed = bench.feed()
    feed.clock.start(at=time.perf_counter() - 1000)
    told = bench.go(bench.request(), feed)["timings"]
    assert 1000 <= told["seconds_load"] <= told["seconds_total"] < 2000 and not feed.clock.running
    assert told["images_per_second_without_loading"] > 0.02


def test_a_retry_that_is_stopped_leaves_a_complete_run(bench: Bench) -> None:
    bench.go(bench.request())
    with pytest.raises(Stopped):
        bench.go(bench.request(), bench.feed(after=0), retry=True)
    assert Run(bench.request()).check()


def test_another_batch_size_may_go_on(bench: Bench, undisturbed: dict[str, str]) -> None:
    for after, batch_size in ((4, 4), (6, 3)):
        with pytest.raises(Stopped):
            bench.go(bench.request(), bench.feed(batch_size, after))
    bench.go(bench.request(), bench.feed(7))
    assert bench.digest(bench.request().out) == undisturbed


def test_a_complete_run_is_left_as_it_is(bench: Bench, undisturbed: dict[str, str]) -> None:
    summary = bench.go(bench.request())
    idle = bench.feed()
    assert Run(bench.request()).check()
    assert bench.go(bench.request(), idle) == summary
    assert not idle.seen and bench.digest(bench.request().out) == undisturbed


def test_results_that_were_lost_are_written_again(bench: Bench, undisturbed: dict[str, str]) -> None:
    bench.go(bench.request())
    idle = bench.feed()
    (bench.request().out / "annotations.json").unlink()
    bench.go(bench.request(), idle)
    assert not idle.seen and bench.digest(bench.request().out) == undisturbed


def test_torn_shards_and_lines_are_done_again(bench: Bench, undisturbed: dict[str, str]) -> None:
    with pytest.raises(Stopped):
        bench.go(bench.request(), bench.feed(after=16))
    shards = bench.request().out / "shards"
    torn = (shards / "00000.jsonl").read_bytes()
    (shards / "00000.jsonl").write_bytes(torn[:-20])
    with (shards / "manifest.jsonl").open("ab") as manifest:
        manifest.write(b'{"number": 2, "fi')
    (shards / "00002.jsonl").write_text("half a sh")
    (shards.parent / "labels" / ".half-abcd_123.png").write_bytes(b"half")
    then = bench.feed()
    bench.go(bench.request(), then)
    assert then.seen == [*range(8), *range(16, COUNT)]
    assert bench.digest(bench.request().out) == undisturbed


def test_what_was_half_begun_is_begun(bench: Bench, undisturbed: dict[str, str]) -> None:
    shards = bench.request().out / "shards"
    shards.mkdir(parents=True)
    (shards / "inputs.txt").write_text('"other.png"\n')
    bench.go(bench.request())
    assert bench.digest(bench.request().out) == undisturbed


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "classes": ({"vocabulary": Vocabulary.of("red, green: lime, blue")}, r"classes was .*\['green'\].*, now it is .*'lime'.*"),
    "method": ({"settings": {"method": "other"}}, "method was 'colours', now it is 'other'"),
    "threshold": ({"min_score": 0.5}, "min_score was 0.0, now it is 0.5"),
    "tasks": ({"wanted": ("instance",)}, r"tasks was .*, now it is \['instance'\]"),
    "part": ({"part": (1, 2)}, "part was '1/1', now it is '1/2'"),
    "encodings": ({"keep": False}, "encodings was True, now it is False"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_changed_settings_are_refused_with_the_difference(bench: Bench, case: str) -> None:
    change, words = CHANGES[case]
    with pytest.raises(Stopped):
        bench.go(bench.request(), bench.feed(after=8))
    with pytest.raises(InputError, match=f"asked for something else: {words}; ask as before.*--out.*--fresh"):
        bench.go(replace(bench.request(), **change))


def test_other_pictures_and_other_models_are_refused(bench: Bench) -> None:
    with pytest.raises(Stopped):
        bench.go(bench.request(), bench.feed(after=8))
    ids = bench.request().ids
    with pytest.raises(InputError, match=r"number 22, new\.png is new"):
        bench.go(bench.request(ids=[*ids, "new.png"]))
    with pytest.raises(InputError, match=f"number 21, {ids[-1]} is gone"):
        bench.go(bench.request(ids=ids[:-1]))
    bench.method.provenance = {"method": "colours", "models": ["other"]}
    with pytest.raises(InputError, match=r"provenance.models was \[\], now it is \['other'\]"):
        bench.go(bench.request())


def test_fresh_starts_anew(bench: Bench, undisturbed: dict[str, str]) -> None:
    other = replace(bench.request(), vocabulary=Vocabulary.of("red, blue"))
    bench.go(other)
    bench.go(bench.request(), fresh=True)
    assert bench.digest(bench.request().out) == undisturbed


def test_two_at_a_time_are_refused(bench: Bench) -> None:
    with Chunks(bench.request().out).hold(), pytest.raises(InputError, match="expected one run at a time"):
        bench.go(bench.request())
    bench.go(bench.request())


# Images that fail


def test_bad_pictures_are_in_quarantine_until_they_are_tried_again(
    kills: ModuleType, images: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(images, tmp_path / "pictures")
    bench = Bench(kills, tmp_path / "pictures", tmp_path)
    summary = bench.go(bench.request())
    torn = tmp_path / "pictures" / "2" / "0009.png"
    (kept,) = json.loads((tmp_path / "out" / "quarantine.json").read_text())
    assert kept["id"] == "2/0009.png" and str(torn) in kept["reason"]
    assert summary["failed"] == {str(torn): kept["reason"]} and bench.failures == [kept["reason"]]
    PIL.Image.new("RGB", (24, 16), "red").save(torn)
    assert bench.go(bench.request())["failed"] == summary["failed"]
    again = bench.feed()
    assert bench.go(bench.request(), again, retry=True)["failed"] == {}
    assert again.seen == [list(bench.request().ids).index("2/0009.png")]
    assert not (tmp_path / "out" / "quarantine.json").exists()
    assert not [p for p in (tmp_path / "out" / "shards").iterdir() if p.name.startswith("00000.")]  # 00000-2 came for it
    bench.go(bench.request("new"))
    assert bench.digest(tmp_path / "out") == bench.digest(tmp_path / "new") != undisturbed
    assert (tmp_path / "out" / "encodings" / "00000.safetensors").read_bytes() == (
        tmp_path / "new" / "encodings" / "00000.safetensors"
    ).read_bytes()


# Disks


@pytest.mark.parametrize("when", [3, 17, 39, 46])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_named_and_the_run_goes_on(
    bench: Bench, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch, when: int, number: int
) -> None:
    from annofree.formats import label_maps, panoptic
    from annofree.io import atomic as files
    from annofree.runs.store import chunks as run_shards
    from annofree.runs.store import results as run_finals

    written = 0

    def full(path: Path, write: Any) -> None:
        nonlocal written
        written += 1
        if written > when:
            path.with_name(f".{path.stem}-abcdefgh{path.suffix}").write_bytes(b"half")  # as a kill would leave it
            raise OSError(number, "No room" if number != errno.EIO else "Input/output error")
        whole(path, write)

    whole = files.write_atomic
    with monkeypatch.context() as patch:
        for module in (files, label_maps, panoptic, run_shards, run_folder, run_finals):
            patch.setattr(module, "write_atomic", full)
        words = "Input/output error" if number == errno.EIO else "the disk is full"
        with pytest.raises(InputError, match=f"results cannot be written to .*{words}.*the same command goes on"):
            bench.go(bench.request())
    bench.go(bench.request())
    assert bench.digest(bench.request().out) == undisturbed


def test_encodings_that_have_no_room_are_refused_at_the_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.go(bench.request("roomy"))
    assert bench.notes[0].startswith("encodings take about ") and "for 21 images" in bench.notes[0]
    monkeypatch.setattr(work, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match=r"but only 1\.0 kB are free; make room, or run without --keep-encodings"):
        bench.go(bench.request())


# Parts


def parts(bench: Bench, n: int) -> list[Path]:
    for i in range(1, n + 1):
        bench.go(bench.request(f"part-{i}", part=(i, n)))
    return [bench.folder / f"part-{i}" for i in range(1, n + 1)]


@pytest.mark.parametrize("n", [2, 5])  # the fifth part of three stretches is empty
def test_parts_that_are_joined_are_the_whole(bench: Bench, undisturbed: dict[str, str], n: int) -> None:
    folders = parts(bench, n)
    out = bench.folder / "joined"
    for _ in range(2):  # again over a joined one
        summary = merge_runs(folders[::-1], out)
        assert bench.digest(out) == undisturbed
    run, last = summary["timings"], summary["timings"]["last_call"]
    assert (run["images"], run["failed"], last["images"], last["failed"]) == (20, 1, 0, 0)
    seconds = [json.loads((folder / "run.json").read_text())["timings"]["seconds_total"] for folder in folders]
    assert run["seconds_total"] - last["seconds_total"] == pytest.approx(sum(seconds), abs=0.01)
    encodings = [path.read_bytes() for path in sorted((out / "encodings").iterdir())]
    bench.go(bench.request())
    assert encodings == [path.read_bytes() for path in sorted((bench.folder / "out" / "encodings").iterdir())]


def test_parts_that_do_not_fit_are_refused(bench: Bench) -> None:
    first, second = parts(bench, 2)
    out = bench.folder / "joined"
    with pytest.raises(InputError, match=r"expected all parts of the run, but none of 1/2 has .* \(image 9\); name the rest"):
        merge_runs([first], out)
    with pytest.raises(InputError, match=r"is in .* and in another"):
        merge_runs([first, first, second], out)
    other = replace(bench.request("other", part=(2, 2)), vocabulary=Vocabulary.of("red, blue"))
    bench.go(other)
    with pytest.raises(InputError, match=r"are not parts of one: asked.classes was "):
        merge_runs([first, other.out], out)
    with pytest.raises(InputError, match="is not a run folder"):
        merge_runs([first, bench.folder / "nowhere"], out)
    with pytest.raises(Stopped):
        bench.go(bench.request("half", part=(2, 2)), bench.feed(after=4))
    with pytest.raises(InputError, match="is not complete"):
        merge_runs([first, bench.folder / "half"], out)
    with pytest.raises(InputError, match="is one of the runs; choose another --out"):
        merge_runs([first, second], first)
    assert not out.exists()
    with pytest.raises(InputError, match="expected a part such as 1/4"):
        bench.request(part=(3, 2))


def test_shards_close_by_time_too(bench: Bench, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_LONGEST", -1.0)
    bench.go(bench.request())
    assert Chunks(bench.request().out).list_sizes() == [4, 4, 4, 4, 4, 1]
    assert bench.digest(bench.request().out) == undisturbed


class SlowWork:
    """A method whose clock goes ``seconds`` forward an image, and whose process is killed where it begins the ``last``."""

    def __init__(self, bench: Bench, seconds: float, last: int = 999) -> None:
        self.method, self.seconds, self.last, self.seen, self.now = bench.tasks, seconds, last, 0, 0.0

    def encode(self, images: Sequence[Image]) -> list[Any]:
        self.seen, self.now = self.seen + len(images), self.now + self.seconds * len(images)
        if self.seen > self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.method.encode(images)

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.skipif(not hasattr(os, "fork"), reason="asks for forks")
@pytest.mark.parametrize("part", [(1, 1), (1, 2), (2, 2)])
def test_a_killed_run_of_slow_images_keeps_all_but_the_last_half_minute(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, part: tuple[int, int]
) -> None:
    monkeypatch.setattr(work, "_LONGEST", 30.0)
    whole, killed = bench.request("whole", part=part), bench.request("killed", part=part)
    bench.go(whole)
    for last, seconds in ((5, 20.0), (2, 45.0), (999, 1.0)):  # of each call, which is cut otherwise than the one before
        slow = SlowWork(bench, seconds, last)
        monkeypatch.setattr(work, "time", slow)
        if not (child := os.fork()):
            with contextlib.suppress(BaseException):
                bench.go(killed, Stopping(BatchEncoder(slow, 1, 1), 999, Stopped()))
            os._exit(0)
        os.waitpid(child, 0)
        assert Chunks(killed.out).list_sizes() == {5: [2, 2], 2: [2, 2, 1, 1]}.get(last, Chunks(killed.out).list_sizes())
    assert Chunks(killed.out).complete
    assert bench.digest(killed.out) == bench.digest(whole.out)


# Environments


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Where the work is done from now on, to be changed."""
    place: dict[str, Any] = {"processor": "A", "threads": 2, "variables": {}}
    monkeypatch.setattr(engine, "describe_environment", lambda: json.loads(json.dumps(place)))
    yield place


def test_a_run_that_goes_on_elsewhere_says_so_and_lists_both_places(
    bench: Bench, here: dict[str, Any], undisturbed: dict[str, str]
) -> None:
    first = dict(here)
    with pytest.raises(Stopped):
        bench.go(bench.request(), bench.feed(after=4))
    with pytest.raises(Stopped):
        bench.go(bench.request(), bench.feed(after=4))
    assert not [note for note in bench.notes if "elsewhere" in note]
    here |= {"processor": "B", "variables": {"OMP_NUM_THREADS": "1"}}
    summary = bench.go(bench.request())
    assert [note for note in bench.notes if "elsewhere" in note] == [
        "the rest is made elsewhere, and its last digits may differ: "
        "processor was 'A', now it is 'B'; variables.OMP_NUM_THREADS was None, now it is '1'"
    ]
    assert summary["environments"] == [first, here]
    assert json.loads((bench.request().out / "run.json").read_text())["environments"] == [first, here]
    assert bench.digest(bench.request().out) == undisturbed
    here["processor"] = "C"
    (bench.request().out / "annotations.json").unlink()
    assert bench.go(bench.request())["environments"] == summary["environments"]  # nothing was computed there


def test_a_run_that_starts_anew_forgets_where_it_was_made(bench: Bench, here: dict[str, Any]) -> None:
    bench.go(bench.request())
    here["processor"] = "B"
    assert bench.go(bench.request(), fresh=True)["environments"] == [here]


def test_a_run_that_is_joined_lists_the_places_of_its_parts(bench: Bench, here: dict[str, Any]) -> None:
    seen = []
    for i, processor in enumerate(("A", "B", "A"), 1):
        here["processor"] = processor
        seen.append(dict(here))
        bench.go(bench.request(f"part-{i}", part=(i, 3)))
    for _ in range(2):
        summary = merge_runs([bench.folder / f"part-{i}" for i in (1, 2, 3)], bench.folder / "joined")
        assert summary["environments"] == seen[:2]
