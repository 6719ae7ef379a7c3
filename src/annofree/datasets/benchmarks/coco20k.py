"""COCO-20K: 19,817 images of COCO's train2014, by a list of file names that LOST published.

The list cannot be computed: it is read from the file in LOST's repository.
"""

from __future__ import annotations

from pathlib import Path

from annofree.datasets.benchmarks.semantic import read_lines
from annofree.errors import InputError
from annofree.formats.coco import CocoFile

__all__ = ["COCO_20K_LIST", "select_coco20k"]

COCO_20K_LIST = "74637e9b4f93f2ebef9b1f664aff53edd1f41ef08dad97bd22ce8e455052b335"
"""SHA-256 of LOST's list, coco_20k_filenames.txt, with 19,817 different names."""

_LAYOUT = "instances_train2014.json of COCO, and LOST's coco_20k_filenames.txt, one file name a line"


def select_coco20k(truth: Path, listed: Path) -> CocoFile:
    """Select the images of a COCO file that a list names, with all of their instances, crowds too, and all categories.

    Lines are compared by the last part of their path, and images stay in the order of the COCO file.  Any list will do, so
    that a part of COCO-20K can be scored; ``COCO_20K_LIST`` tells LOST's.  Raises InputError when a file cannot be read, for
    an empty list, and for a name that the COCO file does not have.
    """
    wanted = {_last_part(line) for line in read_lines(listed, _LAYOUT)}
    if not wanted:
        raise InputError(f"expected file names in {listed}, got none; the layout is {_LAYOUT}")
    whole = CocoFile.read(truth)
    images = [row for row in whole.images if _last_part(row["file_name"]) in wanted]
    absent = wanted - {_last_part(row["file_name"]) for row in images}
    if absent:
        raise InputError(
            f"expected the {len(wanted)} images of {listed} in {truth}, but {len(absent)} are not there, "
            f"{min(absent)} among them; COCO-20K is of train2014"
        )
    ids = {row["id"] for row in images}
    return CocoFile(images, whole.categories, [row for row in whole.annotations if row["image_id"] in ids], whole.info)


def _last_part(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
