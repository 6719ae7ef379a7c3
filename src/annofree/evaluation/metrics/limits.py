"""The maximum number of detections per image and class: COCO's maxDets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from annofree.errors import InputError

__all__ = ["MOST_DETECTIONS", "check_limit", "describe_crowded", "list_limits", "name_recall"]

MOST_DETECTIONS = 10_000
"""The largest limit that is taken; LVIS has 300, SA-1B's papers 1,000."""


def check_limit(max_detections: int) -> int:
    """Return a limit of 1 to ``MOST_DETECTIONS`` detections per image and class; raises InputError for any other.

    >>> check_limit(300)
    300
    """
    if isinstance(max_detections, bool) or not isinstance(max_detections, int) or not 1 <= max_detections <= MOST_DETECTIONS:
        raise InputError(
            f"expected 1 to {MOST_DETECTIONS:,} detections an image and class as the limit, got {max_detections!r}; "
            "COCO has 100, LVIS 300"
        )
    return max_detections


def list_limits(max_detections: int) -> tuple[int, ...]:
    """Return the limits of recall: COCO's 1 and 10 if smaller, and the largest.

    >>> list_limits(100), list_limits(10), list_limits(1)
    ((1, 10, 100), (1, 10), (1,))
    """
    return (*(limit for limit in (1, 10) if limit < max_detections), max_detections)


def name_recall(max_detections: int) -> str:
    """Label of the average recall at a limit: COCO's names at its own limits, LVIS's at others.

    >>> name_recall(100), name_recall(300)
    ('AR100', 'AR@300')
    """
    return "AR100" if max_detections == 100 else f"AR@{max_detections}"


def describe_crowded(rows: Sequence[Mapping[str, Any]], max_detections: int) -> str | None:
    """Return a note where images have more true instances than detections count, which bounds AP and AR; else None.

    >>> describe_crowded([{"image_id": 1, "category_id": 1}] * 3, 2)
    '1 image has more than 2 true instances, up to 3, of which no more can be found: see --max-detections'
    """
    counts = Counter(row["image_id"] for row in rows if not row.get("iscrowd"))
    crowded = sum(count > max_detections for count in counts.values())
    if not crowded:
        return None
    has = "image has" if crowded == 1 else "images have"
    return (
        f"{crowded:,} {has} more than {max_detections} true instances, up to {max(counts.values()):,}, "
        "of which no more can be found: see --max-detections"
    )
