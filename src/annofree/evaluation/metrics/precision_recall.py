"""Precision-recall curves of COCO, as numbers and SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from annofree.errors import InputError
from annofree.evaluation.metrics.instance import IOUS, RECALLS, Counted, Values
from annofree.ops.palette import make_palette, to_hex
from annofree.render.svg import escape_text

__all__ = ["compute_precision_curve", "draw_curves", "draw_sparkline"]

_SHOWN_IOUS = (0.5, 0.6, 0.7, 0.8, 0.9)
_LEFT, _TOP, _SIDE, _KEY = 44, 26, 300, 150  # px: margins, the square of the curves, the key beside it
_SPARK = 60, 24  # px
_STEPS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def compute_precision_curve(counted: Counted, iou: float = 0.5, name: str | None = None) -> Values | None:
    """Return the precision (101) at recalls 0, 0.01 .. 1 that COCO interpolates: the best at that recall or a larger one.

    It is of the class ``name``, or the mean over all classes that have truth; of all sizes, 100 detections per image and class.
    Its mean is the AP at that IoU.  None where there is no truth.  Raises InputError for another IoU than COCO's ten.
    """
    at = np.flatnonzero(np.isclose(IOUS, iou))
    if not len(at):
        raise InputError(f"expected one of the IoUs 0.50, 0.55 .. 0.95, got {iou}")
    curves = counted.precision[at[0], :, :, 0, -1]
    kept = curves[:, (curves > -1).all(0) & np.array([name in (None, n) for n in counted.names], bool)]
    return kept.mean(1) if kept.shape[1] else None


def draw_curves(counted: Counted, title: str, ious: Sequence[float] = _SHOWN_IOUS) -> str:
    """Draw the mean curves at several IoUs as a self-contained SVG.

    >>> import numpy as np
    >>> none = np.zeros(1, np.int64)
    >>> nothing = Counted(("dog",), np.zeros((10, 101, 1, 4, 3)), np.zeros((10, 1, 4, 3)), 1, none + 1, none)
    >>> draw_curves(nothing, "dogs").count("<polyline")
    5
    """
    known = [(iou, curve) for iou in ious if (curve := compute_precision_curve(counted, iou)) is not None]
    said = "; ".join(f"AP at IoU {iou:.2f} {100 * curve.mean():.1f}" for iou, curve in known) or "no truth"
    colors = [to_hex(color) for color in make_palette(len(known))]
    lines = [_line(curve, color) for (_, curve), color in zip(known, colors, strict=True)]
    keys = [_key(i, f"IoU {iou:.2f}: AP {100 * curve.mean():.1f}", colors[i]) for i, (iou, curve) in enumerate(known)]
    width, height = _LEFT + _SIDE + _KEY, _TOP + _SIDE + 44
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="curves" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape_text(f"Precision over recall, {title}: {said}")}" '
        f'font-family="system-ui, sans-serif" font-size="11" '
        f'fill="currentColor"><text x="{_LEFT}" y="15" font-size="13">{escape_text(title)}</text>{_axes()}'
        f"{''.join(lines)}{''.join(keys)}</svg>"
    )


def _at(recall: float, precision: float) -> tuple[float, float]:
    return _LEFT + recall * _SIDE, _TOP + (1 - precision) * _SIDE


def _axes() -> str:
    parts = []
    for value in _STEPS:
        (x, y), (right, top) = _at(value, value), _at(1, 1)
        (left, bottom) = _at(0, 0)
        parts.append(
            f'<path d="M{left} {y:.1f}H{right}M{x:.1f} {bottom}V{top}" stroke="currentColor" stroke-opacity=".15"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
        )
    x, y = _at(0.5, 0)
    parts.append(f'<text x="{x}" y="{y + 34}" text-anchor="middle">recall</text>')
    parts.append(f'<text x="12" y="{_TOP + _SIDE / 2}" text-anchor="middle" transform="rotate(-90 12 {_TOP + _SIDE / 2})">')
    return "".join(parts) + "precision</text>"


def _line(curve: Values, color: str) -> str:
    points = " ".join("{:.1f},{:.1f}".format(*_at(r, p)) for r, p in zip(RECALLS, curve, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'


def _key(number: int, text: str, color: str) -> str:
    x, y = _LEFT + _SIDE + 12, _TOP + 12 + 18 * number
    return (
        f'<rect x="{x}" y="{y - 8}" width="10" height="10" fill="{color}"/>'
        f'<text x="{x + 16}" y="{y + 1}">{escape_text(text)}</text>'
    )


def draw_sparkline(curve: Values, color: str) -> str:
    """Return a curve as a small decorative SVG for a table."""
    width, height = _SPARK
    points = " ".join(f"{r * width:.1f},{(1 - p) * (height - 2) + 1:.1f}" for r, p in zip(RECALLS, curve, strict=True))
    return (
        f'<svg class="spark" viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<polyline points="{points}" fill="none" stroke="{escape_text(color)}" stroke-width="1.5"/></svg>'
    )
