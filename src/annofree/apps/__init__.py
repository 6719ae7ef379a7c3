"""Programs for people."""

from __future__ import annotations

import time

__all__ = ["IMPORTED"]

IMPORTED = time.perf_counter()
"""When the first of our code ran, if no other part of annofree was imported before."""
