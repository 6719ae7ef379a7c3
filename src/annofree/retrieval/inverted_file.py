"""Fast, approximate search: an index's rows in FAISS's inverted file, of which a query looks into a few lists only."""

from __future__ import annotations

import json
from importlib import import_module
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from annofree.errors import InputError, MissingError
from annofree.io.atomic import write_atomic, write_json
from annofree.io.regular import require_regular
from annofree.retrieval.index import Index
from annofree.retrieval.ranking import Ranking, compute_exact_scores
from annofree.structures import BoolArray, FloatArray

__all__ = ["search_inverted_file"]

_SAMPLES_A_LIST = 64


def search_inverted_file(
    index: Index, queries: FloatArray, k: int, *, probes: int = 32, without: BoolArray | None = None
) -> list[Ranking]:
    """Find up to ``k`` rows that fit each query (K, D) best among those of the ``probes`` lists nearest to it.

    The file, ``faiss.ivf`` with about the square root of N lists of float16 vectors, is made in the index's folder at the first
    call, which holds all vectors in memory, and mapped from there on.  What is found is scored and ordered as the exact search
    does; with as many probes as lists it finds the same, but for scores that float16 cannot tell apart.

    Raises MissingError without faiss, InputError for fewer than one probe.
    """
    if probes < 1:
        raise InputError(f"expected at least one probe, got {probes}")
    faiss = _faiss()
    path = index.folder / "faiss.ivf"
    if not _fresh(index, path):
        _build(faiss, index, path)
    inverted = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    asked = faiss.SearchParametersIVF(nprobe=min(probes, inverted.nlist), **_selector(faiss, without))
    _, rows = inverted.search(queries, min(k, len(index)), params=asked)
    best = []
    for query, own in zip(queries, rows, strict=True):
        found = np.sort(own[own >= 0]).astype(np.int64)
        best.append(Ranking.none().with_rows(found, compute_exact_scores(index.read_vectors(found), query), k))
    return best


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ImportError:
        raise MissingError(
            "the method faiss needs faiss, which is not installed; install annofree[faiss], or choose the method exact"
        ) from None


def _selector(faiss: Any, without: BoolArray | None) -> dict[str, Any]:
    return {} if without is None else {"sel": faiss.IDSelectorBitmap(np.packbits(~without, bitorder="little"))}


def _state(index: Index) -> list[list[Any]]:
    """What the file was made of."""
    return [[shard.path.name, shard.rows, shard.path.stat().st_mtime_ns] for shard in index.shards]


def _fresh(index: Index, path: Path) -> bool:
    about = path.with_suffix(".json")
    try:
        return path.exists() and bool(json.loads(require_regular(about).read_text(encoding="utf-8")) == _state(index))
    except (OSError, ValueError):
        return False  # it is made again


def _build(faiss: Any, index: Index, path: Path) -> None:
    lists = max(1, isqrt(len(index)))
    inverted = faiss.index_factory(index.dimension, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    inverted.cp.min_points_per_centroid = 1  # of a small index; else it prints a warning
    inverted.train(_sample(index, lists * _SAMPLES_A_LIST))
    for _, vectors in index.stream_chunks():
        inverted.add(vectors)
    path.with_suffix(".json").unlink(missing_ok=True)  # while the two do not fit each other
    write_atomic(path, lambda temporary: faiss.write_index(inverted, str(temporary)))
    write_json(path.with_suffix(".json"), _state(index))


def _sample(index: Index, most: int) -> FloatArray:
    """Rows at even distances through the whole index."""
    step = max(1, len(index) // most)
    return np.concatenate([vectors[-first % step :: step] for first, vectors in index.stream_chunks()])
