"""Small charts as inline SVG without scripts, in the colors of the page, with text alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from markupsafe import Markup

from annofree.io.text import is_visible

__all__ = ["draw_bar", "draw_histogram", "escape_text", "show_invisible"]

_BAR, _GAP, _LABELS = 100, 1.5, 16
_MISSING = "\N{REPLACEMENT CHARACTER}"
_BAR_SVG = Markup(
    '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
    '<rect width="{:.2f}" height="10" rx="1" fill="{}"/></svg>'
)
_COLUMN = Markup('<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" fill="{}"><title>{}</title></rect>')
_HISTOGRAM = Markup(
    '<svg class="histogram" viewBox="0 0 200 {height}" role="img" aria-label="{words}">{columns}'
    '<line x1="0" x2="200" y1="{line}" y2="{line}" stroke="currentColor" stroke-width="1"/>'
    '<text x="0" y="{text}">{low}</text><text x="200" y="{text}" text-anchor="end">{high}</text></svg>'
)


def escape_text(text: object) -> str:
    """Return text that is safe in HTML, in quoted attributes too; non-characters are shown as missing glyphs.

    >>> escape_text('<a href="x">')
    '&lt;a href=&quot;x&quot;&gt;'
    """
    return escape(show_invisible(text), quote=True)


def show_invisible(text: object) -> str:
    r"""Return text with invisible and direction-changing characters shown as missing glyphs.

    >>> show_invisible("a\x00b") == "a\ufffdb"
    True
    """
    return "".join(sign if is_visible(sign) else _MISSING for sign in str(text))


def draw_bar(share: float, color: str) -> Markup:
    """Return a horizontal bar of ``share`` in 0 .. 1; it is hidden from screen readers, as the number is beside it.

    >>> draw_bar(0.5, "#009e73").count("<rect")
    1
    """
    return _BAR_SVG.format(100 * min(max(share, 0.0), 1.0), color)


def draw_histogram(
    counts: Sequence[int], about: str, color: str = "currentColor", *, low: str = "0", high: str = "1"
) -> Markup:
    """Return the histogram of values in even bins from ``low`` to ``high``; ``about`` describes the values.

    >>> draw_histogram([0, 3], "Scores of dog").count("<rect")
    1
    """
    most, width = max([1, *counts]), 200 / max(1, len(counts))
    columns = [
        _COLUMN.format(i * width, _BAR - n / most * _BAR, max(1.0, width - _GAP), n / most * _BAR, color, n)
        for i, n in enumerate(counts)
        if n
    ]
    return _HISTOGRAM.format(
        height=_BAR + _LABELS,
        words=show_invisible(f"{about}: {_in_words(counts)}"),
        columns=Markup("").join(columns),
        line=_BAR + 0.5,
        text=_BAR + 13,
        low=low,
        high=high,
    )


def _in_words(counts: Sequence[int]) -> str:
    total = sum(counts)
    if not total:
        return "nothing to count"
    half, seen = total / 2, 0
    for i, n in enumerate(counts):
        seen += n
        if seen >= half:
            return f"{total} values, the middle one between {i / len(counts):.2f} and {(i + 1) / len(counts):.2f} of the range"
    return f"{total} values"
