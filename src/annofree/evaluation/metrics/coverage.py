"""Ground-truth images without predictions: a run on a part of the images would otherwise look like a bad one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from annofree.evaluation.metrics.predictions import Row
from annofree.formats.coco import CocoFile

__all__ = ["Coverage", "measure_coverage"]


@dataclass(frozen=True)
class Coverage:
    """Number of ``images``, names of those ``without`` predictions, and the number of true ``instances`` on these.

    ``unlisted`` counts those missing from the image list of the predictions; None without such a list.
    """

    images: int
    without: tuple[str, ...]
    instances: int
    unlisted: int | None

    @property
    def note(self) -> str | None:
        """A note on these images; None if they have no true instances and are listed.

        >>> Coverage(150, ("a.jpg", "b.jpg"), 7, 1).note
        '2 of 150 images have no prediction at all; they count as misses (7 true instances; the file does not list 1 of them)'
        """
        if not self.instances and not self.unlisted:
            return None
        plural = "" if self.instances == 1 else "s"
        about = [f"{self.instances:,} true instance{plural}" if self.instances else "nothing true is on them"]
        about += [f"the file does not list {self.unlisted:,} of them"] if self.unlisted else []
        verb = "has" if len(self.without) == 1 else "have"
        told = f"{len(self.without):,} of {self.images:,} images {verb} no prediction at all"
        return f"{told}{'; they count as misses' if self.instances else ''} ({'; '.join(about)})"

    def to_json_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**asdict(self), "without": list(self.without)}


def measure_coverage(truth: CocoFile, rows: Sequence[Row], listed: Sequence[int] | None = None) -> Coverage:
    """Find the images without predictions; ``listed`` are the ids in the image list of the predictions.

    >>> truth = CocoFile(images=[{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}])
    >>> measure_coverage(truth, [{"image_id": 2}]).without
    ('a.jpg',)
    """
    said = {row["image_id"] for row in rows}
    absent = {image["id"]: str(image.get("file_name", image["id"])) for image in truth.images if image["id"] not in said}
    instances = sum(row["image_id"] in absent and not row.get("iscrowd", 0) for row in truth.annotations)
    unlisted = None if listed is None else len(absent.keys() - set(listed))
    return Coverage(len(truth.images), tuple(absent.values()), instances, unlisted)
