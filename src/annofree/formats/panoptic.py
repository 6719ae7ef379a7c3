"""COCO panoptic files: a JSON file, and beside it a folder of its name with one PNG of segment ids an image.

A pixel of segment id has R + 256 G + 65536 B = id; 0 is void.  H W pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.errors import InputError
from annofree.formats.coco import read_lists
from annofree.io.atomic import make_folder, write_atomic, write_json
from annofree.io.files.paths import confine
from annofree.ops.palette import assign_colors

__all__ = ["PanopticFile", "decode_segment_ids", "encode_segment_ids"]

Ids = npt.NDArray[np.int32]
Rows = list[dict[str, Any]]

_LIMIT = 256**3


def encode_segment_ids(ids: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
    """Write segment ids (H, W) as RGB (H, W, 3); raises InputError for ids that three bytes cannot hold.

    >>> encode_segment_ids(np.array([[0, 1 + 256 * 2 + 65536 * 3]])).tolist()
    [[[0, 0, 0], [1, 2, 3]]]
    """
    if ids.size and not (ids.min() >= 0 and ids.max() < _LIMIT):
        raise InputError(f"expected segment ids from 0 to {_LIMIT - 1}, got {ids.min()} to {ids.max()}")
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)


def decode_segment_ids(pixels: npt.NDArray[np.uint8]) -> Ids:
    """Read segment ids (H, W) from RGB (H, W, 3).

    >>> decode_segment_ids(np.array([[[1, 2, 3]]], np.uint8)).tolist() == [[1 + 256 * 2 + 65536 * 3]]
    True
    """
    wide = pixels.astype(np.int32)
    ids: Ids = wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]
    return ids


@dataclass
class PanopticFile:
    """A panoptic file at ``path``, its PNGs in ``folder``: ``add`` writes those one by one, ``write`` the JSON at the end.

    ``images``, ``annotations`` and ``categories`` are lists of plain dicts, as in the file.
    """

    path: Path
    images: Rows = field(default_factory=list)
    annotations: Rows = field(default_factory=list)
    categories: Rows = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sizes = {image["id"]: (image["height"], image["width"]) for image in self.images}
        self._taken = {annotation["file_name"] for annotation in self.annotations}

    @classmethod
    def start(cls, path: Path, names: Mapping[int, str], stuff: Collection[str] = ()) -> PanopticFile:
        """Start a file whose categories are ``names`` by id, of which ``stuff`` are stuff classes; creates its folder."""
        if not path.suffix:
            raise InputError(f"expected a file such as {path}.json, for the PNGs go to the folder {path}")
        file = cls(path, categories=_categories(names, stuff))
        make_folder(file.folder)
        return file

    @property
    def folder(self) -> Path:
        """Where the PNGs are."""
        return self.path.with_suffix("")

    def add(self, file_name: str, segments: npt.NDArray[np.integer[Any]], rows: Sequence[Mapping[str, Any]]) -> int:
        """Write the PNG of one image and keep its ``rows``, COCO's segments_info; returns its image id, from 1.

        Raises InputError when the rows do not list the ids of ``segments`` (H, W), or name no known category, when the PNG's
        name is taken by another image, and when it would lie outside the folder.
        """
        png = _png_name(file_name)
        if png in self._taken:
            raise InputError(f"expected images whose names differ before the ending, got {png} for {file_name} a second time")
        self._check(rows, segments, file_name)
        image = PIL.Image.fromarray(encode_segment_ids(segments))
        place = self.folder / png
        make_folder(place.parent)
        write_atomic(place, lambda temporary: image.save(temporary, "PNG"))
        id_, (height, width) = len(self.images) + 1, segments.shape
        self._sizes[id_] = height, width
        self._taken.add(png)
        self.images.append({"id": id_, "file_name": file_name, "height": height, "width": width})
        self.annotations.append({"image_id": id_, "file_name": png, "segments_info": [dict(row) for row in rows]})
        return id_

    def write(self) -> None:
        """Write the JSON atomically."""
        write_json(
            self.path, {"info": self.info} | {key: getattr(self, key) for key in ("images", "annotations", "categories")}
        )

    @classmethod
    def read(cls, path: Path) -> PanopticFile:
        """Read the JSON; raises InputError if it is missing, not JSON, or not COCO panoptic."""
        data = read_lists(path, "COCO panoptic JSON")
        if not all(isinstance(row, dict) and isinstance(row.get("segments_info"), list) for row in data["annotations"]):
            raise InputError(f"expected segments_info in each annotation of {path}; is it a file of instances?")
        if not all(isinstance(row.get("file_name"), str) for row in data["annotations"]):
            raise InputError(f"expected the file_name of its PNG in each annotation of {path}")
        segments = (one for row in data["annotations"] for one in row["segments_info"])
        if not all(isinstance(row, dict) and type(row.get("id")) is int for row in (*segments, *data["categories"])):
            raise InputError(f"expected each segment and each category of {path} with a whole number as its id")
        try:
            return cls(path, data["images"], data["annotations"], data["categories"], data.get("info", {}))
        except (KeyError, TypeError):
            raise InputError(f"expected id, height and width of each image, and each file_name, in {path}") from None

    def read_segments(self, annotation: Mapping[str, Any]) -> Ids:
        """Read the ids (H, W) of one of the annotations from its PNG.

        Raises InputError when that is missing, outside of the folder, no RGB PNG or of another size than its image, and when
        its ids and those of the JSON differ.
        """
        path, image_id = confine(self.folder, annotation["file_name"]), annotation.get("image_id")
        size = self._sizes.get(image_id) if isinstance(image_id, Hashable) else None
        if size is None:
            raise InputError(f"{path} is of the image {image_id!r:.40}, which is not among those of {self.path}")
        ids = decode_segment_ids(_pixels(path))
        if ids.shape != size:
            raise InputError(f"expected {path} of the size (H, W) {size} that {self.path} says, got {ids.shape}")
        self._check(annotation["segments_info"], ids, str(path))
        return ids

    def _check(self, rows: Sequence[Mapping[str, Any]], segments: npt.NDArray[np.integer[Any]], where: str) -> None:
        said, there = [row["id"] for row in rows], set(np.unique(segments).tolist()) - {0}
        problems = {
            "listed twice": {id_ for id_ in said if said.count(id_) > 1},
            "listed, but of no pixel": set(said) - there,
            "of pixels, but not listed": there - set(said),
            "of an unknown category": {row["id"] for row in rows}
            - {r["id"] for r in rows if r.get("category_id") in self._known},
        }
        found = [f"{_few(ids)} {problem}" for problem, ids in problems.items() if ids]
        if found:
            raise InputError(f"expected the segment ids of {where} to be those of its segments_info; {'; '.join(found)}")

    @property
    def _known(self) -> set[int]:
        return {category["id"] for category in self.categories}


def _few(ids: Collection[int], most: int = 5) -> str:
    return ", ".join(map(str, sorted(ids)[:most])) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def _categories(names: Mapping[int, str], stuff: Collection[str]) -> Rows:
    strangers = sorted(set(stuff) - set(names.values()))
    if strangers:
        raise InputError(f"expected stuff to be among the categories, got {', '.join(strangers)}")
    colors = assign_colors(names.values())
    return [
        {
            "id": id_,
            "name": name,
            "isthing": int(name not in stuff),
            "color": list(colors[name]),
            "supercategory": "stuff" if name in stuff else "thing",
        }
        for id_, name in names.items()
    ]


def _png_name(file_name: str) -> str:
    path = PurePosixPath(file_name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name or ":" in file_name:
        raise InputError(f"expected an image's name relative to its folder, got {file_name!r}")
    return str(path.with_suffix(".png"))


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with PIL.Image.open(path) as image:
            if image.format != "PNG" or image.mode != "RGB":
                raise InputError(f"expected segment ids as an RGB PNG, got {image.format} {image.mode} in {path}")
            return np.asarray(image)
    except FileNotFoundError:
        raise InputError(f"expected the segment ids of an image in {path}; it is not there") from None
    except (OSError, SyntaxError) as problem:
        raise InputError(f"expected the segment ids of an image in {path}, but it cannot be read: {problem}") from None
