"""The mark of tests that draw: they are skipped on a machine that has no emoji to draw with."""

from __future__ import annotations

import pytest

from annofree.datasets.emoji.world import find_font
from annofree.errors import MissingError


def _has_font() -> bool:
    try:
        find_font()
    except MissingError:
        return False
    return True


drawing = pytest.mark.skipif(not _has_font(), reason="draws scenes: needs the Noto Color Emoji font")
