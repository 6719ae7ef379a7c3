"""NamedMask (Shin et al., CVPRW 2023): a network that learned the names of an archive labels each pixel with one of them.

    image -> DeepLabv3+ -> logits of the background and of each name -> best of each pixel -> (its connected regions)

It was trained on retrieved images and their pseudo-masks (``annofree train namedmask``), and knows no other names.  K names of
the network, h w cells, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from annofree.clues.background import Background
from annofree.detections.painting import (
    Draw,
    average_over_regions,
    compute_confidence,
    convert_regions,
    find_strongest,
    number_components,
    resize_to_pixels,
)
from annofree.errors import InputError
from annofree.features.preprocessing import map_by_size, preprocess_image
from annofree.hub.cards import Card, hash_file
from annofree.methods.known_names import explain_unknown_name, normalize_name
from annofree.methods.variants import choose_settings
from annofree.ops.grids import fit_size
from annofree.ops.regions import Connectivity
from annofree.protocols import Described
from annofree.structures import BACKGROUND, Classes, Detections, Image, LabelMap, Vocabulary

__all__ = [
    "VARIANTS",
    "LabelNetwork",
    "NamedMask",
    "NamedMaskEncoding",
    "NamedMaskNetwork",
    "NamedMaskSettings",
    "open_namedmask",
]

_LEAST = 32  # px of a side that the network reads: a cell of its coarsest stage


class NamedMaskNetwork(Described, Protocol):
    """A network that tells the names apart that it was trained on."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it was trained on."""
        ...

    @property
    def side(self) -> int:
        """The short side in px that its images should have, 0 for any."""
        ...

    def predict_logits(self, images: Sequence[Image], side: int = 0) -> Sequence[Tensor]:
        """Logits (1 + K, h, w) of the background and the names, per image, whose cells cover it evenly."""
        ...


@dataclass(frozen=True)
class NamedMaskSettings:
    """What may be chosen.  Raises InputError for a side or an area below 0."""

    # the short side in px at which images are read, 0 as they are (released), None what the network is best at
    side: int | None = None
    # of the regions of one name: 4 or 8 neighbors of a pixel
    connectivity: Connectivity = 8
    # px of an instance at least
    min_area: int = 0
    # instances an image, the strongest; 100 as COCO counts them
    most: int = 100

    def __post_init__(self) -> None:
        for name in ("side", "min_area"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"expected {name} in px, 0 for none, got {getattr(self, name)}")


VARIANTS: Mapping[str, NamedMaskSettings] = MappingProxyType({"default": NamedMaskSettings()})


@dataclass(frozen=True, eq=False)
class NamedMaskEncoding:
    """All that the network says of an image of ``size`` (H, W): ``logits`` (1 + K, h, w), those of the background first."""

    size: tuple[int, int]
    logits: Tensor


class NamedMask:
    """Names in, a label map or its regions out, by one trained ``network``; of a name that it was not trained on, nothing.

    What the network takes for one of its other names is background.  Raises InputError for an unknown variant.
    """

    def __init__(self, network: NamedMaskNetwork, settings: NamedMaskSettings | str = "default") -> None:
        self.settings = choose_settings("namedmask", settings, VARIANTS)
        self.network = network
        self._background = Background("threshold")  # of which the list of rows alone is taken

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, and the network with its hashes, tier and names."""
        return {"method": "namedmask", "settings": asdict(self.settings), "models": [self.network.provenance]}

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these on the same network can share an encoding when their keys are equal."""
        return "namedmask", self._side

    @property
    def _side(self) -> int:
        return self.network.side if self.settings.side is None else self.settings.side

    def remarks(self, classes: Classes) -> list[str]:
        """Say which of these names it was not trained on, and the nearest that it was."""
        vocabulary = Vocabulary.of(classes)
        known = {normalize_name(name) for name in self.network.names} | {BACKGROUND}
        strange = [words[0] for words in vocabulary.synonyms if not known & set(map(normalize_name, words))]
        return [explain_unknown_name("network", name, self.network.names) for name in strange]

    def encode(self, images: Sequence[Image]) -> list[NamedMaskEncoding]:
        """Run the network; one encoding an image, in order."""
        if not images:
            return []
        logits = self.network.predict_logits(images, self._side)
        return [NamedMaskEncoding(image.size, given) for image, given in zip(images, logits, strict=True)]

    def semantic(self, image: Image | NamedMaskEncoding, classes: Classes) -> LabelMap:
        """Name every pixel of an image, or of an encoding of it: the highest logit wins, of all that the network knows."""
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        labels, _ = self._label(encoding, Vocabulary.of(classes))
        return labels

    def instances(self, image: Image | NamedMaskEncoding, classes: Classes) -> Detections:
        """Take the connected regions of the label map for instances, scored by their pixels' mean probability."""
        encoding, vocabulary = self.encode([image])[0] if isinstance(image, Image) else image, Vocabulary.of(classes)
        labels, values = self._label(encoding, vocabulary)
        regions, owner = number_components(labels, self.settings.connectivity)
        sure = compute_confidence(self._drawing(encoding), len(encoding.logits), encoding.size, values, 1.0)
        first = len(labels.names) - len(vocabulary)  # 1 where a background was put before the names
        scores = average_over_regions(regions, len(owner), [sure])[:, 0]
        ids = [k - first for k in owner]
        return convert_regions(regions, ids, scores, vocabulary.names, min_area=self.settings.min_area, most=self.settings.most)

    def _drawing(self, encoding: NamedMaskEncoding) -> Draw:
        return lambda part: resize_to_pixels(encoding.logits[part], encoding.size)

    def _label(self, encoding: NamedMaskEncoding, vocabulary: Vocabulary) -> tuple[LabelMap, Tensor]:
        """The label map, and the highest logit of each pixel (H, W)."""
        asked = self._background.list_rows(vocabulary)
        best, values = find_strongest(self._drawing(encoding), len(encoding.logits), encoding.size)
        words = {
            normalize_name(w): k for k, ws in zip(reversed(asked.owner), reversed(asked.rows.synonyms), strict=True) for w in ws
        }
        owner = [asked.background, *(words.get(normalize_name(name), asked.background) for name in self.network.names)]
        labels = np.array(owner, np.int32)[best.cpu().numpy()]
        return LabelMap(labels, asked.names, asked.background), values


class LabelNetwork:
    """A trained DeepLabv3+ as a method asks it; ``weights`` say what it is."""

    def __init__(self, network: Any, weights: Mapping[str, Any], device: str = "cpu", side: int = 0) -> None:
        self.network, self.device, self._own = network, device, side
        self._weights = dict(weights)
        self._mean, self._std = (torch.tensor(v, device=device) for v in (network.config.mean, network.config.std))

    @property
    def names(self) -> tuple[str, ...]:
        """What it was trained on."""
        return tuple(self.network.config.names)

    @property
    def side(self) -> int:
        """The short side in px that its images should have, 0 for any."""
        return self._own

    @property
    def provenance(self) -> dict[str, Any]:
        """Name, hashes, license and tier of the weights, and the names."""
        return {**self._weights, "trained_on": list(self.names)}

    @torch.inference_mode()
    def predict_logits(self, images: Sequence[Image], side: int = 0) -> list[Tensor]:
        """Logits (1 + K, h, w) of the background and the names, per image, whose cells cover it evenly."""

        def choose_size(image: Image) -> tuple[int, int]:
            height, width = fit_size(image.size, max(side, _LEAST), 1) if side else image.size
            return max(height, _LEAST), max(width, _LEAST)

        def see(same: list[Image], size: tuple[int, int]) -> list[Tensor]:
            pixels = torch.cat([preprocess_image(i, size, self._mean, self._std, "bilinear") for i in same])
            return list(self.network(pixels).float())

        return map_by_size(images, choose_size, see)


def open_namedmask(folder: Path, device: str = "cpu") -> LabelNetwork:
    """Load the network of a folder with namedmask.json.

    Raises MissingError where there is none, InputError where it cannot be read or is not what its card says.
    """
    from annofree.detectors.deeplab.weights import load_namedmask

    network = load_namedmask(folder, device)
    if (folder / "card.json").is_file():
        card = Card.read(folder)
        return LabelNetwork(network, card.to_provenance(), device, int(card.use.get("side", 0)))
    hashes = {path.name: hash_file(path) for path in sorted(folder.glob("*.safetensors"))}
    return LabelNetwork(network, {"name": folder.resolve().name, "sha256": hashes}, device)
