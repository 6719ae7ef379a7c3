"""What a CLIP sees of the pseudo-masks of an archive: each image is looked at once, and that is kept beside the archive.

    ARCHIVE/looks/KEY.safetensors   of each image the feature under its mask, and a number of the image

The key condenses the archive, its masks and whatever looks; of another of these nothing is taken.  D embedding.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from annofree.errors import AnnofreeError, InputError
from annofree.io.atomic import make_folder, write_atomic
from annofree.io.callbacks import Callbacks
from annofree.io.image_sources import read_images
from annofree.io.images import silence_pillow
from annofree.ops.rle import compute_rle_areas, decode_rle
from annofree.retrieval.archive import PseudoMask
from annofree.retrieval.masked_archive import MaskedArchive
from annofree.structures import BoolArray, Image

__all__ = ["Look", "Looks", "Seer", "look_at_masks"]

_FOLDER = "looks"  # in that of the archive
_FORMAT = "annofree looks 1"
_BETWEEN = 256  # images between two writings, so that a kill costs no more

Seer = Callable[[Image, BoolArray], tuple[Tensor, int]]
"""Gives of an image and a mask (1, H, W) what is seen of the mask, (1, D), and a number of the image, as its copies have it."""


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen of an image: the ``feature`` (D) of its mask, fp16, and a number of the ``image``."""

    feature: Tensor
    image: int


@dataclass
class Looks:
    """What was seen, by the image's id; which images have no mask (``bare``), and which ``failed`` to be looked at, and why.

    ``unkept`` says why it could not be kept, if so.
    """

    seen: dict[str, Look]
    bare: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    unkept: str = ""


def look_at_masks(archive: MaskedArchive, ids: Iterable[str], see: Seer, maker: str, callbacks: Callbacks) -> Looks:
    """Look at the masks of some images of an archive, save those that were looked at before by the same ``maker``.

    ``maker`` is all that tells what sees from others, in a text.  Progress counts images.
    """
    path = archive.folder / _FOLDER / f"{_condense(archive, maker)}.safetensors"
    kept = _read(path)
    masks = {i: _find_mask(archive, i) for i in ids}
    looks = Looks({i: kept[i] for i, mask in masks.items() if mask and i in kept}, [i for i, mask in masks.items() if not mask])
    left = {i: mask for i, mask in masks.items() if mask and i not in kept}
    known = len(looks.seen)
    callbacks.on_progress(known, known + len(left))
    for number, (id_, seen) in enumerate(_look(archive, left, see), 1):
        if isinstance(seen, Look):
            looks.seen[id_] = kept[id_] = seen
        else:
            looks.failed[id_] = str(seen).splitlines()[0]
        if number % _BETWEEN == 0 or number == len(left):
            looks.unkept = _keep(path, kept)
        callbacks.on_progress(known + number, known + len(left))
    return looks


def _find_mask(archive: MaskedArchive, id_: str) -> PseudoMask | None:
    """The mask of an image, none where it has none or nothing was found in it."""
    mask = archive.masks.get(id_)
    return mask if mask is not None and compute_rle_areas([mask.rle])[0] > 0 else None


def _look(archive: MaskedArchive, left: Mapping[str, PseudoMask], see: Seer) -> Iterable[tuple[str, Look | AnnofreeError]]:
    with silence_pillow():
        for id_, _, image in read_images([(i, archive.archive.places[i]) for i in left], threads=2, ahead=8):
            try:
                yield id_, _see(image, left[id_], see)
            except AnnofreeError as problem:
                yield id_, problem


def _see(image: Image | AnnofreeError, mask: PseudoMask, see: Seer) -> Look:
    if isinstance(image, AnnofreeError):
        raise image
    height, width = mask.rle["size"]
    if image.size != (height, width):
        raise InputError(f"expected {image.id} to be of {width}x{height} as its mask, got {image.size[1]}x{image.size[0]}")
    feature, number = see(image, decode_rle(mask.rle)[None])
    return Look(feature[0].detach().cpu().half(), number)


def _condense(archive: MaskedArchive, maker: str) -> str:
    return hashlib.sha256(json.dumps([archive.checksums, maker]).encode()).hexdigest()[:24]


def _read(path: Path) -> dict[str, Look]:
    """What was kept, nothing where there is no file or not the one that was written."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["annofree"])
            features, images = file.get_tensor("features"), file.get_tensor("images")
        if about["format"] != _FORMAT or about["checksum"] != _sum(about["ids"], features, images):
            return {}
        return {i: Look(feature, int(image)) for i, feature, image in zip(about["ids"], features, images, strict=True)}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return {}


def _keep(path: Path, looks: Mapping[str, Look]) -> str:
    """Write all looks, whole or not at all; return why that is impossible, if so."""
    ids = sorted(looks)
    if not ids:
        return ""
    features, images = torch.stack([looks[i].feature for i in ids]), torch.tensor([looks[i].image for i in ids])
    about = json.dumps({"format": _FORMAT, "ids": ids, "checksum": _sum(ids, features, images)})
    try:
        make_folder(path.parent)
        write_atomic(
            path, lambda temporary: save_file({"features": features, "images": images}, temporary, {"annofree": about})
        )
    except (InputError, OSError) as problem:
        return str(problem)
    return ""


def _sum(ids: list[str], features: Tensor, images: Tensor) -> int:
    """The checksum of all that is kept."""
    parts = (json.dumps(ids).encode(), features.contiguous().view(torch.uint8).numpy().tobytes(), images.numpy().tobytes())
    return zlib.crc32(b"".join(parts))
