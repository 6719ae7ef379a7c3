"""What people corrected of the images of a learning: labels that are taken as they are, in every round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annofree.formats.coco import CocoFile
from annofree.runs.corrections.training_labels import write_training_labels
from annofree.runs.inputs import Inputs
from annofree.structures import Vocabulary

__all__ = ["GivenLabels"]


@dataclass(frozen=True)
class GivenLabels:
    """Labels of some images, as people corrected them."""

    file: CocoFile
    # image rows by file name, and the rows of their instances
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def read(cls, corrections: Path, out: Path, names: Vocabulary, inputs: Inputs, say: Callable[[str], None]) -> GivenLabels:
        """Read the corrections of a run or a workspace, once for a learning in ``out``: what is resumed has the same.

        Raises InputError where there are none of these images.
        """
        place = write_training_labels(corrections, out / "corrections", images=inputs.root, names=names.names, say=say)
        file, asked = CocoFile.read(place), set(inputs.ids)
        files = {image["id"]: str(image["file_name"]) for image in file.images}
        images = {files[image["id"]]: image for image in file.images if files[image["id"]] in asked}
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in images}
        for row in file.annotations:
            if files[row["image_id"]] in rows:
                rows[files[row["image_id"]]].append(row)
        say(f"{len(images)} images have the labels that people gave them")
        return cls(file, images, rows)

    def write_into(self, path: Path) -> None:
        """Put these labels in the place of what a COCO file has for their images, and add those that it lacks."""
        before = CocoFile.read(path) if path.is_file() else CocoFile(categories=self.file.categories, info=self.file.info)
        old: dict[Any, list[dict[str, Any]]] = {}
        for row in before.annotations:
            old.setdefault(row["image_id"], []).append(row)
        numbers = {str(category["name"]): category["id"] for category in before.categories}
        own = {category["id"]: numbers[str(category["name"])] for category in self.file.categories}
        made = CocoFile(categories=before.categories, info=before.info | {"corrections": self.file.info.get("corrections", {})})
        there = {str(image["file_name"]): image for image in before.images}
        for name, image in {**there, **self.images}.items():
            row = {key: value for key, value in image.items() if key != "id"}
            id_ = made.add_image(row.pop("file_name"), (row.pop("height"), row.pop("width")), **row)
            if name in self.images:
                kept = [one | {"category_id": own[one["category_id"]]} for one in self.rows[name]]
            else:
                kept = old.get(image["id"], [])
            made.add_annotations([{k: v for k, v in one.items() if k != "id"} | {"image_id": id_} for one in kept])
        path.parent.mkdir(parents=True, exist_ok=True)
        made.write(path)
