"""Embeddings of whole images, a batch at a time: here, or wherever this is sent to."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from annofree.errors import ImageError
from annofree.io.image_checksums import measure_image
from annofree.io.image_sources import read_images
from annofree.structures import FloatArray, Image

__all__ = ["Embed", "EmbeddedBatch", "Embedder", "WholeEncoder", "embed_here"]


class WholeEncoder(Protocol):
    """Whoever turns a whole image into one unit vector: any CLIP."""

    @property
    def dimension(self) -> int:
        """D."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """Name and hashes of the weights, and how they are used."""
        ...

    def encode_image(self, images: Sequence[Image]) -> Tensor:
        """One unit feature an image, (B, D)."""
        ...


@dataclass(frozen=True, eq=False)
class EmbeddedBatch:
    """What became of some inputs that follow each other."""

    # of those that have an embedding
    ids: Sequence[str]
    # why each of the others has none
    failed: Mapping[str, str]
    # unit vectors (n, D), of ``ids``
    vectors: npt.NDArray[np.float16]
    # bytes and checksums of the images, of those that can be told
    known: Mapping[str, list[int]]

    @property
    def inputs(self) -> int:
        """How many there were."""
        return len(self.ids) + len(self.failed)


Embed = Callable[[Iterable[list[str]], Callable[[EmbeddedBatch], EmbeddedBatch]], Generator[EmbeddedBatch, None, None]]
"""Embeds shards of ids, batch by batch, in order; calls the second argument with each batch as soon as it is there."""


@dataclass(frozen=True)
class Embedder:
    """Embeds images below ``root``, ``batch_size`` at a time, while ``threads`` read the next ones."""

    root: Path
    clip: WholeEncoder
    batch_size: int
    threads: int

    def embed(self, ids: Sequence[str]) -> Iterator[EmbeddedBatch]:
        """Embed the images of some ids, in order; enter ``silence_pillow`` around this."""
        for images, problems in self._batches(ids):
            vectors, refused = self._embedded(images)
            kept = [image.id for image in images if image.id not in refused]
            known = {id: found for id in kept if (found := measure_image(f"{self.root}/{id}"))}  # noqa: A001
            yield EmbeddedBatch(kept, problems | refused, vectors, known)

    def _batches(self, ids: Sequence[str]) -> Iterator[tuple[list[Image], dict[str, str]]]:
        """Images, ``batch_size`` at a time, with those that could not be read on the way."""
        images: list[Image] = []
        problems: dict[str, str] = {}
        entries = ((id, str(self.root / id)) for id in ids)  # noqa: A001
        for id, _, image in read_images(entries, self.threads, ahead=self.batch_size):  # noqa: A001
            if isinstance(image, ImageError):
                problems[id] = str(image)
            else:
                images.append(image)
            if len(images) == self.batch_size:
                yield images, problems
                images, problems = [], {}
        if images or problems:
            yield images, problems

    def _embedded(self, images: list[Image]) -> tuple[npt.NDArray[np.float16], dict[str, str]]:
        """Unit vectors (n, D) of the images that have one; of an image that has none, why."""
        vectors = self._whole(images)
        sound = np.asarray(np.isfinite(vectors).all(axis=1), bool)
        unsound = np.flatnonzero(~sound).tolist()
        refused = {images[i].id: f"the model makes no finite embedding of {images[i].id}" for i in unsound}
        return vectors[sound].astype(np.float16), refused

    def _whole(self, images: list[Image]) -> FloatArray:
        if not images:
            return np.zeros((0, self.clip.dimension), np.float32)
        with torch.inference_mode():
            return np.asarray(self.clip.encode_image(images).float().cpu().numpy(), np.float32)


def embed_here(
    embedder: Embedder, shards: Iterable[list[str]], arrived: Callable[[EmbeddedBatch], EmbeddedBatch]
) -> Generator[EmbeddedBatch, None, None]:
    """Embed one shard after the other in this process."""
    for ids in shards:
        for batch in embedder.embed(ids):
            yield arrived(batch)
