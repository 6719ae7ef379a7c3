"""What a run found, counted: read row by row, so that memory grows with images and classes, not with masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.hub.license_policy import find_models
from annofree.io.coco_stream import stream_coco
from annofree.io.read_json import read_own_json
from annofree.io.regular import require_regular
from annofree.runs.store.clearing import FINALS
from annofree.runs.store.counts import BINS, ClassCount, Crop, ImageCount
from annofree.runs.store.finals import require_unchanged
from annofree.runs.store.maps import count_mapped_images

__all__ = ["RunSummary", "find_images_root", "read_about", "read_quarantine"]


@dataclass
class RunSummary:
    """All of a run but the masks: images and classes by id, ``about`` as run.json has it, and what went wrong, by name.

    ``shares`` are the mean shares of names in label maps; ``has_instances`` is False for a run without them.
    """

    about: Mapping[str, Any]
    pictures: dict[int, ImageCount] = field(default_factory=dict)
    classes: dict[int, ClassCount] = field(default_factory=dict)
    quarantine: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    has_instances: bool = True

    @classmethod
    def read(cls, run: Path, best: int = 24) -> RunSummary:
        """Count a run's folder, keeping the ``best`` instances of each class.

        Raises InputError when it is no run, or when its files are damaged.
        """
        about = read_about(run)
        annotations = run / "annotations.json"
        summary = cls(about, quarantine=read_quarantine(run, about), has_instances=annotations.is_file())
        shares = read_json(run / "labels" / "shares.json")
        summary.shares = dict(shares["mean"]) if isinstance(shares, dict) and isinstance(shares.get("mean"), dict) else {}
        require_unchanged(run, *FINALS)
        if summary.has_instances:
            summary._count(annotations, best)
        else:
            summary.pictures = dict(enumerate(count_mapped_images(run, shares), 1))
        return summary

    def _count(self, path: Path, best: int) -> None:
        """Take images and categories first, then the annotations, wherever in the file they stand."""
        takes: Mapping[str, Callable[[Mapping[str, Any]], None]] = {"images": self._image, "categories": self._category}
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

    def _image(self, row: Mapping[str, Any]) -> None:
        size = int(row["height"]), int(row["width"])
        overlay, labels, panoptic = (str(row.get(key) or "") for key in ("overlay", "labels", "panoptic"))
        self.pictures[row["id"]] = ImageCount(str(row["file_name"]), size, overlay, labels, panoptic)

    def _category(self, row: Mapping[str, Any]) -> None:
        self.classes[row["id"]] = ClassCount(str(row["name"]))

    def _annotation(self, row: Mapping[str, Any], best: int) -> None:
        score, image = float(row.get("score", 1.0)), self.pictures[row["image_id"]]
        x, y, width, height = (float(v) for v in row["bbox"])
        image.instances += 1
        image.scores += score
        image.area += float(row.get("area", width * height))
        crop = Crop(score, row["image_id"], (x, y, x + width, y + height), row.get("segmentation") or None)
        self.classes[row["category_id"]].add(row["image_id"], score, crop, best)

    @property
    def instances(self) -> int:
        """Instances in all images."""
        return sum(c.instances for c in self.classes.values())

    @property
    def bins(self) -> list[int]:
        """The histogram of all scores."""
        return [sum(column) for column in zip(*(c.bins for c in self.classes.values()), strict=True)] or [0] * BINS

    def list_models(self) -> list[Mapping[str, Any]]:
        """What run.json says of each model, each once."""
        provenance = self.about.get("provenance") or {}
        methods = provenance.get("methods") or [provenance]
        found = [m for method in methods for m in find_models(method)]
        return list({str(m.get("name")): m for m in found}.values())


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, None if it is missing; raises InputError if it is damaged."""
    try:
        return json.loads(require_regular(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise InputError(f"expected a readable file at {path}: {problem.strerror}") from None
    except (ValueError, RecursionError) as problem:
        raise InputError(f"expected JSON in {path}, but it is damaged: {problem}") from None


def read_about(run: Path) -> dict[str, Any]:
    """Return run.json of a run; raises InputError for any other folder."""
    about = read_json(run / "run.json")
    require_unchanged(run, "run.json")
    if not isinstance(about, dict):
        raise InputError(f"{run} is not a run folder (no run.json); pass the --out of `annofree segment`")
    return about


def find_images_root(run: Path) -> Path | None:
    """Return the image root of a run, None if unknown or missing; raises InputError where the run's settings are damaged."""
    path = run / "shards" / "settings.json"
    held = read_own_json(path, "the settings of a run", "make the run anew with --fresh") if path.is_file() else {}
    asked = held.get("asked")
    root = asked.get("root") if isinstance(asked, dict) else None
    return Path(root) if isinstance(root, str) and Path(root).is_dir() else None


def read_quarantine(run: Path, about: Mapping[str, Any]) -> dict[str, str]:
    """Return why images were left out, by name, from quarantine.json, or where there is none from run.json's ``failed``.

    quarantine.json is {"name": "reason"} or a list of {"id": "name", "reason": "reason"}.
    """
    kept = read_json(run / "quarantine.json")
    rows = {str(r.get("id")): r.get("reason") for r in kept if isinstance(r, dict)} if isinstance(kept, list) else kept
    told = rows if isinstance(rows, dict) else about.get("failed")
    return {str(name): str(reason) for name, reason in told.items()} if isinstance(told, dict) else {}
