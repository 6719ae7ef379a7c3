"""Embedding an archive by the workers that Ray has: each loads the model, and sends the embeddings to this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from annofree.io.callbacks import Callbacks
from annofree.io.images import silence_pillow
from annofree.retrieval.embed import EmbeddedBatch, Embedder, WholeEncoder
from annofree.runs.engines.ray_pool import Cluster, RayPool
from annofree.runs.environment import describe_environment
from annofree.structures import Image

__all__ = ["ClipElsewhere", "IndexEngine"]


@dataclass(frozen=True)
class ClipElsewhere:
    """What an index says of its model, which is loaded by workers alone."""

    dimension: int
    provenance: dict[str, Any]

    def encode_image(self, images: Sequence[Image]) -> Tensor:
        """Raise, as the model is not here."""
        raise NotImplementedError("the model is loaded by workers")


class IndexEngine:
    """Workers of a cluster that embed images; enter it to have them.  ``make_clip`` loads the model, in each worker."""

    def __init__(
        self,
        cluster: Cluster,
        device: str,
        make_clip: Callable[[], WholeEncoder],
        root: Path,
        batch_size: int,
        threads: int,
        callbacks: Callbacks,
    ) -> None:
        self.pool = RayPool[Sequence[str]](cluster, device, lambda ids, batch: ids[batch.inputs :], callbacks.on_note)
        self.asked = make_clip, root, batch_size, threads

    def __enter__(self) -> IndexEngine:
        self.clip: ClipElsewhere = self.pool.start(lambda plan: partial(_IndexWorker, *self.asked, plan.threads))
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.__exit__()

    def embed(
        self, shards: Iterable[list[str]], arrived: Callable[[EmbeddedBatch], EmbeddedBatch]
    ) -> Generator[EmbeddedBatch, None, None]:
        """Let workers embed a shard each."""
        with closing(self.pool.stream(shards, arrived)) as batches:
            yield from batches


class _IndexWorker:
    """Embeds images in the process of a worker."""

    def __init__(self, make_clip: Callable[[], WholeEncoder], root: Path, batch_size: int, readers: int, threads: int) -> None:
        torch.set_num_threads(threads)
        clip = make_clip()
        self.embedder = Embedder(root, clip, batch_size, readers)
        self.about = ClipElsewhere(clip.dimension, clip.provenance), describe_environment()

    def process(self, ids: Sequence[str]) -> Iterator[EmbeddedBatch]:
        """Embed the images of some ids."""
        with silence_pillow():
            yield from self.embedder.embed(ids)
