"""Kill a run at random moments, go on, and compare what it leaves with what a run that was never disturbed leaves.

    uv run python -m benchmarks.kills --kills 200 --images 1000 --overlays
    uv run python -m benchmarks.kill_commands --kills 100      # every other command

Each attempt is a fork of this process, killed with SIGKILL after a random while, most of them at work, some as they begin or
as they write the results.  When a run gets to its end its files are compared, byte for byte, and the next begins.  The method
knows flat colours and costs nothing, so that all the time goes into what is tested: reading, writing, going on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.stage import NAMES, Colours, draw_pictures

from annofree.methods.registry import TASKS
from annofree.runs.batch_encoder import BatchEncoder
from annofree.runs.config import RunConfig
from annofree.runs.inputs import find_source
from annofree.runs.run import Run
from annofree.runs.store.chunks import Chunks
from annofree.runs.tasks import Tasks
from annofree.structures import Vocabulary

OF_A_SESSION = ("run.json", "shards/")  # timings, and how the work fell into shards


def one_run(images: Path, out: Path, *, stretch: int = 8, overlays: bool = False, keep: bool = True) -> None:
    """Begin a run or go on with it: all tasks, in shards of ``stretch``."""
    source, method = find_source([images], out), Colours()
    ids, words, settings = list(source.list_ids()), Vocabulary.of(NAMES), {"method": "colours"}
    request = RunConfig(out, ids, source.root, words, settings, TASKS, ("blue",), stretch=stretch, overlays=overlays, keep=keep)
    run = Run(request)
    if not run.check():
        tasks = Tasks(TASKS, method, method, ("blue",))
        run.execute(tasks, BatchEncoder(tasks, 4, 2), {"settings": settings})


def digest(out: Path) -> dict[str, str]:
    """The hash of each result of a run; of what is half-written, too."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    results = {name: path for name, path in files.items() if not name.startswith(OF_A_SESSION) or "/." in name}
    kept = {name: path for name, path in results.items() if not name.startswith("encodings/")}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()}


def in_a_fork(work: Callable[[], None], seconds: float | None = None) -> bool:
    """Do work in a fork of this process, and kill it after a while; tells whether it was killed."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except BaseException as problem:
            print(f"in the fork: {type(problem).__name__}: {problem}", file=sys.stderr)
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise SystemExit("expected a run to end well or to be killed, but it failed")
    return os.WIFSIGNALED(status)


def killed_runs(folder: Path, kills: int, images: int, seed: int = 0, **how: Any) -> dict[str, Any]:
    """Kill ``kills`` times and compare every run that got to its end; says how far runs were, and whose files differ."""
    rng, pictures = random.Random(seed), folder / "pictures"
    draw_pictures(pictures, images, seed)
    start = time.perf_counter()
    in_a_fork(lambda: one_run(pictures, folder / "undisturbed", **how))
    whole, taken = time.perf_counter() - start, 0
    expected, found = digest(folder / "undisturbed"), list[list[str]]()
    shards = len(Chunks(folder / "undisturbed").list_whole())
    where: Counter[str] = Counter()
    while taken < kills or not found:
        out = folder / f"killed-{len(found)}"
        while in_a_fork(lambda out=out: one_run(pictures, out, **how), rng.uniform(0, whole / 3) if taken < kills else None):  # type: ignore[misc]
            taken += 1
            done = len(Chunks(out).list_whole())
            where["before the first shard" if not done else "among the shards" if done < shards else "at the results"] += 1
        got = digest(out)
        found.append(sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name)))
    failed = len(json.loads((folder / "undisturbed" / "quarantine.json").read_text(encoding="ascii")))
    return {
        "kills": taken,
        "runs": len(found),
        "killed": dict(where),
        "files": len(expected),
        "failed": failed,
        "differ": found,
        "seconds": round(whole, 3),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, kill, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stretch", type=int, default=8, help="images a shard")
    parser.add_argument("--overlays", action="store_true", help="draw overlays too, which takes most of the time")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = killed_runs(Path(folder), asked.kills, asked.images, asked.seed, stretch=asked.stretch, overlays=asked.overlays)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found))
    if any(found["differ"]):
        raise SystemExit("expected the very files of an undisturbed run")


if __name__ == "__main__":
    main()
