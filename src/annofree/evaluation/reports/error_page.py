"""Error page: curves, per-class scores, and the worst misses and false positives, as static HTML.

OUT
├── index.html
├── curves.svg
└── crops/      a crop of each error shown
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from markupsafe import Markup
from PIL import ImageFilter

from annofree.errors import InputError
from annofree.evaluation.metrics.errors import KINDS, Mistake, Mistakes
from annofree.evaluation.metrics.instance import Counted, InstanceScores
from annofree.evaluation.metrics.limits import name_recall
from annofree.evaluation.metrics.precision_recall import compute_precision_curve, draw_curves, draw_sparkline
from annofree.evaluation.metrics.predictions import Row, read_image_sizes, read_mask_rle
from annofree.formats.coco import CocoFile
from annofree.io.atomic import name_errors
from annofree.ops.rle import decode_rle, fill_polygons
from annofree.render.html import assign_class_colors, render_template
from annofree.render.page_folder import open_page_folder
from annofree.render.page_images import Opener, save_jpeg
from annofree.structures import BoolArray

__all__ = ["write_mistakes_page"]

Size = tuple[int, int]
Window = tuple[int, int, int, int]

_GENERATOR = "annofree evaluate"
_CROP = 320  # px of the longer side
_AROUND = 0.5  # of a box's longer side is left around it
_TRUE, _SAID = (0, 158, 115), (213, 94, 0)  # told apart with any kind of color vision
_COLUMNS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "APs",
    "ap_medium": "APm",
    "ap_large": "APl",
    "ar": "AR",
}


def write_mistakes_page(
    out: Path,
    truth: CocoFile,
    counted: Counted,
    mistakes: Mistakes,
    *,
    title: str,
    groups: Mapping[str, InstanceScores] | None = None,
    lost: Sequence[Sequence[str]] = (),
    image: Opener | None = None,
    each: int = 6,
    classes: int = 40,
) -> Path:
    """Write the page to the folder ``out`` and return it; an earlier one there is replaced.

    The ``each`` largest misses and highest-scoring false positives per class are shown, for the ``classes`` with the most
    errors, cropped from the images opened by ``picture``; without it, or if it raises InputError, as text only.
    ``groups`` are scores of some classes together, by name.  ``lost`` is a table that says where quality is lost, of texts: its
    caption, its headings, its rows; it comes first.  Raises InputError where ``out`` holds something else.
    """
    with open_page_folder(out, _GENERATOR, ("curves.svg", "crops")) as folder:
        curves = draw_curves(counted, title)
        (folder / "crops").mkdir()
        (folder / "curves.svg").write_text(curves, encoding="utf-8")
        crops = _Crops.of(truth, folder, image)
        names = _by_mistakes(mistakes)
        shown = names[:classes]
        everyone = list(dict.fromkeys([*counted.names, *names]))
        text = render_template(
            "mistakes.html",
            generator=_GENERATOR,
            title=title,
            names=everyone,
            index={name: k for k, name in enumerate(everyone)},
            lost=lost,
            curves=Markup(curves),  # noqa: S704 -- drawn here, its texts escaped
            columns=list({**_COLUMNS, "ar": name_recall(counted.limits[-1])}.values()),
            scores=_scores({"all": counted.compute_scores(), **(groups or {})}, counted),
            kinds=_kinds(mistakes),
            right=mistakes.right,
            classes={name: _sides(crops, mistakes, name, each) for name in shown},
            left_out=len(names) - len(shown),
        )
        with name_errors(folder / "index.html"):
            (folder / "index.html").write_text(text, encoding="utf-8", errors="replace")
    return out / "index.html"


@dataclass(frozen=True)
class _Scored:
    """A line of the table of scores: of a class where ``is_class``, else of some together."""

    name: str
    is_class: bool
    cells: Sequence[str]
    curve: Markup


@dataclass(frozen=True)
class _Side:
    """The errors of one kind in a class: those shown, and their number."""

    heading: str
    figures: Sequence[_Figure]
    count: int


@dataclass(frozen=True)
class _Figure:
    """An error as text, and its crop: the file beside the page, "" for none, (width, height) px."""

    file_name: str
    what: str
    words: str
    alt: str
    place: str
    size: tuple[int, int]


def _scores(groups: Mapping[str, InstanceScores], counted: Counted) -> list[_Scored]:
    lines = [_Scored(name, False, _cells(scores), Markup("")) for name, scores in groups.items()]
    colors = assign_class_colors(counted.names)
    for name, scores in sorted(counted.score_classes().items(), key=lambda item: -(item[1].ap or 0.0)):
        curve = compute_precision_curve(counted, 0.5, name)
        drawn = "" if curve is None else draw_sparkline(curve, colors[name])
        lines.append(_Scored(name, True, _cells(scores), Markup(drawn)))  # noqa: S704 -- numbers and a color
    return lines


def _cells(scores: InstanceScores) -> list[str]:
    values = [getattr(scores, field) for field in _COLUMNS]
    cells = ["–" if value is None else f"{100 * value:.1f}" for value in values]
    return [*cells, f"{scores.n_truth:,}", f"{scores.n_predictions:,}"]


def _kinds(mistakes: Mistakes) -> list[tuple[str, int, int]]:
    """Each kind of error with its numbers of false positives and misses; the total last."""
    counts = mistakes.count_kinds()
    rows = [(f"{alarm}; missed: {miss}", *counts[kind]) for kind, (alarm, miss) in KINDS.items()]
    return [*rows, ("all", len(mistakes.false_alarms), len(mistakes.misses))]


def _by_mistakes(mistakes: Mistakes) -> list[str]:
    """The classes with errors, the most first."""
    counts = Counter(mistake.name for mistake in (*mistakes.misses, *mistakes.false_alarms))
    return [name for name, _ in counts.most_common()]


def _sides(crops: _Crops, mistakes: Mistakes, name: str, each: int) -> list[_Side]:
    sides = {"Largest misses": mistakes.misses, "Surest false alarms": mistakes.false_alarms}
    own = {heading: [m for m in side if m.name == name] for heading, side in sides.items()}
    return [_Side(heading, [crops.crop(m) for m in side[:each]], len(side)) for heading, side in own.items() if side]


@dataclass
class _Crops:
    """Cuts mistakes out of their images into ``folder``/crops; the image opened last is kept."""

    names: Mapping[int, str]
    sizes: Mapping[int, Size]
    folder: Path
    picture: Opener | None
    made: int = 0

    @classmethod
    def of(cls, truth: CocoFile, folder: Path, image: Opener | None) -> _Crops:
        return cls({row["id"]: str(row["file_name"]) for row in truth.images}, read_image_sizes(truth), folder, image)

    def crop(self, mistake: Mistake) -> _Figure:
        file_name, height, width = self.names[mistake.image_id], *self.sizes[mistake.image_id]
        what = f"{mistake.area:.0f} px" if mistake.score is None else f"score {mistake.score:.2f}"
        near = f" (overlap {mistake.overlap:.2f})" if mistake.other is not None else ""
        words = f"{mistake.words}{near}"
        crop = self._cut(mistake, (height, width))
        place, size = ("", (0, 0)) if crop is None else (self._placed(crop), crop.size)
        return _Figure(file_name, what, words, f"{mistake.name}: {words}", place, size)

    def _placed(self, crop: PIL.Image.Image) -> str:
        self.made += 1
        place = f"crops/{self.made:04}.jpg"
        save_jpeg(self.folder / place, crop)
        return place

    def _cut(self, mistake: Mistake, size: Size) -> PIL.Image.Image | None:
        """The surroundings of a mistake with both sides' outlines; None where the image cannot be opened."""
        if self.picture is None:
            return None
        try:
            whole = PIL.Image.fromarray(self.picture(self.names[mistake.image_id]).pixels)
        except InputError:
            return None
        if whole.size != size[::-1]:
            return None
        window = _window(_mask(mistake.row, size))
        sides = [(mistake.row, _TRUE if mistake.score is None else _SAID)]
        sides += [(mistake.other, _SAID if mistake.score is None else _TRUE)] if mistake.other is not None else []
        crop = whole.crop(window)
        scale = _CROP / max(crop.size)
        large = crop.resize((max(1, round(crop.width * scale)), max(1, round(crop.height * scale))))
        for row, color in reversed(sides):  # the mistake itself on top
            _outline(large, PIL.Image.fromarray(_mask(row, size)).convert("L").crop(window), color)
        return large


def _mask(row: Row, size: Size) -> BoolArray:
    """The mask of an annotation, its box where it has none."""
    if row.get("segmentation"):
        return decode_rle(read_mask_rle(row, size))
    return decode_rle(fill_polygons([[float(v) for v in row["bbox"]]], size))


def _window(mask: BoolArray) -> Window:
    """The box of a mask (H, W) with what is around it, left, top, right, bottom, within the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    if not len(rows):
        return 0, 0, width, height
    around = round(_AROUND * max(np.ptp(rows), np.ptp(columns)) + 8)
    left, top = max(0, int(columns[0]) - around), max(0, int(rows[0]) - around)
    return left, top, min(width, int(columns[-1]) + 1 + around), min(height, int(rows[-1]) + 1 + around)


def _outline(canvas: PIL.Image.Image, mask: PIL.Image.Image, color: tuple[int, int, int]) -> None:
    """Draw the inner edge of a mask (0 or 255), brought to the canvas's size, 3 px wide."""
    large = mask.resize(canvas.size, PIL.Image.Resampling.NEAREST)
    inner = np.asarray(large.filter(ImageFilter.MinFilter(7)))
    edge = np.where((np.asarray(large) > 0) & (inner == 0), 255, 0).astype(np.uint8)
    canvas.paste(color, (0, 0), PIL.Image.fromarray(edge))
