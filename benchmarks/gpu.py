"""What a GPU gives, by one command: features against the arithmetic limit, presets at true size, and a recipe.

    python benchmarks/gpu.py --out measured                  # all of it, some ten minutes on one card
    python benchmarks/gpu.py --out measured --only presets   # again after it was stopped: what is there is passed over
    python benchmarks/gpu.py --out tried --device cpu --small

Each measurement is a command of its own, named in ``measured/commands.txt``, with its log and its JSON beside it: every part
in fp32, TF32 and bf16 (`features.py`), `fast` and `best` in both precisions and at several batch sizes (`true_size.py`, the
most memory of the card as its driver tells it), and a recipe on emoji, whose figures have to be those of a CPU.
Weights are random where the true ones would have to be fetched, so nothing but this checkout is needed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
KINDS = ("features", "presets", "recipe")
BATCHES = (1, 4, 16)
RECIPE = HERE.parent / "recipes" / "emoji" / "zip.toml"


class Job(NamedTuple):
    """A measurement: what it is called, and the command that makes ``NAME.json`` or a folder ``NAME``."""

    name: str
    command: list[str]


def list_jobs(kinds: list[str], out: Path, device: str, small: bool) -> Iterator[Job]:
    """All measurements of some kinds, in order."""
    narrow = ["--small"] if small else []
    if "features" in kinds:
        for dtype in ("fp32",) if device == "cpu" else ("bf16", "tf32", "fp32"):
            name = f"features-{dtype}"
            command = [str(HERE / "features.py"), "--device", device, "--dtype", dtype, "--json", str(out / f"{name}.json")]
            yield Job(name, [sys.executable, *command, *narrow])
    if "presets" in kinds:
        for preset in ("paper",) if small else ("fast", "best"):
            for precision in ("float32", "bfloat16"):
                for batch in BATCHES[:1] if small or preset == "best" else BATCHES:
                    name = f"{preset}-{precision}-{batch}"
                    command = [
                        str(HERE / "true_size.py"),
                        "--models",
                        preset,
                        "--limit",
                        "2" if small else str(max(16, 2 * batch)),
                    ]
                    command += ["--precision", precision, "--batch-size", str(batch), "--device", device, *narrow]
                    command += ["--home", str(out / "weights"), "--out", str(out / name), "--json", str(out / f"{name}.json")]
                    yield Job(name, [sys.executable, *command])
    if "recipe" in kinds:
        limit = ["--limit", "1"] if small else []
        command = ["-m", "annofree", "reproduce", str(RECIPE), "--device", device, "--out", str(out / "recipe"), *limit]
        yield Job("recipe", [sys.executable, *command])


class MemoryWatch(threading.Thread):
    """Asks the card's driver ten times a second how much memory is taken, and keeps the most, in MiB; None without a card."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most: int | None = None
        self.ended = threading.Event()

    def run(self) -> None:
        """Ask until told to end."""
        ask = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not self.ended.wait(0.1):
            try:
                said = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
            except (OSError, subprocess.CalledProcessError):
                return
            self.most = max(self.most or 0, *map(int, said.split()))


def run_job(job: Job, out: Path) -> dict[str, Any]:
    """Run a measurement; returns its seconds, exit code, and the most memory of the card."""
    watch, began = MemoryWatch(), time.perf_counter()
    watch.start()
    with (out / f"{job.name}.log").open("w", encoding="utf-8") as log:
        code = subprocess.run(job.command, stdout=log, stderr=subprocess.STDOUT).returncode
    watch.ended.set()
    watch.join()
    return {"exit": code, "seconds": time.perf_counter() - began, "card MiB": watch.most}


def main() -> int:
    """Run what is asked for and not there yet; returns how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of logs and numbers")
    parser.add_argument("--only", default=",".join(KINDS), help=f"among {', '.join(KINDS)}, by comma")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="narrow models, to see that it runs")
    asked = parser.parse_args()
    if strange := {*asked.only.split(",")} - {*KINDS}:
        parser.error(f"expected kinds among {', '.join(KINDS)}, got {', '.join(sorted(strange))}")
    asked.out.mkdir(parents=True, exist_ok=True)
    table = asked.out / "measured.json"
    measured: dict[str, Any] = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}
    for job in list_jobs(asked.only.split(","), asked.out, asked.device, asked.small):
        if measured.get(job.name, {}).get("exit") == 0:
            continue
        with (asked.out / "commands.txt").open("a", encoding="utf-8") as file:
            print(" ".join(job.command), file=file)
        measured[job.name] = run_job(job, asked.out)
        table.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
        print(job.name, measured[job.name], flush=True)
    return sum(done["exit"] != 0 for done in measured.values())


if __name__ == "__main__":
    sys.exit(main())
