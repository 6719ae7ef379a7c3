"""Kill workers and drivers of runs on Ray, go on, and compare what they leave with what a local run leaves.

    uv run python -m benchmarks.ray_kills --kills 20 --images 400

A cluster of this machine stands for all of them.  Drivers are processes that join it, let two workers do the images, and are
told to go on once they are dead.  Workers are killed while their driver lives, which has to notice and to end well.  The method
knows flat colours and waits a while for each image, so that there is something to be killed in.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.kills import digest, one_run
from benchmarks.stage import NAMES, ColourEncoding, Colours, draw_pictures

from annofree.io.callbacks import Callbacks
from annofree.methods.registry import TASKS
from annofree.runs.clock import StageTimer
from annofree.runs.config import RunConfig
from annofree.runs.engines.ray_engine import RayEngine
from annofree.runs.engines.ray_pool import Cluster, RayPool
from annofree.runs.inputs import find_source
from annofree.runs.run import Run
from annofree.runs.tasks import Tasks
from annofree.structures import Image, Vocabulary

STRETCH, BATCH = 8, 4


class SlowColours(Colours):
    """The method that knows flat colours, and takes its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def encode(self, images: Sequence[Image]) -> list[ColourEncoding]:
        """Look at each pixel, after a while."""
        time.sleep(self.seconds * len(images))
        return super().encode(images)


def load_colours(seconds: float) -> Tasks:
    """All tasks by the slow method, as a worker loads them."""
    method = SlowColours(seconds)
    return Tasks(TASKS, method, method, ("blue",))


def run_on_ray(
    images: Path,
    out: Path,
    address: str | None = None,
    seconds: float = 0.02,
    callbacks: Callbacks = Callbacks(),
    workers: int = 2,
) -> dict[str, Any] | None:
    """Begin the run of ``benchmarks.kills`` or go on with it; None where it is complete."""
    source = find_source([images], out)
    settings = {"method": "colours"}
    ids, words = list(source.list_ids()), Vocabulary.of(NAMES)
    request = RunConfig(out, ids, source.root, words, settings, TASKS, ("blue",), stretch=STRETCH, overlays=True, keep=True)
    run = Run(request, callbacks)
    if run.check():
        return None
    load = partial(load_colours, seconds)
    with RayEngine(Cluster(address, workers), request, load, BATCH, StageTimer.started(), callbacks) as engine:
        return run.execute(engine.info, engine, {"settings": settings})


def draw_and_run(folder: Path, images: int, seed: int = 0) -> dict[str, str]:
    """Draw images in a folder, and return the hash of each file that a local run over them leaves."""
    draw_pictures(folder / "pictures", images, seed)
    one_run(folder / "pictures", folder / "local", stretch=STRETCH, overlays=True)
    return digest(folder / "local")


def list_workers() -> list[int]:
    """The processes of workers of the cluster that this process began, that have loaded."""
    raylets = [pid for pid in list_children(os.getpid()) if "raylet" in _read_command(pid).split(" ")[0]]
    return [pid for raylet in raylets for pid in list_children(raylet) if _read_command(pid).startswith("ray::_Actor")]


def list_children(parent: int) -> list[int]:
    """The processes that a process began."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def _read_command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def begin_driver(images: Path, out: Path, address: str | None, seconds: float) -> subprocess.Popen[str]:
    """Begin a process that runs on Ray and says on its output how far it is."""
    words = [sys.executable, "-m", "benchmarks.ray_kills", "--drive", images, out, "--seconds", seconds]
    more = [] if address is None else ["--address", address]
    return subprocess.Popen(
        [str(word) for word in (*words, *more)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )


def wait_for(driver: subprocess.Popen[str], done: int) -> int:
    """Wait until a driver did so many images, or ended; returns how many it did."""
    assert driver.stdout is not None
    last = 0
    for line in driver.stdout:
        last = int(line) if line.strip().isdecimal() else last
        if last >= done:
            break
    return last


def kill_and_compare(folder: Path, kills: int, images: int, seconds: float, seed: int = 0) -> dict[str, Any]:
    """Kill ``kills`` times, a worker or a driver, and compare each run that got to its end."""
    rng, pictures, counts, found = random.Random(seed), folder / "pictures", Counter[str](), list[list[str]]()
    expected = draw_and_run(folder, images, seed)
    with RayPool[Any](Cluster(None, 2), "cpu", lambda job, piece: job):
        import ray

        address = ray.get_runtime_context().gcs_address
        while sum(counts.values()) < kills:
            out = folder / f"killed-{len(found)}"
            _kill_until_done(pictures, out, address, seconds, rng, counts, images)
            got = digest(out)
            print(f"run {len(found)}: {dict(counts)}", file=sys.stderr, flush=True)
            found.append(sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name)))
    return {"kills": dict(counts), "runs": len(found), "files": len(expected), "differ": found}


def _kill_until_done(
    pictures: Path, out: Path, address: str, seconds: float, rng: random.Random, counts: Counter[str], images: int
) -> None:
    """Go on with a run in driver after driver, until one ends; each is killed, or a worker of it is, or two."""
    for attempt in range(100):
        driver, left = begin_driver(pictures, out, address, seconds), attempt < 4
        victims = rng.choice(("worker driver", "worker worker driver", "worker worker")).split() if left else []
        at = 0
        for victim in victims:
            at += rng.randrange(1, max(2, images // 4))
            if wait_for(driver, at) < at:
                break
            workers = list_workers()
            if victim == "worker" and workers:
                os.kill(rng.choice(workers), signal.SIGKILL)
            elif victim == "driver":
                driver.kill()
            counts[victim] += 1
        wait_for(driver, sys.maxsize)
        code = driver.wait()
        if code == 0:
            return
        if code != -signal.SIGKILL:
            raise SystemExit(f"expected a driver to end well or to be killed, but it ended with {code}")
    raise SystemExit("expected a run to get to its end")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, kill, and tell; or be a driver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=0.02, help="that an image takes")
    parser.add_argument("--drive", type=Path, nargs=2, metavar=("IMAGES", "OUT"), help="be a driver")
    parser.add_argument("--address")
    asked = parser.parse_args(arguments)
    if asked.drive:
        told = Callbacks(
            on_progress=lambda done, total: print(done, flush=True), on_note=lambda text: print(text, file=sys.stderr)
        )
        from benchmarks.ray_kills import run_on_ray  # workers import it, which they cannot from the program itself

        images, out = asked.drive
        run_on_ray(images, out, asked.address, asked.seconds, told)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = kill_and_compare(Path(folder), asked.kills, asked.images, asked.seconds)
    print(json.dumps(found))
    if any(found["differ"]):
        raise SystemExit("expected the very files of a local run")


if __name__ == "__main__":
    main()
