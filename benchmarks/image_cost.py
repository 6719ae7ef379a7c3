"""Processor-seconds that an image costs ``annofree segment``, start and models taken away: a longer run less a shorter one.

    uv run python benchmarks/image_cost.py examples/validation/images --models tiny
    uv run python benchmarks/image_cost.py examples/validation/images --beside ../other/src

One thread, every run a process of its own.  ``--beside`` measures another source tree in turn, and compares its annotations.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run_once(asked: argparse.Namespace, limit: int, source: Path | None, out: Path) -> float:
    """Processor-seconds of one run over ``limit`` images; raises SystemExit where it fails."""
    own = {} if source is None else {"PYTHONPATH": str(source.resolve())}
    what = [
        asked.images,
        "--models",
        asked.models,
        "--classes",
        asked.classes,
        "--out",
        out,
        "--limit",
        limit,
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "annofree", "segment", *map(str, what)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"expected exit code 0 of annofree segment, got {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def measure(asked: argparse.Namespace, source: Path | None, folder: Path) -> tuple[float, list[dict[str, Any]]]:
    """Processor-seconds an image, and the annotations of the longer run."""
    few, many = (run_once(asked, count, source, folder / str(count)) for count in (asked.few, asked.many))
    found = json.loads((folder / str(asked.many) / "annotations.json").read_text(encoding="utf-8"))
    return (many - few) / (asked.many - asked.few), found["annotations"]


def compare(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """What is not the same of two lists of annotations."""
    if len(ours) != len(theirs):
        return f"{len(ours)} annotations, beside {len(theirs)}"
    pairs = list(zip(ours, theirs, strict=True))
    masks = sum(a["segmentation"] != b["segmentation"] or a["category_id"] != b["category_id"] for a, b in pairs)
    apart = max((abs(a["score"] - b["score"]) for a, b in pairs), default=0.0)
    return f"{len(pairs)} annotations, {masks} with another mask or name, scores by {apart:.1e}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description="Processor-seconds an image.")
    parser.add_argument("images", type=Path)
    parser.add_argument("--models", default="tiny")
    parser.add_argument("--classes", default="dog, cat, car, apple")
    parser.add_argument("--few", type=int, default=4)
    parser.add_argument("--many", type=int, default=24)
    parser.add_argument("--beside", type=Path, help="the src of another tree")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        cost, found = measure(asked, None, Path(folder) / "ours")
        print(f"{cost:.2f} processor-seconds an image")
        if asked.beside:
            other, theirs = measure(asked, asked.beside, Path(folder) / "theirs")
            print(f"{other:.2f} beside, {other / cost:.2f} times; {compare(found, theirs)}")


if __name__ == "__main__":
    main()
