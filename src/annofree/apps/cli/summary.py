"""What a command says at its end: what was done, where it is, and where the time went."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from annofree.apps.cli.eta import format_duration, format_seconds_each
from annofree.io.text import clean_text

__all__ = ["describe_timings", "pick_timings", "print_summary"]

_BRIEF = ("images", "failed", "seconds_total", "seconds_load", "images_per_second_without_loading")


def print_summary(
    summary: Mapping[str, Any], wanted: tuple[str, ...], out: Path, as_json: bool, quiet: bool, before: bool = False
) -> None:
    """Print what was done in a run, or was ``before``, and end with code 1 where images failed."""
    if as_json:
        print(json.dumps(summary, indent=2))
    elif not quiet:
        print(clean_text(_told(summary, wanted, out, before), lines=True))
    raise typer.Exit(1 if summary["failed"] else 0)


def describe_timings(timings: Mapping[str, float], **after: float) -> str:
    """Where the seconds of one call went, in words; the pace is that of images alone, without loading and what came ``after``.

    >>> describe_timings({"images": 12, "seconds_total": 9.4, "seconds_load": 2.1})
    '9.4 s: loading 2.1 s, images 7.3 s (0.61 s an image)'
    >>> describe_timings({"images": 0, "seconds_total": 9.4, "seconds_load": 2.1}, sheets=7.0)
    '9.4 s: loading 2.1 s, images 0.3 s, sheets 7.0 s'
    """
    total, load, images = timings["seconds_total"], timings.get("seconds_load", 0.0), timings["images"]
    at_images = max(0.0, total - load - sum(after.values()))
    pace = f" ({format_seconds_each(at_images / images)} an image)" if images and at_images else ""
    rest = "".join(f", {what} {format_duration(seconds, 1)}" for what, seconds in after.items())
    return (
        f"{format_duration(total, 1)}: loading {format_duration(load, 1)}, images {format_duration(at_images, 1)}{pace}{rest}"
    )


def pick_timings(timings: Mapping[str, float]) -> dict[str, float]:
    """Those of a run's timings that a command has which counts no further parts.

    >>> pick_timings({"images": 2, "seconds_total": 3.0, "seconds_read": 0.0})
    {'images': 2, 'seconds_total': 3.0}
    """
    return {key: timings[key] for key in _BRIEF if key in timings}


def _told(summary: Mapping[str, Any], wanted: tuple[str, ...], out: Path, before: bool) -> str:
    """What was done, in two or three lines."""
    found = f"{_count(summary['instances'], 'instance')} in " if "instance" in wanted else ""
    lines = [f"{found}{_count(summary['timings']['images'], 'image')}; {_time(summary, before)}"]
    if summary.get("shares"):
        lines.append("mean shares: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in summary["shares"].items()))
    return "\n".join([*lines, "written: " + ", ".join(map(str, _places(wanted, out)))])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _time(summary: Mapping[str, Any], before: bool) -> str:
    """The time of this call and, where there were others, that of all."""
    run = summary["timings"]
    call = run.get("last_call", run)
    earlier = run["seconds_total"] - call["seconds_total"]
    if before:
        return f"made before, in {format_duration(run['seconds_total'], 1)}"
    if "merged" in summary:
        return f"joined in {format_duration(call['seconds_total'], 1)}, the parts took {format_duration(earlier, 1)}"
    if earlier < 0.01:
        return describe_timings(call)
    now = f", {call['images']} of them now" if call["images"] else ""
    return f"this call {describe_timings(call)}{now}; all calls {format_duration(run['seconds_total'], 1)}"


def _places(wanted: tuple[str, ...], out: Path) -> list[Path]:
    """The results of each task, as far as they are there."""
    names = {
        "instance": ("annotations.json", "overlays"),
        "semantic": ("labels", "overlays-semantic"),
        "panoptic": ("panoptic.json",),
    }
    return [place for task in wanted for name in names[task] if (place := out / name).exists()]
