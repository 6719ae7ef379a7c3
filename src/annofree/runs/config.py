"""What a run is asked for, and where its encodings come from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from annofree.errors import InputError
from annofree.runs.batch_encoder import Encoded, Entry
from annofree.runs.clock import Clock
from annofree.structures import Vocabulary

__all__ = ["STRETCH", "EncodingSource", "Request", "encodings_file", "stretch_of"]

STRETCH = 64
"""Inputs in a stretch, about: what a kill can cost, and what ``--shard`` deals out."""


class EncodingSource(Protocol):
    """Whoever brings encodings of pictures, batch by batch: from the pictures, or from what was kept of them."""

    @property
    def clock(self) -> Clock:
        """Where it counts its seconds."""
        ...

    @property
    def batch_size(self) -> int:
        """Pictures in a batch."""
        ...

    def batches(self, entries: Sequence[Entry]) -> Iterator[list[Encoded]]:
        """What became of the pictures, in order."""
        ...


@dataclass(frozen=True)
class Request:
    """What a run is asked for.

    ``settings`` are what has to be the same for it to go on, as JSON holds them, beside the pictures: all ``ids``, in order,
    below ``root``.  Of their stretches it takes every n-th, from the i-th: ``part`` (i, n), i from 1.  ``stretch`` is how many
    pictures a stretch has, in a run that begins.  Detections under ``min_score`` are left out.  ``keep`` keeps encodings,
    which were made on ``device``.
    """

    out: Path
    ids: Sequence[str]
    root: Path
    vocabulary: Vocabulary
    settings: Mapping[str, Any]
    wanted: tuple[str, ...] = ("instance",)
    stuff: tuple[str, ...] = ()
    part: tuple[int, int] = (1, 1)
    stretch: int = STRETCH
    min_score: float = 0.0
    overlays: bool = True
    keep: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        i, n = self.part
        if not 1 <= i <= n:
            raise InputError(f"expected a part such as 1/4, from 1 to the number of parts, got {i}/{n}")
        if not self.ids:
            raise InputError("expected pictures, found none in what was given; name another folder")

    @property
    def asked(self) -> dict[str, Any]:
        """All that has to be the same, beside the pictures and the models."""
        part = "{}/{}".format(*self.part)
        own = {"classes": self.vocabulary.synonyms, "tasks": self.wanted, "stuff": self.stuff, "min_score": self.min_score}
        more = {"root": str(self.root), "part": part, "overlays": self.overlays, "encodings": self.keep}
        return dict(json.loads(json.dumps({**self.settings, **own, **more})))


def stretch_of(batch_size: int) -> int:
    """The smallest multiple of a batch that has ``STRETCH`` pictures or more.

    >>> stretch_of(4), stretch_of(48), stretch_of(200)
    (64, 96, 200)
    """
    return -(-STRETCH // batch_size) * batch_size


def encodings_file(out: Path, shard: int) -> Path:
    """Where the encodings of a shard are kept."""
    return out / "encodings" / f"{shard:05}.safetensors"
