"""What a learning changed, as a page: figures, sheets of labels, curves, and images under each round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image

from annofree.errors import ImageError
from annofree.pipelines.learning.judge import describe_round, name_round, read_answers
from annofree.render.overlay import draw_overlay
from annofree.render.steps_page import Drawing, Step, write_steps_page
from annofree.runs.inputs import Inputs
from annofree.structures import Detections

__all__ = ["write_page"]

_SHOWN = 12  # images, those that changed most


def write_page(out: Path, summary: Mapping[str, Any], runs: Sequence[Path], inputs: Inputs) -> Path:
    """Write the page of a learning whose rounds have these ``runs``, the first that of the method alone."""
    rows = summary["rounds"]
    about = [
        f"{len(inputs.ids):,} images; {len(summary['held out'])} of them no detector was trained on.",
        *(f"{describe_round(k, row).capitalize()}." for k, row in enumerate(rows)),
        f"It ended as {summary['ended']}. Handed over: {name_round(summary['best'])}.",
        "Alike in mirrored images: F1 between the answers to an image and to its mirror image, on images kept from training.",
    ]
    return write_steps_page(out, "What was learned", about, _list_steps(out.parent, rows, runs, inputs), "annofree learn")


def _list_steps(out: Path, rows: Sequence[Mapping[str, Any]], runs: Sequence[Path], inputs: Inputs) -> Iterator[Step]:
    for number in range(1, len(rows)):
        folder = out / f"round-{number}"
        drawings = tuple(
            Drawing(words, PIL.Image.open(place))
            for words, place in (
                ("labels it was trained on", folder / "labels" / "sheet.jpg"),
                ("losses", folder / "detector" / "curves.png"),
            )
            if place.is_file()
        )
        yield Step(f"Round {number}", f"Its labels are what {name_round(number - 1)} found.", drawings)
    answers = [read_answers(run, row["floor"], inputs.root)[0] for run, row in zip(runs, rows, strict=True)]
    for name in _list_changed(answers[0], answers[-1]):
        try:
            image = inputs.read(inputs.place(name), name)
        except ImageError:
            continue
        yield Step(name, "", tuple(Drawing(name_round(k), draw_overlay(image, found[name])) for k, found in enumerate(answers)))


def _list_changed(first: Mapping[str, Detections], last: Mapping[str, Detections]) -> list[str]:
    """The images whose answers differ most in number, those with most instances first among equals."""
    both = [name for name in first if name in last]
    return sorted(both, key=lambda name: (-abs(len(first[name]) - len(last[name])), -len(last[name]), name))[:_SHOWN]
