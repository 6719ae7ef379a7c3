"""ZUTIS from nothing but images and names, in the emoji world: draw, index, retrieve, mask, train.

Images are drawn with their truth, which is read for nothing but the figures: how many of the images that a name retrieved
show it, and how well the masks fit what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from annofree.datasets.emoji.world import CATEGORIES, Split
from annofree.errors import InputError
from annofree.evaluation.accumulators import Figures
from annofree.formats.coco import CocoFile
from annofree.io.image_sources import Source
from annofree.methods.components import Models
from annofree.ops.rle import decode_rle
from annofree.pipelines.training.scenes import Show, draw_scenes
from annofree.pipelines.training.side_by_side import TrainJob, train_side_by_side
from annofree.retrieval.archive import Archive, MaskWriter, read_masks
from annofree.retrieval.archive_sheets import write_sheets
from annofree.retrieval.build_index import build_index
from annofree.retrieval.open_index import open_index
from annofree.retrieval.search import retrieve
from annofree.runs.archive_masks import Refine, mask_archive
from annofree.structures import RLE, BoolArray, Vocabulary
from annofree.training.selfmask.spectral_voting import load_source
from annofree.training.zutis.recipe import ZutisRecipe
from annofree.training.zutis.train import fit_zutis

__all__ = ["ZutisMaking", "measure_archive", "measure_masks"]

_MIX: dict[Split, float] = {"single": 0.8, "mixed": 0.2}


@dataclass(frozen=True)
class ZutisMaking:
    """What is made, in this order: scenes, their index, an archive of the best of each name, masks, and trained networks.

    Raises InputError without a network to train.
    """

    # scenes, four in five of a single object, the rest of several
    pictures: int
    # scenes that each name retrieves
    k: int
    # a network for each table, by name: fields of ZutisRecipe over those of common
    train: Mapping[str, Mapping[str, Any]]
    # fields of ZutisRecipe that all networks share
    common: Mapping[str, Any] = field(default_factory=dict)
    # height and width of scenes in px
    side: int = 256
    # of the scenes
    seed: int = 0
    # the preset whose CLIP embeds scenes, and that has the source of masks
    models: str = "tiny"
    # what masks are made by: an objectness of the models, or voted
    by: str = "found"
    # how masks are drawn to edges
    refine: Refine = "none"

    def __post_init__(self) -> None:
        if not self.train:
            raise InputError("expected a network to train in the recipe, as [make.train.NAME], got none")

    def make(self, out: Path, show: Show, device: str = "cpu", say: Callable[[str], None] = print) -> Figures:
        """Make all of it in a folder, or go on where it stopped, and return the figures of the stages."""
        truth = self.draw_world(out, show)
        archive = self.build_archive(out, show, device)
        self._masks(archive, out / "archive", show, device)
        figures = measure_archive(archive, truth) | measure_masks(archive, out / "archive", truth)
        say("; ".join(f"{name} {value}" for name, value in figures.items()))
        everywhere = {**self.common, "archive": out / "archive", "world": "emoji"}
        recipes = {name: {**everywhere, **own, "out": out / name, "name": name} for name, own in self.train.items()}
        train_side_by_side({name: self.describe_job(fields) for name, fields in recipes.items()}, show, device, say)
        return figures

    def describe_job(self, fields: Mapping[str, Any]) -> TrainJob:
        """The training of a network by fields of its recipe."""
        return TrainJob(fit_zutis, ZutisRecipe(**fields))

    def draw_world(self, out: Path, show: Show) -> CocoFile:
        """Draw the scenes that names retrieve from, unless they are there, and return their truth."""
        counts = {split: round(share * self.pictures) for split, share in _MIX.items()}
        return draw_scenes(out / "world", counts, self.side, self.seed, "images to retrieve from", show)

    def build_archive(self, out: Path, show: Show, device: str) -> Archive:
        """Index the images and retrieve those of each name, unless that is done."""
        if not (out / "archive" / "archive.json").exists():
            clip = Models(self.models, device, objectness="none").clip
            with show("images indexed") as shown:
                build_index(Source([out / "world" / "images"]), out / "index", clip, on_progress=shown)
            with show("embeddings searched") as shown:
                names = Vocabulary.of(list(CATEGORIES.values()))
                archive = retrieve(open_index(out / "index"), clip, names, self.k, on_progress=shown)
            archive.write(out / "archive")
            write_sheets(archive, out / "archive" / "sheets")
        return Archive.read(out / "archive")

    def _masks(self, archive: Archive, folder: Path, show: Show, device: str) -> None:
        source = load_source(self.by, self.models, device)
        about = {"by": self.by, "refine": self.refine, "model": source.provenance}
        with MaskWriter(folder, about) as writer, show("masks") as shown:
            mask_archive(archive, writer, source, refine=self.refine, on_progress=shown)


def measure_archive(archive: Archive, truth: CocoFile) -> Figures:
    """How many of the images that a name retrieved show it, over all members, in percent, and how many images there are."""
    names = {row["id"]: row["name"] for row in truth.categories}
    shown: dict[str, set[str]] = {row["file_name"]: set() for row in truth.images}
    files = {row["id"]: row["file_name"] for row in truth.images}
    for row in truth.annotations:
        shown[files[row["image_id"]]].add(names[row["category_id"]])
    hits = [name in shown[Path(m.id).name] for name, members in archive.members.items() for m in members]
    return {"images retrieved": float(len(archive)), "retrieval precision": round(100 * float(np.mean(hits)), 2)}


def measure_masks(archive: Archive, folder: Path, truth: CocoFile) -> Figures:
    """Mean IoU of the masks with all objects of their images together, and of "everything" with them, in percent."""
    masks, ids = read_masks(folder), {row["id"]: row["file_name"] for row in truth.images}
    objects: dict[str, list[RLE]] = {}
    for row in truth.annotations:
        objects.setdefault(ids[row["image_id"]], []).append(row["segmentation"])
    found, whole = [], []
    for id_ in archive.ids:
        rles = objects.get(Path(id_).name, [])
        if id_ in masks and rles:
            there = np.any([decode_rle(rle) for rle in rles], axis=0)
            found.append(_iou(decode_rle(masks[id_].rle), there))
            whole.append(float(there.mean()))
    if not found:
        raise InputError(f"expected masks of images whose truth is known in {folder}, got none")
    return {"mask IoU": round(100 * float(np.mean(found)), 2), "IoU of everything": round(100 * float(np.mean(whole)), 2)}


def _iou(one: BoolArray, other: BoolArray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))
