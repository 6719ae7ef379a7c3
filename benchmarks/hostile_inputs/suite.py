"""The whole suite: cases of all families, run one after the other, and a table of what they came to."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.hostile_inputs import annotation_files, archives, models, numbers, runs, samples, settings
from benchmarks.hostile_inputs.sandbox import Case, Outcome, run_case

__all__ = ["FAULTS", "as_table", "list_cases", "run_cases", "warm"]

FAULTS = ("tracebacks", "outside writes", "copied secrets", "silent drops", "control signs", "timeouts", "too much memory")


SHARES = {"annotations": 0.6, "runs": 0.17, "models": 0.08, "settings": 0.07, "archives": 0.04, "command line": 0.04}


def list_cases(count: int, folder: Path, families: Sequence[str] = tuple(SHARES)) -> list[Case]:
    """So many cases; what valid runs, indexes and archives they are made of goes to ``folder``, which is new."""
    whole = sum(SHARES[name] for name in families)
    shares = {name: round(count * SHARES[name] / whole) for name in families}
    folder = folder.resolve()
    if {"runs", "command line"} & shares.keys():
        runs.make_base(folder / "runs", models="archives" in shares)
    if "archives" in shares:
        archives.make_base(folder / "archives")
    lists: dict[str, Callable[[int], list[Case]]] = {
        "annotations": annotation_files.list_cases,
        "runs": partial(runs.list_cases, base=folder / "runs"),
        "models": models.list_cases,
        "settings": settings.list_cases,
        "archives": partial(archives.list_cases, base=folder / "archives"),
        "command line": partial(numbers.list_cases, base=folder / "runs"),
    }
    return [case for name, share in shares.items() for case in lists[name](share)]


def run_cases(cases: Sequence[Case], out: Path) -> list[Outcome]:
    """Run cases in folders of ``out``, which stay where something is wrong; outcomes go to ``outcomes.jsonl``."""
    out.mkdir(parents=True)
    outcomes = []
    with (out / "outcomes.jsonl").open("w", encoding="ascii") as file:
        for number, case in enumerate(cases):
            place = out.resolve() / f"{number:05}"
            outcome = run_case(case, place)
            outcomes.append(outcome)
            row = {"number": number, "family": case.family, "name": case.name, "code": outcome.code, "kind": outcome.kind}
            row |= {
                "megabytes": outcome.megabytes,
                "seconds": outcome.seconds,
                "faults": outcome.faults,
                "said": outcome.said[-1500:],
            }
            file.write(json.dumps(row) + "\n")
            file.flush()
            if not outcome.faults:
                shutil.rmtree(place, ignore_errors=True)
                place.with_name(place.name + ".log").unlink()
    return outcomes


def as_table(outcomes: Iterable[Outcome]) -> str:
    """A row a family: cases, what became of them, faults by kind, peak memory."""
    families: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        families[outcome.case.family].append(outcome)
    heads = ("family", "cases", "refused", "whole", "named", *FAULTS, "peak MB")
    rows = [_row(name, members) for name, members in sorted(families.items())]
    rows.append(_row("all", [one for members in families.values() for one in members]))
    widths = [max(len(str(row[k])) for row in (heads, *rows)) for k in range(len(heads))]
    lines = ["  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def _row(name: str, members: Sequence[Outcome]) -> tuple[object, ...]:
    kinds, faults = Counter(one.kind for one in members), Counter(fault for one in members for fault in one.faults)
    peak = max((one.megabytes for one in members), default=0)
    return (name, len(members), *(kinds[k] for k in ("refused", "whole", "named")), *(faults[f] for f in FAULTS), f"{peak:.0f}")


def warm(folder: Path) -> None:
    """Import what the commands need, by a good call of each kind, so that a fork need not."""
    from annofree.formats.registry import FORMATS, export, read

    folder.mkdir(parents=True)
    (folder / "a.json").write_bytes(json.dumps(samples.coco()).encode())
    for name in FORMATS:
        export(read("coco", folder / "a.json"), name, folder / name)
        read(name, folder / name)
