"""Scenes of the emoji world as files: images, COCO truth and captions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from annofree.datasets.emoji.world import CATEGORIES, Scene
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.io.atomic import write_jpeg, write_json
from annofree.structures import Detections

__all__ = ["write_scenes"]


def write_scenes(scenes: Iterable[tuple[str, Scene]], out: Path, about: str, quality: int = 92) -> CocoFile:
    """Write scenes to ``out/images``, their annotations to ``out/truth.json`` and their captions to ``out/captions.json``.

    Each image is tagged with its split, background and whether an object wears a look kept out of training
    (``unseen``); each annotation with its emoji.  Raises InputError when ``out`` cannot be a folder.
    """
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(f"expected a folder to write scenes to, but {out} cannot be one: {problem.strerror}") from None
    truth = CocoFile.with_categories(CATEGORIES)
    truth.info = {"description": about, "world": "emoji", "licence": "Apache-2.0; emoji: Noto Color Emoji, OFL-1.1"}
    captions = []
    for name, scene in scenes:
        image = PILImage.fromarray(scene.image)
        write_jpeg(out / "images" / f"{name}.jpg", image, quality, subsampling=0)
        id_ = _add(truth, name, scene)
        captions.append({"id": id_, "image_id": id_, "caption": scene.caption})
    truth.write(out / "truth.json")
    write_json(out / "captions.json", {"images": truth.images, "annotations": captions})
    return truth


def _add(truth: CocoFile, name: str, scene: Scene) -> int:
    unseen = any(o.held_out for o in scene.objects)
    tags = {"split": scene.split, "background": scene.background, "unseen": unseen}
    id_ = truth.add_image(f"{name}.jpg", (scene.layout.shape[0], scene.layout.shape[1]), **tags)
    masks = (
        np.stack([scene.mask(i) for i in range(len(scene.objects))])
        if scene.objects
        else np.zeros((0, *scene.layout.shape), bool)
    )
    ids = list(CATEGORIES)
    places = [ids.index(o.category_id) for o in scene.objects]
    # one by one: Detections sorts by score, truth keeps the order of the scene
    for mask, place, shown in zip(masks, places, scene.objects, strict=True):
        row = Detections.from_masks(mask[None], [place], [1.0], list(CATEGORIES.values())).to_coco(id_, ids)[0]
        del row["score"]
        truth.add_annotations([row | {"emoji": shown.emoji, "unseen": shown.held_out}])
    return id_
