"""Small charts as inline SVG: they need no script, follow the colours of the page, and say in words what they show."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape

__all__ = ["bar", "histogram", "plain"]

_BAR, _GAP, _LABELS = 100, 1.5, 16
_MISSING = "\N{REPLACEMENT CHARACTER}"
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def plain(text: object) -> str:
    """Return text that is safe in HTML, in quoted attributes too; what is no sign at all is shown as one that is missing.

    >>> plain('<a href="x">')
    '&lt;a href=&quot;x&quot;&gt;'
    """
    return escape("".join(_MISSING if _unseen(sign) else sign for sign in str(text)), quote=True)


def _unseen(sign: str) -> bool:
    """Controls, lone surrogates, and what turns the direction of the text that follows; not the joiners of emoji."""
    return unicodedata.category(sign) in ("Cc", "Cs") or unicodedata.bidirectional(sign) in _TURNING


def bar(share: float, colour: str) -> str:
    """Return a horizontal bar of ``share`` in 0 .. 1; it repeats a number beside it, so screen readers pass over it.

    >>> bar(0.5, "#009e73").count("<rect")
    1
    """
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{width:.2f}" height="10" rx="1" fill="{plain(colour)}"/></svg>'
    )


def histogram(counts: Sequence[int], about: str, colour: str = "currentColor", *, low: str = "0", high: str = "1") -> str:
    """Return the histogram of values in even bins from ``low`` to ``high``; ``about`` says what is counted.

    >>> histogram([0, 3], "Scores of dog").count("<rect")
    1
    """
    most, width = max([1, *counts]), 200 / max(1, len(counts))
    bars = "".join(
        f'<rect x="{i * width:.2f}" y="{_BAR - n / most * _BAR:.2f}" width="{max(1.0, width - _GAP):.2f}" '
        f'height="{n / most * _BAR:.2f}" fill="{plain(colour)}"><title>{n}</title></rect>'
        for i, n in enumerate(counts)
        if n
    )
    words = plain(f"{about}: {_in_words(counts)}")
    return (
        f'<svg class="histogram" viewBox="0 0 200 {_BAR + _LABELS}" role="img" aria-label="{words}">{bars}'
        f'<line x1="0" x2="200" y1="{_BAR + 0.5}" y2="{_BAR + 0.5}" stroke="currentColor" stroke-width="1"/>'
        f'<text x="0" y="{_BAR + 13}">{plain(low)}</text>'
        f'<text x="200" y="{_BAR + 13}" text-anchor="end">{plain(high)}</text></svg>'
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
