"""Which steps come after a method, and in which order: regions, SAM, rank, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annofree.detections.prompting import Redraw
from annofree.detections.verification import Naming
from annofree.detectors.config import OBJECT
from annofree.errors import InputError
from annofree.methods.class_agnostic.named_masks import NamedMasks, NamedMasksSettings
from annofree.methods.components import Models
from annofree.methods.steps.encoding_key import find_encoding_key
from annofree.methods.steps.live_masks import LiveMasks
from annofree.methods.steps.ranking import Rank, Ranked
from annofree.methods.steps.redrawing import Redrawn
from annofree.methods.steps.regions import LabelRegions
from annofree.methods.tuning import read_policy
from annofree.methods.variants import change_settings
from annofree.protocols import Encoding, Segmenter
from annofree.structures import Classes, Detections, Image, Vocabulary

__all__ = ["Steps", "take_steps"]


@dataclass(frozen=True)
class Steps:
    """What comes after a method; as it stands, nothing."""

    # the connected regions of the method's label maps are its instances
    regions: bool = False
    # how SAM draws each instance anew: not, by its ``box``, or then again by the box of what it drew and its center
    redraw: Redraw = "none"
    # what ranks them: their ``own`` score, the mean ``objectness`` of their pixels, or ``both``
    rank: Rank = "own"
    # whether the method tells no names apart, as a detector that was trained on one; class-agnostic ones need not say so
    unnamed: bool = False
    # CLIP names them, with these changes of the settings of ``methods/class_agnostic/named_masks.py``; None leaves names
    name: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _FirstName:
    """A ``method`` that tells no names apart, asked for many: all that it finds has the first, and only places are scored."""

    method: Segmenter

    @property
    def provenance(self) -> dict[str, Any]:
        return self.method.provenance

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        return find_encoding_key(self.method)

    def remarks(self, classes: Classes) -> list[str]:
        return []

    def encode(self, images: Sequence[Image]) -> list[Encoding]:
        return self.method.encode(images)

    def instances(self, image: Image | Encoding, classes: Classes) -> Detections:
        found = self.method.instances(image, OBJECT)
        return Detections(found.size, Vocabulary.of(classes).names, found.class_ids, found.scores, found.boxes, found.rles)


def take_steps(method: Any, steps: Steps, models: Models, *, agnostic: bool = False) -> Any:
    """Return a method with steps after it; ``models`` give the SAM, the CLIP and the objectness of these.

    One that is ``agnostic``, and stays without names, answers any names by the first of them.  Raises InputError for a setting
    of naming that is not there, and where there is no objectness to rank by.
    """
    if steps.regions:
        method = LabelRegions(method)
    if steps.redraw != "none":
        method = Redrawn(method, models.sam, steps.redraw)
    if steps.rank != "own":
        if models.objectness is None:
            raise InputError("expected an objectness to rank by, got none; name a source, such as found")
        method = Ranked(method, models.objectness, steps.rank)
    if steps.name is not None:
        own = NamedMasksSettings(naming=Naming(read_policy(models.preset.name, "named_masks")["scale"]))
        settings = change_settings(own, steps.name)
        return NamedMasks(models.clip, LiveMasks(method), settings, None if settings.refine == "none" else models.sam)
    return _FirstName(method) if agnostic else method
