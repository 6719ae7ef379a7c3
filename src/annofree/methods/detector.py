"""A trained detector as a method: boxes and masks of the names that it learned, all found at once, then those asked for told.

    image -> network -> scored masks of all names that it knows --> those of the names asked for

What it finds depends on no name that is asked, so it is done once, in ``encode``, and kept as run lengths.  N things found,
K names asked for, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from annofree.detections.nms import suppress
from annofree.detectors.config import OBJECT
from annofree.errors import InputError
from annofree.hub.cards import Card, hash_file
from annofree.methods.known_names import explain_unknown_name, match_names
from annofree.methods.variants import choose_settings
from annofree.ops.rle import compute_rle_boxes, pack_counts, unpack_counts
from annofree.protocols import DetectorBackend, RawDetections
from annofree.structures import Classes, Detections, Image, IntArray, Vocabulary

__all__ = [
    *("VARIANTS", "Detector", "DetectorEncoding", "DetectorSettings", "DetectorInfo"),
    *("read_card", "open_detector"),
]


class DetectorInfo(NamedTuple):
    """The ``names`` that a network knows, what its ``weights`` are (name, hashes, tier, license), and its ``device``."""

    names: tuple[str, ...]
    weights: Mapping[str, Any]
    device: str = "cpu"


@dataclass(frozen=True)
class DetectorSettings:
    """What may be chosen once a network has looked.

    The network has suppressed by its boxes already.  Raises InputError for a score outside of 0 .. 1 and for no detections.
    """

    # what scores less, in 0 .. 1, is left out; 0.05 as in Detectron2
    min_score: float = 0.05
    # detections per image, the strongest of the rest; 100 as COCO counts them
    most: int = 100
    # mask IoU of two of one name above which the weaker goes; 1 keeps all (ours)
    within: float = 1.0
    # the same of two of different names (ours)
    across: float = 1.0
    # part of a mask in a stronger one of its name above which it goes; 1 keeps all (ours)
    inside: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.min_score <= 1 and self.most >= 1):
            raise InputError(f"expected min_score in 0 .. 1 and most from 1, got {self.min_score} and {self.most}")


VARIANTS: Mapping[str, DetectorSettings] = MappingProxyType(
    {"default": DetectorSettings(), "all": DetectorSettings(min_score=0.0), "apart": DetectorSettings(across=0.8, inside=0.8)}
)
"""``all`` keeps everything, as average precision wants it; ``apart`` gives a thing one name, and no part of it another mask."""


@dataclass(frozen=True, eq=False)
class DetectorEncoding:
    """All that was found in an image of ``size`` (H, W), strongest first.

    ``labels`` (N) int64 into the names of the network, ``scores`` (N) float32, and ``counts`` (N), the masks as COCO's
    compressed run lengths.
    """

    size: tuple[int, int]
    labels: Tensor
    scores: Tensor
    counts: tuple[str, ...]

    @classmethod
    def of(cls, found: Detections) -> DetectorEncoding:
        """Keep detections, in their order."""
        ids, scores = torch.from_numpy(found.class_ids), torch.from_numpy(found.scores)
        return cls(found.size, ids, scores, pack_counts(found.rles))

    def select(self, ids: IntArray, kept: IntArray, names: tuple[str, ...]) -> Detections:
        """Those of some places as detections of other ``names``, by ``ids`` (N) into these, with the box around each mask."""
        rles = unpack_counts((self.counts[i] for i in kept), self.size)
        return Detections(self.size, names, ids[kept], self.scores.numpy()[kept], compute_rle_boxes(rles), rles)


class Detector:
    """Names in, those of a trained ``network``'s instances out; ``origin`` says which names it knows.

    A network that knows "object" alone tells no names apart: it gives all that it finds the one name that is asked for.
    Raises InputError for an unknown variant.
    """

    def __init__(self, network: DetectorBackend, origin: DetectorInfo, settings: DetectorSettings | str = "default") -> None:
        self.settings = choose_settings("detector", settings, VARIANTS)
        self.network, self.origin = network, origin

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings, and the network with its hashes, tier and names."""
        model = {**self.origin.weights, "trained_on": list(self.origin.names)}
        return {"method": "detector", "settings": asdict(self.settings), "models": [model]}

    @property
    def encoding_key(self) -> tuple[str, ...]:
        """Two of these on the same network can share an encoding: no setting matters before names are asked."""
        return ("detector",)

    def remarks(self, classes: Classes) -> list[str]:
        """Say which of these names it was not trained on, and the nearest that it was.

        Raises InputError where a network that tells no names apart is asked for several.
        """
        vocabulary = Vocabulary.of(classes)
        known = set(self._asked(vocabulary))
        if self.origin.names == (OBJECT,) and vocabulary.names != (OBJECT,):
            return [f"the detector tells no names apart: whatever it finds is called {vocabulary.names[0]!r}"]
        return [
            explain_unknown_name("detector", name, self.origin.names)
            for k, name in enumerate(vocabulary.names)
            if k not in known
        ]

    def encode(self, images: Sequence[Image]) -> list[DetectorEncoding]:
        """Run the network; one encoding an image, in order."""
        if not images:
            return []
        pixels = [torch.tensor(image.pixels, device=self.origin.device).permute(2, 0, 1).float() / 255 for image in images]
        with torch.inference_mode():
            return [self._encoding(found) for found in self.network.detect(pixels)]

    def _encoding(self, found: RawDetections) -> DetectorEncoding:
        masks, labels, scores = (part.cpu().numpy() for part in (found.masks, found.labels, found.scores))
        kept = Detections.from_masks(masks, labels, np.clip(scores, 0, 1), self.origin.names)
        return DetectorEncoding.of(kept)

    def instances(self, image: Image | DetectorEncoding, classes: Classes) -> Detections:
        """Tell what was found of these names in an image, or in an encoding of it; nothing of a name that it does not know.

        Raises InputError as ``remarks`` does.
        """
        vocabulary = Vocabulary.of(classes)
        asked = np.array(self._asked(vocabulary), np.int64)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        ids, scores, s = asked[encoding.labels.numpy()], encoding.scores.numpy(), self.settings
        found = encoding.select(ids, np.flatnonzero((ids >= 0) & (scores >= s.min_score)), vocabulary.names)
        return suppress(found, within=s.within, across=s.across, inside=s.inside)[: s.most]

    def _asked(self, vocabulary: Vocabulary) -> list[int]:
        """For each name of the network which of the names asked for it is, by any of their words, -1 for none."""
        own = self.origin.names
        if own == (OBJECT,):
            if len(vocabulary) > 1:
                raise InputError(
                    f"expected one name, such as {OBJECT}, for this detector tells none apart, got {len(vocabulary)}; ask "
                    "for one, or train a detector on labels with names"
                )
            return [0]
        return match_names(own, vocabulary)


def read_card(folder: Path) -> Card:
    """The card of a detector's folder; one without a card may be anybody's, and of a person's labels."""
    if (folder / "card.json").is_file():
        return Card.parse(folder / "card.json")
    return Card("unknown-detector", "Detector", "S4", "unknown", "unknown", "unknown", {}, kind="segmenter")


def open_detector(folder: Path, device: str = "cpu", card: Card | None = None) -> tuple[DetectorBackend, DetectorInfo]:
    """Load the network of a folder with detector.json; ``card`` says what it is, where the folder has no card.json.

    Raises MissingError where there is none, InputError where it cannot be read or is not what its card says.
    """
    from annofree.detectors.checkpoint import load_detector

    known = card or (Card.read(folder) if (folder / "card.json").is_file() else None)
    network = load_detector(folder, device)
    weights = known.to_provenance() if known else _unnamed(folder)
    return network, DetectorInfo(tuple(network.config.names), weights, device)


def _unnamed(folder: Path) -> dict[str, Any]:
    hashes = {path.name: hash_file(path) for path in sorted(folder.glob("*.safetensors"))}
    return {"name": folder.resolve().name, "sha256": hashes}
