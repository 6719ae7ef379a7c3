"""A page of a scoring: curves, scores of each class, the worst misses and false alarms; static HTML, nothing from elsewhere.

OUT
├── index.html
├── curves.svg
└── crops/      each mistake that is shown, cut out with what is around it
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageFilter
from pycocotools import mask as coco_mask

from annofree.errors import InputError
from annofree.evaluation.instance import Counted, InstanceScores
from annofree.evaluation.mistakes import KINDS, Mistake, Mistakes
from annofree.evaluation.precision_recall import draw_curves, precision_curve, sparkline
from annofree.evaluation.predictions import Row, image_sizes, mask_rle
from annofree.formats.coco import CocoFile
from annofree.formats.files import make_folder
from annofree.formats.html_report import Opener
from annofree.formats.pictures import mask_of
from annofree.formats.report_charts import plain
from annofree.ops.palette import BACKGROUND_COLOR, Color, colors_of, hexadecimal
from annofree.structures import BoolArray

__all__ = ["write_mistakes_page"]

Size = tuple[int, int]
Window = tuple[int, int, int, int]

_MARK = "annofree evaluate"
_CROP = 320  # px of the longer side
_AROUND = 0.5  # of a box's longer side is left around it
_TRUE, _SAID = (0, 158, 115), (213, 94, 0)  # told apart with any kind of colour vision
_COLUMNS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "APs",
    "ap_medium": "APm",
    "ap_large": "APl",
    "ar100": "AR100",
}

_STYLE = """
:root{color-scheme:light dark;--line:#8886;--soft:#777}
body{font:1rem/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1.25rem}
h2{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:.6rem}
.soft{color:var(--soft)}
svg.curves{max-width:36rem;width:100%}svg.spark{width:4.5rem;height:1.6rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft)}
th,td{padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--line);text-align:right;font-weight:400}
th:first-child,td:first-child{text-align:left}
.dot{display:inline-block;width:.8rem;height:.8rem;border-radius:50%;margin-right:.5rem}
ul.crops{display:grid;grid-template-columns:repeat(auto-fill,minmax(12rem,1fr));gap:1rem;padding:0;list-style:none}
figure{margin:0;border:1px solid var(--line);border-radius:.5rem;overflow:hidden}
figure img{display:block;width:100%;height:auto}
figcaption{padding:.4rem .6rem;font-size:.85rem;overflow-wrap:anywhere}
"""


def write_mistakes_page(
    out: Path,
    truth: CocoFile,
    counted: Counted,
    mistakes: Mistakes,
    *,
    title: str,
    groups: Mapping[str, InstanceScores] | None = None,
    picture: Opener | None = None,
    each: int = 6,
    classes: int = 40,
) -> Path:
    """Write the page to the folder ``out`` and return it; an earlier one there is replaced.

    ``each`` of the largest misses and of the surest false alarms of a class are shown, for the ``classes`` with the most
    mistakes, cut from what ``picture`` opens by file name; without it, or where it raises InputError, only in words.
    ``groups`` are scores of some classes together, by name.  Raises InputError where ``out`` holds something else.
    """
    _check(out)
    make_folder(out.parent)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        (folder / "crops").mkdir(parents=True)
        curves, colors = draw_curves(counted, title), colors_of(str(row["name"]) for row in truth.categories)
        (folder / "curves.svg").write_text(curves, encoding="utf-8")
        tables = _scores({"all": counted.scores(), **(groups or {})}, counted, colors) + _kinds(mistakes)
        body = curves + tables + _classes(_Crops.of(truth, folder, picture), mistakes, each, classes, colors)
        (folder / "index.html").write_text(_document(title, body), encoding="utf-8", errors="replace")
        if out.exists():
            shutil.rmtree(out)
        folder.replace(out)
    return out / "index.html"


def _check(out: Path) -> None:
    """Refuse to put a page in the place of anything but an earlier one."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    index = out / "index.html"
    ours = index.is_file() and f'content="{_MARK}"' in index.read_text(encoding="utf-8", errors="replace")[:2000]
    if not ours or {path.name for path in out.iterdir()} - {"index.html", "curves.svg", "crops"}:
        raise InputError(f"expected a new or empty folder, or an earlier page, at {out}; choose another")


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="generator" content="{_MARK}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"script-src 'none'; object-src 'none'; base-uri 'none'\">"
        f"<title>{plain(title)}</title><style>{_STYLE}</style></head><body><h1>{plain(title)}</h1>{body}</body></html>\n"
    )


def _scores(groups: Mapping[str, InstanceScores], counted: Counted, colors: Mapping[str, Color]) -> str:
    rows = [_score_row(plain(name), scores, "") for name, scores in groups.items()]
    ranked = sorted(counted.by_class().items(), key=lambda item: -(item[1].ap or 0.0))
    for name, scores in ranked:
        color, curve = colors.get(name, BACKGROUND_COLOR), precision_curve(counted, 0.5, name)
        rows.append(_score_row(_dot(name, color), scores, "" if curve is None else sparkline(curve, hexadecimal(color))))
    heads = ("", *_COLUMNS.values(), "truth", "predicted", "at IoU 0.50")
    return "<h2>Scores</h2>" + _table("In percent; the curves are precision over recall", heads, rows)


def _score_row(name: str, scores: InstanceScores, curve: str) -> str:
    values = [getattr(scores, field) for field in _COLUMNS]
    cells = ["–" if value is None else f"{100 * value:.1f}" for value in values]
    return _row([name, *cells, f"{scores.n_truth:,}", f"{scores.n_predictions:,}", curve])


def _kinds(mistakes: Mistakes) -> str:
    counts = mistakes.counts()
    rows = [
        _row([plain(f"{alarm}; missed: {miss}"), f"{counts[kind][0]:,}", f"{counts[kind][1]:,}"])
        for kind, (alarm, miss) in KINDS.items()
    ]
    totals = len(mistakes.false_alarms), len(mistakes.misses)
    rows.append(_row(["all", *(f"{total:,}" for total in totals)]))
    caption = f"At one IoU, where {mistakes.right:,} answers are right"
    return "<h2>Kinds of mistakes</h2>" + _table(caption, ("", "False alarms", "Misses"), rows)


def _table(caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{plain(head)}</th>' for head in heads)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{plain(caption)}"><table><caption>{plain(caption)}'
        f"</caption><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{cells[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in cells[1:]) + "</tr>"


def _dot(name: str, color: Color) -> str:
    return f'<span class="dot" style="background:{hexadecimal(color)}"></span><bdi>{plain(name)}</bdi>'


def _classes(crops: _Crops, mistakes: Mistakes, each: int, classes: int, colors: Mapping[str, Color]) -> str:
    """The worst mistakes of each class, those with the most first."""
    sides = {"Largest misses": mistakes.misses, "Surest false alarms": mistakes.false_alarms}
    names = [mistake.name for side in sides.values() for mistake in side]
    ranked = sorted(dict.fromkeys(names), key=lambda name: -names.count(name))
    parts = ['<h2>By class</h2><p class="soft">Green is the truth, orange what was said.</p>']
    for name in ranked[:classes]:
        parts.append(f"<h3>{_dot(name, colors.get(name, BACKGROUND_COLOR))}</h3>")
        for heading, side in sides.items():
            own = [m for m in side if m.name == name]
            figures = "".join(f"<li>{crops.figure(m)}</li>" for m in own[:each])
            parts.append(
                f'<h4>{heading}: {len(own[:each])} of {len(own):,}</h4><ul class="crops">{figures}</ul>' if own else ""
            )
    left = len(ranked) - len(ranked[:classes])
    return "".join(parts) + (f"<p>{left} more with fewer mistakes are left out.</p>" if left else "")


@dataclass
class _Crops:
    """Cuts mistakes out of their pictures into ``folder``/crops; the picture opened last is kept."""

    names: Mapping[int, str]
    sizes: Mapping[int, Size]
    folder: Path
    picture: Opener | None
    made: int = 0

    @classmethod
    def of(cls, truth: CocoFile, folder: Path, picture: Opener | None) -> _Crops:
        return cls({row["id"]: str(row["file_name"]) for row in truth.images}, image_sizes(truth), folder, picture)

    def figure(self, mistake: Mistake) -> str:
        file_name, height, width = self.names[mistake.image_id], *self.sizes[mistake.image_id]
        what = f"{mistake.area:.0f} px" if mistake.score is None else f"score {mistake.score:.2f}"
        near = f" (overlap {mistake.overlap:.2f})" if mistake.other is not None else ""
        words = f"{mistake.words}{near}"
        crop = self._cut(mistake, (height, width))
        image = '<p class="soft">no picture</p>' if crop is None else self._image(crop, f"{mistake.name}: {words}")
        return f"<figure>{image}<figcaption><bdi>{plain(file_name)}</bdi>, {what}<br>{plain(words)}</figcaption></figure>"

    def _image(self, crop: PIL.Image.Image, alt: str) -> str:
        self.made += 1
        place = f"crops/{self.made:04}.jpg"
        crop.save(self.folder / place, "JPEG", quality=86)
        return f'<img src="{place}" alt="{plain(alt)}" width="{crop.width}" height="{crop.height}" loading="lazy">'

    def _cut(self, mistake: Mistake, size: Size) -> PIL.Image.Image | None:
        """The surroundings of a mistake with both sides' outlines; None where the picture cannot be opened."""
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
        for row, colour in reversed(sides):  # the mistake itself on top
            _outline(large, PIL.Image.fromarray(_mask(row, size)).convert("L").crop(window), colour)
        return large


def _mask(row: Row, size: Size) -> BoolArray:
    """The mask of an annotation, its box where it has none."""
    if row.get("segmentation"):
        return mask_of(mask_rle(row, size))
    return mask_of(coco_mask.frPyObjects([[float(v) for v in row["bbox"]]], *size)[0])


def _window(mask: BoolArray) -> Window:
    """The box of a mask (H, W) with what is around it, left, top, right, bottom, within the picture."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    if not len(rows):
        return 0, 0, width, height
    around = round(_AROUND * max(np.ptp(rows), np.ptp(columns)) + 8)
    left, top = max(0, int(columns[0]) - around), max(0, int(rows[0]) - around)
    return left, top, min(width, int(columns[-1]) + 1 + around), min(height, int(rows[-1]) + 1 + around)


def _outline(canvas: PIL.Image.Image, mask: PIL.Image.Image, colour: tuple[int, int, int]) -> None:
    """Draw the inner edge of a mask (0 or 255), brought to the canvas's size, 3 px wide."""
    large = mask.resize(canvas.size, PIL.Image.Resampling.NEAREST)
    inner = np.asarray(large.filter(ImageFilter.MinFilter(7)))
    edge = np.where((np.asarray(large) > 0) & (inner == 0), 255, 0).astype(np.uint8)
    canvas.paste(colour, (0, 0), PIL.Image.fromarray(edge))
