"""Small indexes of given vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from annofree.retrieval.index import Index, Shard
from annofree.structures import FloatArray, Vocabulary

__all__ = ["AXES", "VECTORS", "Words", "index_of", "unit"]


def index_of(folder: Path, *blocks: Any, ids: Sequence[str] | None = None, unit: bool = True, dtype: Any = np.float16) -> Index:
    """An index of given embeddings, a shard a block."""
    shards: list[Shard] = []
    for number, block in enumerate(blocks):
        path, first = folder / f"{number}.npy", sum(s.rows for s in shards)
        np.save(path, np.asarray(block, dtype))
        names = list(ids or map(str, range(first + len(block))))[first : first + len(block)]
        shards.append(Shard.open(path, first, lambda names=names: names, unit=unit))  # type: ignore[misc]
    return Index(folder, tuple(shards), None)


def unit(values: Any) -> FloatArray:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12), np.float32)


class Words:
    """Text features by name."""

    def __init__(self, **features: Any) -> None:
        self.features = features

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        return torch.tensor(np.stack([self.features[name] for name in vocabulary.names]), dtype=torch.float32)


AXES = Words(x=np.eye(3)[0], y=np.eye(3)[1], z=np.eye(3)[2])


VECTORS = unit(np.array([[3, 1, 0], [1, 3, 0], [3, 1, 0], [1, 1, 0], [2, 1, 0]]))
