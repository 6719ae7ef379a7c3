"""The curves of a training as an image, from its log alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageDraw, ImageFont

from annofree.errors import InputError
from annofree.io.atomic import write_atomic
from annofree.training.engine.checkpoint import LOG, read_log

__all__ = ["CURVES", "choose_ticks", "draw_curves", "plot_at_end", "plot_log", "smooth_values"]

CURVES = "curves.png"
"""The image of the curves in a training's folder."""

Values = npt.NDArray[np.float64]

_WIDTH, _HEIGHT = 460, 250  # px of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 30, 30  # px around its curve
_SMALL, _LARGE = 12, 14  # px of letters
_INK, _GRID, _FAINT, _STRONG = (60, 60, 60), (228, 228, 228), (170, 200, 230), (20, 90, 170)
_COLUMNS = 2
_NO_CURVES = ("step", "seconds")


@contextmanager
def plot_at_end(folder: Path, first: bool = True) -> Iterator[None]:
    """Draw the curves of a training in ``folder`` when it ends, also when it was stopped; the ``first`` process does it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # what ended the training is what has to be said
            _plot(folder, first)
        raise
    _plot(folder, first)


def _plot(folder: Path, first: bool) -> None:
    if first and read_log(folder / LOG):
        plot_log(folder / LOG, folder / CURVES)


def plot_log(log: Path, image: Path) -> None:
    """Draw the curves of ``log.jsonl`` into a PNG; raises InputError for a log without a line."""
    drawn = draw_curves(read_log(log))
    write_atomic(image, lambda temporary: drawn.save(temporary, format="PNG"))


def draw_curves(lines: Sequence[Mapping[str, float]]) -> PIL.Image.Image:
    """Draw a panel for each figure of a log over its steps: faint as it is, strong its running mean.

    Figures that a line lacks are passed over there.  Raises InputError for no lines.
    """
    if not lines:
        raise InputError("expected at least one line of a training's log, got none; train for more steps")
    names = [name for name in dict.fromkeys(name for line in lines for name in line) if name not in _NO_CURVES]
    rows = math.ceil(len(names) / _COLUMNS)
    canvas = PIL.Image.new("RGB", (_COLUMNS * _WIDTH, max(1, rows) * _HEIGHT), "white")
    for i, name in enumerate(names):
        points = np.array([(line["step"], line[name]) for line in lines if name in line], np.float64)
        row, column = divmod(i, _COLUMNS)
        canvas.paste(_panel(name, points), (column * _WIDTH, row * _HEIGHT))
    return canvas


def smooth_values(values: Values, share: float = 0.05) -> Values:
    """The mean of each value (N) and of those around it: a window of ``share`` of all, which shrinks at both ends.

    >>> smooth_values(np.array([0.0, 3.0, 0.0, 3.0]), share=0.75)
    array([0., 1., 2., 3.])
    """
    half = int(len(values) * share / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    i = np.arange(len(values))
    reach = np.minimum(half, np.minimum(i, len(values) - 1 - i))
    means: Values = (sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1)
    return means


def choose_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high``, whose step is 1, 2 or 5 times a power of ten.

    >>> choose_ticks(0.13, 0.61), choose_ticks(0, 20_000)
    ([0.2, 0.3, 0.4, 0.5, 0.6], [0.0, 5000.0, 10000.0, 15000.0, 20000.0])
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _panel(name: str, points: Values) -> PIL.Image.Image:
    """One figure over the steps; points are (N, 2)."""
    panel = PIL.Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw, small = ImageDraw.Draw(panel), ImageFont.load_default(_SMALL)
    draw.text((_LEFT, 8), name, fill="black", font=ImageFont.load_default(_LARGE))
    finite = points[np.isfinite(points[:, 1])]
    x, y = _Axis.around(points[:, 0], _LEFT, _WIDTH - _RIGHT), _Axis.around(finite[:, 1], _HEIGHT - _BOTTOM, _TOP)
    for value in choose_ticks(y.low, y.high):
        draw.line((_LEFT, y(value), _WIDTH - _RIGHT, y(value)), fill=_GRID)
        draw.text((_LEFT - 6, y(value)), f"{value:g}", fill=_INK, font=small, anchor="rm")
    for value in choose_ticks(x.low, x.high):
        draw.line((x(value), _HEIGHT - _BOTTOM, x(value), _HEIGHT - _BOTTOM + 4), fill=_INK)
        draw.text((x(value), _HEIGHT - _BOTTOM + 6), f"{value:g}", fill=_INK, font=small, anchor="mt")
    draw.line((_LEFT, _TOP, _LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM), fill=_INK)
    if len(finite):
        _curve(draw, [(x(a), y(b)) for a, b in finite], _FAINT, 1)
        _curve(draw, [(x(a), y(b)) for a, b in zip(finite[:, 0], smooth_values(finite[:, 1]), strict=True)], _STRONG, 2)
    return panel


def _curve(draw: ImageDraw.ImageDraw, at: list[tuple[float, float]], color: tuple[int, int, int], width: int) -> None:
    if len(at) == 1:  # a line of one point shows nothing
        (x, y) = at[0]
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=color)
    draw.line(at, fill=color, width=width)


class _Axis:
    """From values ``low`` .. ``high`` to pixels ``start`` .. ``end``."""

    def __init__(self, low: float, high: float, start: int, end: int) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    @classmethod
    def around(cls, values: Values, start: int, end: int) -> _Axis:
        """An axis on which all values fit, also where they are one or none."""
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        if high - low <= 1e-9 * abs(high):
            room = abs(high) * 0.1 or 1.0
            low, high = low - room, high + room
        return cls(low, high, start, end)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)
