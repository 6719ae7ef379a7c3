"""What a run found, counted: read row by row, so that memory grows with pictures and classes, not with masks."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.formats.coco_stream import stream_coco
from annofree.formats.label_maps import CLASSES_FILE
from annofree.ops.palette import BACKGROUND_COLOR, Color, colors_of

__all__ = ["BINS", "ClassCount", "Crop", "PictureCount", "RunSummary", "pictures_root", "quarantined", "read_about"]

BINS = 20
"""Bins of the score histograms, from 0 to 1."""


@dataclass(slots=True)
class PictureCount:
    """One picture: how many instances it has, the sum of their scores and of their areas, px; ``overlay`` from the run on."""

    file_name: str
    size: tuple[int, int]
    overlay: str = ""
    instances: int = 0
    scores: float = 0.0
    area: float = 0.0

    @property
    def mean_score(self) -> float:
        """The mean score of its instances, 0 when there are none."""
        return self.scores / self.instances if self.instances else 0.0

    @property
    def covered(self) -> float:
        """The areas of its instances as a part of the picture; overlaps count twice."""
        return self.area / max(1, self.size[0] * self.size[1])


@dataclass(frozen=True, order=True)
class Crop:
    """One instance of a class, to be cut out: its ``score``, its picture's id, its ``box`` x0 y0 x1 y1 px, and its mask as
    COCO has it, or None.
    """

    score: float
    image_id: int
    box: tuple[float, float, float, float]
    mask: Any = field(default=None, compare=False)


@dataclass
class ClassCount:
    """One class: instances, pictures that have any, the sum of scores, their histogram, the best instances, its color."""

    name: str
    instances: int = 0
    pictures: int = 0
    scores: float = 0.0
    bins: list[int] = field(default_factory=lambda: [0] * BINS)
    best: list[Crop] = field(default_factory=list)
    color: Color = BACKGROUND_COLOR
    _last: Any = None

    def add(self, image_id: int, score: float, crop: Crop, most: int) -> None:
        """Count one instance; instances come picture by picture."""
        self.instances += 1
        self.pictures += image_id != self._last
        self._last = image_id
        self.scores += score
        self.bins[min(BINS - 1, max(0, int(score * BINS)))] += 1
        if len(self.best) < most:
            heapq.heappush(self.best, crop)
        elif most:
            heapq.heappushpop(self.best, crop)


@dataclass
class RunSummary:
    """All of a run but the masks: pictures and classes by id, ``about`` as run.json has it, and what went wrong, by name.

    ``shares`` are the mean shares of names in label maps; ``has_instances`` is False for a run without them; ``colors`` are
    those of all names, as in the run's overlays and label maps.
    """

    about: Mapping[str, Any]
    pictures: dict[int, PictureCount] = field(default_factory=dict)
    classes: dict[int, ClassCount] = field(default_factory=dict)
    quarantine: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    has_instances: bool = True
    colors: dict[str, Color] = field(default_factory=dict)

    @classmethod
    def read(cls, run: Path, best: int = 24) -> RunSummary:
        """Count a run's folder, keeping the ``best`` instances of each class.

        Raises InputError when it is no run, or when its files are damaged.
        """
        about = read_about(run)
        annotations = run / "annotations.json"
        summary = cls(about, quarantine=quarantined(run, about), has_instances=annotations.is_file())
        shares = read_json(run / "labels" / "shares.json")
        summary.shares = dict(shares["mean"]) if isinstance(shares, dict) and isinstance(shares.get("mean"), dict) else {}
        if summary.has_instances:
            summary._count(annotations, best)
        summary._paint(read_json(run / "labels" / CLASSES_FILE))
        return summary

    def _paint(self, labels: Any) -> None:
        """Color the names in the order of the run's: that of its categories, without them that of its label maps."""
        listed = labels.get("names") if isinstance(labels, dict) else None
        names = [str(name) for name in listed] if isinstance(listed, list) else []
        self.colors = colors_of([*(c.name for c in self.classes.values()), *names, *self.shares])
        for counted in self.classes.values():
            counted.color = self.colors[counted.name]

    def _count(self, path: Path, best: int) -> None:
        """Take pictures and categories first, then the annotations, wherever in the file they stand."""
        takes: Mapping[str, Callable[[Mapping[str, Any]], None]] = {"images": self._picture, "categories": self._category}
        waiting = False
        try:
            for kind, row in stream_coco(path):
                if kind == "annotations" and not (waiting := waiting or not self.classes or not self.pictures):
                    self._annotation(row, best)
                elif kind in takes:
                    takes[kind](row)
            if waiting:  # a file that has them in another order is read twice
                for kind, row in stream_coco(path):
                    if kind == "annotations":
                        self._annotation(row, best)
        except (KeyError, TypeError) as problem:
            raise InputError(f"expected COCO instances in {path}, but a row lacks {problem}") from None

    def _picture(self, row: Mapping[str, Any]) -> None:
        size = int(row["height"]), int(row["width"])
        self.pictures[row["id"]] = PictureCount(str(row["file_name"]), size, str(row.get("overlay") or ""))

    def _category(self, row: Mapping[str, Any]) -> None:
        self.classes[row["id"]] = ClassCount(str(row["name"]))

    def _annotation(self, row: Mapping[str, Any], best: int) -> None:
        score, picture = float(row.get("score", 1.0)), self.pictures[row["image_id"]]
        x, y, width, height = (float(v) for v in row["bbox"])
        picture.instances += 1
        picture.scores += score
        picture.area += float(row.get("area", width * height))
        crop = Crop(score, row["image_id"], (x, y, x + width, y + height), row.get("segmentation") or None)
        self.classes[row["category_id"]].add(row["image_id"], score, crop, best)

    @property
    def instances(self) -> int:
        """Instances in all pictures."""
        return sum(c.instances for c in self.classes.values())

    @property
    def bins(self) -> list[int]:
        """The histogram of all scores."""
        return [sum(column) for column in zip(*(c.bins for c in self.classes.values()), strict=True)] or [0] * BINS

    def models(self) -> list[Mapping[str, Any]]:
        """What run.json says of each model, each once."""
        provenance = self.about.get("provenance") or {}
        methods = provenance.get("methods") or [provenance]
        found = [m for method in methods for m in _models_in(method)]
        return list({str(m.get("name")): m for m in found}.values())


def _models_in(part: Any) -> list[Mapping[str, Any]]:
    """Everything with a tier and a name, at any depth: objectness has models of its own."""
    if isinstance(part, list):
        return [m for p in part for m in _models_in(p)]
    if not isinstance(part, dict):
        return []
    own = [part] if "tier" in part and "name" in part else []
    return own + [m for value in part.values() for m in _models_in(value)]


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, None when there is none; raises InputError when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise InputError(f"expected a readable file at {path}: {problem.strerror}") from None
    except ValueError as problem:
        raise InputError(f"expected JSON in {path}, but it is damaged: {problem}") from None


def read_about(run: Path) -> dict[str, Any]:
    """Return what run.json says of a run; raises InputError for any other folder."""
    about = read_json(run / "run.json")
    if not isinstance(about, dict):
        raise InputError(f"expected the folder of a run, with run.json in it, at {run}; give what segment --out was given")
    return about


def pictures_root(run: Path) -> Path | None:
    """Return the folder that a run's file names count from, None where that is not known or not there any more."""
    settings = read_json(run / "shards" / "settings.json")
    asked = settings.get("asked") if isinstance(settings, dict) else None
    root = asked.get("root") if isinstance(asked, dict) else None
    return Path(root) if isinstance(root, str) and Path(root).is_dir() else None


def quarantined(run: Path, about: Mapping[str, Any]) -> dict[str, str]:
    """Return why pictures were left out, by name, from quarantine.json, or where there is none from run.json's ``failed``.

    quarantine.json is {"name": "reason"} or a list of {"id": "name", "reason": "reason"}.
    """
    kept = read_json(run / "quarantine.json")
    rows = {str(r.get("id")): r.get("reason") for r in kept if isinstance(r, dict)} if isinstance(kept, list) else kept
    told = rows if isinstance(rows, dict) else about.get("failed")
    return {str(name): str(reason) for name, reason in told.items()} if isinstance(told, dict) else {}
