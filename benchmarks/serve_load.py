"""Many clients on one ``annofree serve`` for two minutes: what is answered, what is sent away, what is lost, and its memory.

    uv run python -m benchmarks.serve_load                  # a folder of scenes and the tiny models
    uv run python -m benchmarks.serve_load --rows 100000    # and a run of 100,000 rows: start, pages and memory

The server is a process of its own on a free port.  Each client lists images, takes thumbnails and answers, reviews an image and
takes that back.  At the end the server is killed, and its journal is held against what the clients were told is saved.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from tests.support.many_rows import make_run

from annofree.runs.corrections.journal import read_histories

SCENES = Path(__file__).parents[1] / "examples" / "scenes"
OURS = {"X-Annofree": "1"}


def start(folder: Path, out: Path | None, *options: str) -> tuple[subprocess.Popen[str], str, float]:
    """A server, its address, and the seconds until it printed it."""
    began = time.monotonic()
    command = [sys.executable, "-m", "annofree", "serve", str(folder), "--port", "0", *options]
    command += ["--out", str(out)] if out else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().removeprefix("open ").strip(), time.monotonic() - began


def read_rss(pid: int) -> float:
    """Resident MB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def read_cpu(pid: int) -> float:
    """Processor-seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Clients:
    """Some clients and what they were told."""

    def __init__(self, address: str, images: list[str], seconds: float) -> None:
        self.address, self.images, self.end = address, images, time.monotonic() + seconds
        self.statuses, self.problems = Counter[int](), Counter[str]()
        self.saved: dict[str, int] = {}
        self.turn = threading.Lock()

    def work(self, seed: int) -> None:
        """Ask until the time is over."""
        rng = random.Random(seed)
        with httpx.Client(base_url=self.address, headers=OURS, timeout=600) as client:
            while time.monotonic() < self.end:
                try:
                    self.ask(client, rng)
                except httpx.HTTPError as problem:
                    self.problems[type(problem).__name__] += 1

    def ask(self, client: httpx.Client, rng: random.Random) -> None:
        """One round of a client."""
        one = rng.choice(self.images)
        self.count(client.get("/api/images", params={"offset": rng.randrange(len(self.images)), "limit": 60}))
        self.count(client.get(f"/api/images/{one}/thumbnail"))
        answer = self.count(client.get(f"/api/images/{one}/answer"))
        if answer.status_code != 200:
            time.sleep(float(answer.headers.get("retry-after", "1")) * rng.random())
            return
        body = {"acts": [{"act": rng.choice(["reviewed", "unreviewed"])}], "revision": answer.json()["revision"]}
        told = self.count(client.post(f"/api/images/{one}/acts", json=body))
        if told.status_code == 200:
            with self.turn:
                self.saved[one] = max(self.saved.get(one, 0), told.json()["revision"])

    def count(self, answer: httpx.Response) -> httpx.Response:
        """Count what came back."""
        with self.turn:
            self.statuses[answer.status_code] += 1
        return answer


def load(clients: int, seconds: float, queue: int) -> dict[str, Any]:
    """The figures of a load on a folder of scenes."""
    with tempfile.TemporaryDirectory() as folder:
        photos, out = Path(folder) / "photos", Path(folder) / "out"
        for k in range(20):
            for path in SCENES.glob("*.jpg"):
                photos.mkdir(exist_ok=True)
                shutil.copy(path, photos / f"{path.stem}-{k:02}.jpg")
        images = sorted(path.name for path in photos.iterdir())
        options = [
            "--classes",
            "orange, elephant, dog",
            "--models",
            "tiny",
            "--device",
            "cpu",
            "--queue",
            str(queue),
            "--timeout",
            "600",
        ]
        process, address, ready = start(photos, out, *options)
        try:
            httpx.get(f"{address}api/images/{images[0]}/answer", timeout=600)
            begun, cpu = read_rss(process.pid), read_cpu(process.pid)
            held, peak = Clients(address, images, seconds), begun
            threads = [threading.Thread(target=held.work, args=(k,)) for k in range(clients)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(1)
                peak = max(peak, read_rss(process.pid))
            rss, cpu = read_rss(process.pid), read_cpu(process.pid) - cpu
            process.send_signal(signal.SIGKILL)
            process.wait()
            kept = {name: history.revision for name, history in read_histories(out).items()}
        finally:
            process.kill()
        lost = {name: [kept.get(name, 0), revision] for name, revision in held.saved.items() if kept.get(name, 0) < revision}
    return {
        "clients": clients,
        "seconds": seconds,
        "seconds until it printed its address": round(ready, 1),
        "answers by status": dict(sorted(held.statuses.items())),
        "connections that failed": dict(held.problems),
        "acts saved": sum(kept.values()),
        "acts that were told as saved and are lost": lost,
        "resident MB at the start, at most, at the end": [round(begun), round(peak), round(rss)],
        "processor-seconds of the server": round(cpu, 1),
    }


def many(rows: int) -> dict[str, Any]:
    """The figures of a run of many rows."""
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run", rows, Path(folder))
        process, address, ready = start(run, None)
        try:
            opened, told = read_cpu(process.pid), {}
            with httpx.Client(base_url=address, timeout=120) as client:
                for query in ("?limit=60", f"?limit=60&offset={rows - 60}", "?order=risk&limit=60", "?class=dog&q=img0"):
                    times = []
                    for _ in range(5):
                        cpu = read_cpu(process.pid)
                        client.get(f"/api/images{query}").raise_for_status()
                        times.append(read_cpu(process.pid) - cpu)
                    told[query] = round(sorted(times)[2], 3)
            rss = read_rss(process.pid)
        finally:
            process.kill()
    return {
        "rows": rows,
        "seconds until it printed its address": round(ready, 1),
        "processor-seconds until then": round(opened, 1),
        "processor-seconds of a page, median of 5": told,
        "resident MB": round(rss),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--rows", type=int, default=0)
    given = parser.parse_args()
    print(json.dumps(many(given.rows) if given.rows else load(given.clients, given.seconds, given.queue), indent=1))


if __name__ == "__main__":
    main()
