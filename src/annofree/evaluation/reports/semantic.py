"""Semantic scores for people: tables for the terminal and an image of what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont
from rich.table import Table

from annofree.evaluation.metrics.confusion import Confusion, Counts
from annofree.evaluation.metrics.semantic import SemanticScores
from annofree.io.text import clean_text

__all__ = ["as_class_table", "as_semantic_table", "draw_confusion"]

_COLUMNS = {
    "mean_iou": "mIoU",
    "mean_iou_things": "mIoU things",
    "pixel_accuracy": "pixel acc",
    "mean_accuracy": "mean acc",
    "weighted_iou": "fwIoU",
    "zero_rate": "IoU 0",
    "per_image_iou": "per image",
}
_CELL, _MARGIN, _FONT = 22, 6, 13  # px
_LONGEST_NAME = 24  # characters
_OTHERS, _NOTHING = "others", "(void)"


def as_semantic_table(rows: Mapping[str, SemanticScores], title: str) -> Table:
    """Show scores as a table, one row per name: percent with one decimal, '-' if undefined."""
    table = Table(title=title, caption="percent; 'IoU 0' is the part of the classes with truth that were never found")
    table.add_column("")
    for heading in (*_COLUMNS.values(), "classes", "images"):
        table.add_column(heading, justify="right")
    for name, scores in rows.items():
        values = [_percent(getattr(scores, column)) for column in _COLUMNS]
        table.add_row(clean_text(name), *values, str(scores.n_true_classes), str(scores.n_images))
    return table


def as_class_table(scores: SemanticScores, title: str) -> Table:
    """Show each class that has truth or prediction, the best found first: IoU, the recall, and IoU averaged over images."""
    table = Table(title=title, caption="percent")
    table.add_column("class")
    for heading in ("IoU", "accuracy", "IoU per image"):
        table.add_column(heading, justify="right")
    found = {name: iou for name, iou in scores.iou.items() if iou is not None}
    for name in sorted(found, key=lambda n: -found[n]):
        table.add_row(clean_text(name), *(_percent(v[name]) for v in (scores.iou, scores.accuracy, scores.iou_per_image)))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def draw_confusion(confusion: Confusion, names: Sequence[str], limit: int = 40) -> PIL.Image.Image:
    """Draw the confusion matrix: rows are true classes, columns predictions, darker for a larger fraction of the row.

    Classes are sorted by pixels; those beyond ``limit`` are merged into "others".  A
    last column shows void predictions, if any.  A dot marks classes without ground truth.
    """
    table, labels = _folded(confusion, names, limit)
    total = table.sum(axis=1, keepdims=True)
    parts = table / np.maximum(total, 1)
    font = ImageFont.load_default(_FONT)
    shown = [_short(label) for label in labels]
    side = max(int(font.getlength(text)) for text in shown) + 2 * _MARGIN
    rows, columns = table.shape
    canvas = PIL.Image.new("RGB", (side + columns * _CELL + _MARGIN, side + rows * _CELL + _MARGIN), "white")
    canvas.paste(_names_upright(shown[:columns], side, font), (side, 0))
    draw = ImageDraw.Draw(canvas)
    for i in range(rows):
        y = side + i * _CELL
        draw.text((side - _MARGIN, y + _CELL // 2), shown[i], fill="black", font=font, anchor="rm")
        for j in range(columns):
            _draw_cell(draw, (side + j * _CELL, y), float(parts[i, j]), right=i == j, never=not total[i, 0] and i == j)
    return canvas


def _folded(confusion: Confusion, names: Sequence[str], limit: int) -> tuple[Counts, list[str]]:
    """The matrix of the classes that matter, (rows, rows + 1 or 0), with the name of each column."""
    weight = confusion.truth + confusion.counts.sum(axis=0)
    order = [int(k) for k in np.argsort(-weight, kind="stable") if weight[k]] or [0]
    kept, rest = (order, []) if len(order) <= limit else (order[: limit - 1], order[limit - 1 :])
    groups = [[k] for k in kept] + ([rest] if rest else [])
    table = np.array([[confusion.counts[np.ix_(row, column)].sum() for column in groups] for row in groups], np.int64)
    labels = [names[k] for k in kept] + ([_OTHERS] if rest else [])
    unnamed = np.array([confusion.unnamed[row].sum() for row in groups], np.int64)
    if unnamed.any():
        return np.column_stack([table, unnamed]), [*labels, _NOTHING]
    return table, labels


def _names_upright(names: Sequence[str], height: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> PIL.Image.Image:
    """Write the columns' names from bottom to top, the first on the left."""
    lying = PIL.Image.new("RGB", (height, len(names) * _CELL), "white")
    draw = ImageDraw.Draw(lying)
    for j, name in enumerate(names):
        draw.text((_MARGIN, j * _CELL + _CELL // 2), name, fill="black", font=font, anchor="lm")
    return lying.transpose(PIL.Image.Transpose.ROTATE_90)


def _draw_cell(draw: ImageDraw.ImageDraw, at: tuple[int, int], part: float, right: bool, never: bool) -> None:
    """One cell: green on the diagonal, red elsewhere, white for nothing."""
    x, y = at
    full = (0, 110, 60) if right else (190, 30, 30)
    strength = part**0.5  # so that a few percent still show
    color = tuple(round(255 + (c - 255) * strength) for c in full)
    draw.rectangle((x, y, x + _CELL - 1, y + _CELL - 1), fill=color, outline=(225, 225, 225))
    if never:
        draw.ellipse((x + 9, y + 9, x + 12, y + 12), fill=(120, 120, 120))


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
