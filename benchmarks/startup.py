"""How long a command takes to say what it has to say where there is no work: help, a wrong call, an import.

    uv run python benchmarks/startup.py --repeats 15

Each call is a process of its own, the calls in turns; ``nothing`` is a Python that ends at once, which all others contain.
Processor time is that of the process itself, which a busy machine changes less; wall time is what a person waits.  Medians
of the repeats, with the least and the most; and how many modules are imported, heavy ones by name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from annofree.testing.timing import Spread, print_json

COMMAND = "import sys; from annofree.apps.cli import main; sys.argv[0] = 'annofree'; main()"
CALLS: dict[str, tuple[str, list[str]]] = {
    "nothing": ("pass", []),
    "import annofree": ("import annofree", []),
    "annofree --help": (COMMAND, ["--help"]),
    "annofree segment --help": (COMMAND, ["segment", "--help"]),
    "annofree segment photos (no names)": (COMMAND, ["segment", "photos"]),
    "annofree models show tinny (no such model)": (COMMAND, ["models", "show", "tinny"]),
}
"""Each call: the code that a Python is given, and the arguments."""

HEAVY = ("torch", "torchvision", "transformers", "open_clip", "timm", "huggingface_hub", "numpy", "scipy", "skimage", "PIL")
COUNTED = "import atexit, json, sys; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"


def timed(code: str, arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds of processor and wall time that one process takes."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime, wall


def modules(code: str, arguments: Sequence[str]) -> list[str]:
    """What such a process imports, in one more that is not timed."""
    command = [sys.executable, "-c", COUNTED + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


def measured(repeats: int) -> dict[str, dict[str, Any]]:
    """Time all calls, in turns."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in CALLS}
    for _ in range(repeats):
        for name, (code, arguments) in CALLS.items():
            took[name].append(timed(code, arguments))
    found = {}
    for name, (code, arguments) in CALLS.items():
        loaded = modules(code, arguments)
        processor, wall = (Spread.of([round(value, 4) for value in column]) for column in zip(*took[name], strict=True))
        found[name] = {
            "processor_seconds": processor._asdict(),
            "wall_seconds": wall._asdict(),
            "modules": len(loaded),
            "heavy": [heavy for heavy in HEAVY if heavy in loaded],
        }
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--small", action="store_true", help="each call once")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    repeats = 1 if asked.small else asked.repeats
    found = {"repeats": repeats, "cores": os.cpu_count(), "calls": measured(repeats)}
    print_json(found, asked.json)


if __name__ == "__main__":
    main()
