"""The references of ReCo: for each name one feature that the images of its archive share, made once and kept beside them.

    the best K images of a name -> squares -> cells of a DINO   -> seeds -> reference (D)
                                        '-> CLIP, as the name   -> weights of cells, less where a context is

K images of P cells, D embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, build_unknown_error
from annofree.features.preprocessing import resize_pixels
from annofree.io.atomic import make_folder, write_atomic
from annofree.ops.co_segmentation import Blocks, compute_reference
from annofree.ops.grids import resize_maps
from annofree.protocols import DensePath, SelfSupervised, VisionLanguage
from annofree.retrieval.archive import Archive
from annofree.structures import FeatureMap, Image, Vocabulary

__all__ = ["Features", "Gathered", "ReferenceArchive", "ReferenceMaker", "ReferenceSettings", "TokenReader", "open_references"]

Features = Literal["tokens", "keys"]
"""Which features of a DINO cells are compared by."""

_FOLDER = "references"  # in that of the archive
_LEAST = 2  # images that can share something


class TokenReader(Protocol):
    """A vision transformer that gives its last tokens, too."""

    def extract_tokens(self, images: Sequence[Image]) -> list[FeatureMap]:
        """Patch tokens after the final norm, (D, h, w) per image."""
        ...


@dataclass(frozen=True)
class ReferenceSettings:
    """How references are made.  Raises InputError for fewer than two images, and for a side of less than 32 px."""

    # images of each name, those that fit it best
    k: int = 50
    # side in px of the squares that images are cut to, from the middle, after their short side is brought to it
    side: int = 224
    # what cells are compared by: the ``tokens`` after the last norm, or the ``keys`` of the last attention
    features: Features = "tokens"
    # of the cosine of a cell and a name, before the sigmoid that is the cell's weight; 0 for no guidance
    guidance: float = 10.0
    # names whose references are looked for first, one after the other, and whose cells then weigh less for all others; those
    # that the archive has no images of are passed over
    contexts: tuple[str, ...] = ("tree", "sky", "building", "road", "person")
    # which cells are those of an image (``ops/co_segmentation.py``): its own, or as released
    blocks: Blocks = "image"

    def __post_init__(self) -> None:
        object.__setattr__(self, "contexts", tuple(self.contexts))
        if self.k < _LEAST or self.side < 32:
            raise InputError(f"expected k from {_LEAST} images and a side from 32 px, got {self.k} and {self.side}")


@dataclass(frozen=True)
class ReferenceArchive:
    """An archive of images by name, and the ``folder`` where references of its names are kept."""

    folder: Path
    archive: Archive

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The archive's names, by what they are in small letters."""
        return {name.lower(): name for name in reversed(self.archive.names)}

    @property
    def provenance(self) -> dict[str, Any]:
        """The names, how many images there are, and how they were retrieved."""
        held = {k: v for k, v in self.archive.about.items() if k != "index"}
        return {"names": list(self.archive.names), "pictures": len(self.archive), "about": held}

    def find_name(self, words: Sequence[str]) -> str | None:
        """The archive's name for the first of a class's words that it has."""
        return next((self.names[word.lower()] for word in words if word.lower() in self.names), None)

    def check_name(self, words: Sequence[str]) -> str:
        """The archive's name for a class; raises InputError where it has none, and without enough images of it."""
        name = self.find_name(words)
        if name is None:
            said = build_unknown_error("name of the archive", words[0], self.archive.names)
            raise InputError(f"{said}; retrieve images of it, too: `annofree retrieve INDEX --classes ... --out {self.folder}`")
        found = len(self.archive.members[name])
        if found < _LEAST:
            raise InputError(
                f"expected {_LEAST} images of {name!r} at least in {self.folder}, to find what they share, got {found}; "
                "retrieve with a larger k, or from more images"
            )
        return name


def open_references(folder: Path, device: str = "cpu") -> ReferenceArchive:
    """Open the folder of an archive; raises InputError where there is none.

    >>> open_references(Path("examples"))
    Traceback (most recent call last):
    annofree.errors.InputError: expected an archive's archive.json in examples, ...
    """
    return ReferenceArchive(folder, Archive.read(folder))


@dataclass(frozen=True, eq=False)
class Gathered:
    """What is read of the images of a name: cells of ``features`` (K, D, P), and their ``likeness`` (K, P) to the name."""

    features: Tensor
    likeness: Tensor


class ReferenceMaker:
    """Makes and keeps references of an archive's names, by a ``clip`` read along a ``path`` and a ``dino``.

    A reference that is there is read: it is told from others by the archive's images, the settings and the models.  Where the
    archive's folder cannot be written, references are kept in memory alone.
    """

    def __init__(
        self, home: ReferenceArchive, clip: VisionLanguage, path: DensePath, dino: SelfSupervised, settings: ReferenceSettings
    ) -> None:
        self.home, self.clip, self.path, self.dino, self.settings = home, clip, path, dino, settings
        self._made: dict[tuple[str, ...], Tensor] = {}

    @cached_property
    def contexts(self) -> tuple[str, ...]:
        """The contexts that the archive has images of, in order."""
        known = [self.home.find_name([context]) for context in self.settings.contexts]
        return tuple(n for n in dict.fromkeys(known) if n is not None and len(self.home.archive.members[n]) >= _LEAST)

    def find_reference(self, words: Sequence[str]) -> Tensor:
        """The unit reference (D) of a class that is called by some words; made unless it is there.

        Raises InputError for a class that the archive has no name for, or too few images of, and ImageError for an image that
        cannot be read.
        """
        asked = tuple(words)
        if asked not in self._made:
            name = self.home.check_name(asked)
            key = self._condense(name, asked)
            kept = self._read(key)
            self._made[asked] = self._make(key, name, asked) if kept is None else kept
        return self._made[asked]

    def read_features(self, images: Sequence[Image]) -> list[FeatureMap]:
        """The features (D, h, w) that cells of images are compared by."""
        if self.settings.features == "keys":
            return self.dino.extract_keys(images)
        if not hasattr(self.dino, "extract_tokens"):
            raise InputError("expected a DINO that gives its last tokens, got one that does not; set features to 'keys'")
        found: list[FeatureMap] = self.dino.extract_tokens(images)
        return found

    def gather(self, name: str, words: Sequence[str]) -> Gathered:
        """Read the images of a name, one after the other."""
        text = self.clip.encode_text(Vocabulary.from_entries([tuple(words)]))[0]
        features, likeness = [], []
        for member in self.home.archive.members[name][: self.settings.k]:
            square = cut_square(self.home.archive.open(member.id), self.settings.side)
            cells, told = self.read_features([square])[0].values, self.clip.encode_dense([square], self.path)[0].values
            cosine = torch.einsum("dhw,d->hw", told, text.to(told))
            features.append(cells.flatten(1))
            likeness.append(resize_maps(cosine[None], (cells.shape[1], cells.shape[2])).flatten().to(cells))
        return Gathered(torch.stack(features), torch.stack(likeness))

    def _make(self, key: str, name: str, words: Sequence[str]) -> Tensor:
        gathered = self.gather(name, words)
        weights = (
            (self.settings.guidance * gathered.likeness).sigmoid() if self.settings.guidance else gathered.likeness * 0 + 1
        )
        units = F.normalize(gathered.features, dim=1)
        for context in self._list_earlier(name):
            weights = weights * (1 - torch.einsum("kdp,d->kp", units, self.find_reference([context]).to(units)).sigmoid())
        reference = compute_reference(gathered.features, weights, self.settings.blocks).cpu()
        self._keep(key, reference)
        return reference

    def _list_earlier(self, name: str) -> tuple[str, ...]:
        """The contexts that weigh on a name: all, and for a context those before it."""
        return self.contexts[: self.contexts.index(name)] if name in self.contexts else self.contexts

    def _condense(self, name: str, words: Sequence[str]) -> str:
        """Condense all that a reference follows from into one key."""
        members = {
            n: [(m.id, self.home.archive.places[m.id]) for m in self.home.archive.members[n][: self.settings.k]]
            for n in (*self._list_earlier(name), name)
        }
        held = [name, list(words), members, vars(self.settings), self.path, self.clip.provenance, self.dino.provenance]
        return hashlib.sha256(json.dumps(held, sort_keys=True, default=str).encode()).hexdigest()[:24]

    def _read(self, key: str) -> Tensor | None:
        """A reference that was kept, None where there is none that can be read."""
        try:
            reference = load_file(self.home.folder / _FOLDER / f"{key}.safetensors")["reference"]
        except (OSError, SafetensorError, KeyError):
            return None
        return reference if reference.ndim == 1 and bool(torch.isfinite(reference).all()) else None

    def _keep(self, key: str, reference: Tensor) -> None:
        folder = self.home.folder / _FOLDER
        try:
            make_folder(folder)
            write_atomic(folder / f"{key}.safetensors", lambda path: save_file({"reference": reference.contiguous()}, path))
        except (InputError, OSError):
            return  # somebody else's folder: the reference is in memory


def cut_square(image: Image, side: int) -> Image:
    """Bring the short side of an image to ``side`` px, and cut the square in its middle.

    >>> cut_square(Image(np.zeros((40, 80, 3), np.uint8), "a"), 32).size
    (32, 32)
    """
    height, width = (max(side, round(n * side / min(image.size))) for n in image.size)
    pixels = torch.tensor(image.pixels).permute(2, 0, 1)[None].float() / 255
    resized = (resize_pixels(pixels, (height, width), "bilinear")[0] * 255).round().byte().permute(1, 2, 0)
    top, left = (height - side) // 2, (width - side) // 2
    return Image(np.ascontiguousarray(resized[top : top + side, left : left + side].numpy()), image.id)
