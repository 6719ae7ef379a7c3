"""Page of steps, or of images under several runs: pictures in order, a sentence each, as static HTML.

OUT
├── index.html
└── images/    each picture as PNG, numbered
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from annofree.errors import InputError
from annofree.io.atomic import name_errors
from annofree.render.html import render_template
from annofree.render.page_folder import open_page_folder

__all__ = ["Drawing", "Step", "write_steps_page"]

_LARGEST = 1600  # px of the longer side


@dataclass(frozen=True, eq=False)
class Drawing:
    """A picture, and what it shows in a few words."""

    caption: str
    picture: PIL.Image.Image


@dataclass(frozen=True, eq=False)
class Step:
    """A section of the page: its ``title``, what happens there in one sentence, and how it looks.

    Raises InputError for a step without a title.
    """

    title: str
    words: str
    drawings: tuple[Drawing, ...] = ()

    def __post_init__(self) -> None:
        if not self.title:
            raise InputError("expected a step with a title, got none")


@dataclass(frozen=True)
class _Figure:
    """A picture of the page: its file, (width, height), caption and text alternative."""

    place: str
    size: tuple[int, int]
    caption: str
    alt: str


def write_steps_page(out: Path, title: str, about: Sequence[str], steps: Iterable[Step], generator: str) -> Path:
    """Write steps to ``out`` as index.html with its images, under lines ``about`` them, and return the page.

    One step is in memory at a time.  Pictures of more than 1600 px are made smaller.  An earlier page of the same ``generator``
    is replaced.  Raises InputError where ``out`` holds something else or cannot be written.
    """
    with open_page_folder(out, generator, ("images",)) as folder:
        (folder / "images").mkdir()
        shown = []
        for n, step in enumerate(steps, 1):
            figures = [_save(folder, n, k, step, drawing) for k, drawing in enumerate(step.drawings, 1)]
            shown.append((step.title, step.words, figures))
        text = render_template("steps.html", generator=generator, title=title, about=about, steps=shown)
        with name_errors(folder / "index.html"):
            (folder / "index.html").write_text(text, encoding="utf-8", errors="replace")
    return out / "index.html"


def _save(folder: Path, number: int, part: int, step: Step, drawing: Drawing) -> _Figure:
    ending = re.sub(r"[^a-z0-9]+", "-", step.title.lower()).strip("-")[:40]
    place = f"images/{number:02}-{part}-{ending}.png"
    picture = drawing.picture.copy()
    picture.thumbnail((_LARGEST, _LARGEST), reducing_gap=3.0)
    with name_errors(folder / place):
        picture.save(folder / place, optimize=True)
    return _Figure(place, picture.size, drawing.caption, f"{step.title}: {drawing.caption}")
