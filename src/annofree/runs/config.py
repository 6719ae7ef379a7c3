"""Run settings and encoding sources."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from annofree.errors import InputError
from annofree.runs.batch_encoder import EncodeResult, Entry
from annofree.runs.clock import StageTimer
from annofree.structures import Vocabulary

__all__ = ["STRETCH", "EncodingSource", "RunConfig", "name_encodings_file", "size_chunks"]

STRETCH = 64
"""Inputs in a stretch, about: what a kill can cost, and what ``--shard`` deals out."""


class EncodingSource(Protocol):
    """Whoever brings encodings of images, batch by batch: from the images, or from what was kept of them."""

    @property
    def clock(self) -> StageTimer:
        """The clock it counts on."""
        ...

    @property
    def batch_size(self) -> int:
        """Images in a batch."""
        ...

    def encode_batches(self, entries: Sequence[Entry]) -> Iterator[list[EncodeResult]]:
        """What became of the images, in order."""
        ...


@dataclass(frozen=True)
class RunConfig:
    """Settings of a run.

    Raises InputError for no images, and for a shard that there is not.
    """

    # the folder of the run
    out: Path
    # of all images, in order
    ids: Sequence[str]
    # the folder that ids count from
    root: Path
    # the classes
    vocabulary: Vocabulary
    # what has to be the same for the run to resume, beside the images, as JSON holds it
    settings: Mapping[str, Any]
    # tasks: instance, semantic, panoptic
    wanted: tuple[str, ...] = ("instance",)
    # classes that are no instances, for panoptic maps
    stuff: tuple[str, ...] = ()
    # which shard of how many (i, n), i from 1: of n chunks it takes the i-th
    part: tuple[int, int] = (1, 1)
    # images in a chunk, in a run that begins
    stretch: int = STRETCH
    # instances that score less are left out
    min_score: float = 0.0
    # whether what was found is drawn over the images
    overlays: bool = True
    # whether encodings are kept, for ``relabel``
    keep: bool = False
    # that encodings are made on
    device: str = "cpu"

    def __post_init__(self) -> None:
        i, n = self.part
        if not 1 <= i <= n:
            raise InputError(f"expected a part such as 1/4, from 1 to the number of parts, got {i}/{n}")
        if not self.ids:
            raise InputError("expected images, found none in what was given; name another folder")

    @property
    def watched(self) -> bool:
        """Whether images are looked after: not where another run saw them."""
        return "relabelled" not in self.settings

    @property
    def resume_key(self) -> dict[str, Any]:
        """All that has to be the same, beside the images and the models."""
        part = "{}/{}".format(*self.part)
        own = {"classes": self.vocabulary.synonyms, "tasks": self.wanted, "stuff": self.stuff, "min_score": self.min_score}
        more = {"root": str(self.root), "part": part, "overlays": self.overlays, "encodings": self.keep}
        return dict(json.loads(json.dumps({**self.settings, **own, **more})))


def size_chunks(batch_size: int) -> int:
    """The smallest multiple of a batch that has ``STRETCH`` images or more.

    >>> size_chunks(4), size_chunks(48), size_chunks(200)
    (64, 96, 200)
    """
    return -(-STRETCH // batch_size) * batch_size


def name_encodings_file(out: Path, shard: int) -> Path:
    """The file of the stored encodings of a shard."""
    return out / "encodings" / f"{shard:05}.safetensors"
