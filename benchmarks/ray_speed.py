"""Images a second on Ray against the same processes without it, at the same time on the same cores; and what memory each takes.

    uv run python -m benchmarks.ray_speed --images 96 --repeat 3

Without Ray the run is dealt out by `--shard` to as many processes as there are workers, of one thread each.  Both sides start
together, so that whatever else the machine does slows both.  Loading is left out; processor seconds of Ray count all of its
processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
from benchmarks.ray_kills import list_children

SCENES = Path(__file__).parents[1] / "examples" / "scenes"


def draw_photos(folder: Path, count: int, side: int) -> None:
    """Write copies of the example scenes, no side longer than ``side``."""
    folder.mkdir()
    scenes = sorted(SCENES.glob("*.jpg"))
    for k in range(count):
        with PIL.Image.open(scenes[k % len(scenes)]) as image:
            image.thumbnail((side, side))
            image.convert("RGB").save(folder / f"{k:05}.jpg", quality=95)


def list_family(pid: int) -> list[int]:
    """A process and all that it began."""
    return [pid, *(one for child in list_children(pid) for one in list_family(child))]


def count_seconds(pids: Sequence[int]) -> float:
    """Processor seconds of some processes, of those that are alive."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure_memory(pids: Sequence[int]) -> float:
    """Megabytes of some processes, what they share counted in parts."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1000


def be_side(photos: Path, out: Path, method: str, options: dict[str, Any], others: int) -> dict[str, float]:
    """Segment photos, and return images, seconds from the first on, processor seconds, and megabytes at the end."""
    import annofree
    from annofree.io.callbacks import Callbacks

    began: list[float] = []
    ended: list[float] = []

    def count(done: int, total: int) -> None:
        if not began:
            _wait_for_others(out, others)
        now = [time.perf_counter(), count_seconds(list_family(os.getpid())), float(total)]
        if not began:
            began.extend(now)
        if done == total:
            ended.extend((*now, measure_memory(list_family(os.getpid()))))

    told = Callbacks(on_progress=count)
    asked: dict[str, Any] = {"models": "tiny", "method": method, "device": "cpu", "batch_size": 4, **options}
    annofree.segment(str(photos), "orange, banana, dog", out=out, callbacks=told, **asked)
    return {"images": ended[2], "seconds": ended[0] - began[0], "cpu": ended[1] - began[1], "megabytes": ended[3]}


def _wait_for_others(out: Path, others: int) -> None:
    """Wait until every process has loaded."""
    out.with_suffix(".ready").touch()
    while len(list(out.parent.glob("*.ready"))) < others:
        time.sleep(0.1)


def measure(folder: Path, workers: int, method: str) -> dict[str, dict[str, float]]:
    """Run both sides at the same time; returns what each took."""
    sides: dict[str, list[dict[str, Any]]] = {"ray": [{"engine": "ray", "workers": workers}]}
    sides["local"] = [{"shard": f"{k + 1}/{workers}"} for k in range(workers)]
    begun = {
        name: [_begin(folder, f"{name}{k}", method, one, workers + 1) for k, one in enumerate(own)]
        for name, own in sides.items()
    }
    found: dict[str, dict[str, float]] = {}
    for name, processes in begun.items():
        told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
        rate = sum(one["images"] / one["seconds"] for one in told)
        images = sum(one["images"] for one in told)
        cpu = sum(one["cpu"] for one in told) / images
        found[name] = {"images a second": rate, "cpu an image": cpu, "megabytes": sum(one["megabytes"] for one in told)}
    return found


def _begin(folder: Path, name: str, method: str, options: dict[str, Any], others: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "benchmarks.ray_speed", "--side", folder, name, method, json.dumps(options), others]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[1]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, and tell; or be one of the sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--side-length", type=int, default=320, help="px of the longer side")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--method", default="sam_clip")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--side", nargs=5, help="be a side")
    asked = parser.parse_args(arguments)
    if asked.side:
        folder, name, method, options, others = asked.side
        print(json.dumps(be_side(Path(folder, "photos"), Path(folder, name), method, json.loads(options), int(others))))
        return
    runs = []
    for _ in range(asked.repeat):
        with tempfile.TemporaryDirectory() as folder:
            draw_photos(Path(folder, "photos"), asked.images, asked.side_length)
            runs.append(measure(Path(folder), asked.workers, asked.method))
            print(json.dumps(runs[-1]), flush=True)
    rates = [one["ray"]["images a second"] / one["local"]["images a second"] for one in runs]
    costs = [one["local"]["cpu an image"] / one["ray"]["cpu an image"] for one in runs]
    print(json.dumps({"speed on ray / local": statistics.median(rates), "by processor seconds": statistics.median(costs)}))


if __name__ == "__main__":
    main()
