"""The images of an index that fit each name best: exact, in bounded memory, with ties in a stated order.

N rows, D embedding, K names.  A score is the cosine of a row and a name's text feature, summed in float64 and rounded to
float32; of rows with the same score the smaller number comes first.  So no result depends on the size of chunks, on the
number of threads or on the library that multiplies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from annofree.errors import InputError, build_unknown_error
from annofree.retrieval.archive import Archive, Member
from annofree.retrieval.index import Index
from annofree.retrieval.inverted_file import search_inverted_file
from annofree.retrieval.ranking import Ranking, compute_exact_scores
from annofree.structures import BoolArray, FloatArray, Vocabulary

__all__ = ["find_repeated_rows", "retrieve", "search"]

Method = Literal["exact", "faiss"]
_METHODS: tuple[Method, ...] = ("exact", "faiss")


class TextEncoder(Protocol):
    """Whoever turns names into unit vectors: the CLIP that made the index."""

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        """One unit text feature a class, (K, D)."""
        ...


def search(
    index: Index,
    queries: FloatArray,
    k: int,
    *,
    without: BoolArray | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Ranking]:
    """Find the ``k`` rows, or all where there are fewer, that fit each query (K, D) best, by looking at every row.

    Rows that ``without`` (N) marks are passed over.  Of each chunk a product in float32 singles out the rows that may be
    among the best, with the most that it can be wrong as a margin; these alone are scored as the module says.

    Raises InputError for an empty index, for k below 1 and for queries of another shape.
    """
    _check(index, queries, k)
    # The most that two sums of D float32 products of unit vectors can be off, twice over.
    margins = 2 * index.dimension * np.finfo(np.float32).eps * np.linalg.norm(queries, axis=1)
    best = [Ranking.none()] * len(queries)
    if on_progress:
        on_progress(0, len(index))
    for first, vectors in index.stream_chunks():
        rough = queries @ vectors.T
        if without is not None:
            rough[:, without[first : first + len(vectors)]] = -np.inf
        for q, own in enumerate(rough):
            near = np.flatnonzero((own >= _floor(best[q], own, k) - margins[q]) & (own > -np.inf))
            if len(near):
                best[q] = best[q].with_rows(near + first, compute_exact_scores(vectors[near], queries[q]), k)
        if on_progress:
            on_progress(first + len(vectors), len(index))
    return best


def _floor(best: Ranking, scores: FloatArray, k: int) -> float:
    """A score that k rows have already, at least; minus infinity where there are no k rows yet."""
    if len(best.rows) == k:
        return float(best.scores[-1])
    return float(np.partition(scores, len(scores) - k)[len(scores) - k]) if len(scores) > k else -np.inf


def _check(index: Index, queries: npt.NDArray[Any], k: int) -> None:
    if k < 1:
        raise InputError(f"expected at least one image a name, got k = {k}")
    if not len(index):
        raise InputError(f"expected an index with images, but the one in {index.folder} has none; see its manifest's failed")
    if queries.ndim != 2 or queries.shape[1] != index.dimension:
        raise InputError(
            f"expected queries (K, {index.dimension}), as the index in {index.folder} has it, got {queries.shape}; "
            "ask with the CLIP that made the index"
        )


def find_repeated_rows(index: Index) -> BoolArray:
    """Mark the rows (N) whose embedding, to the last byte, or whose id an earlier row has.

    Rows are compared by 64-bit sums first, and by their bytes where these are equal.
    """
    sums = np.empty(len(index), np.uint64)
    for first, raw in index.stream_raw_chunks():
        sums[first : first + len(raw)] = _sums(raw)
    marked = _repeated_ids(index)
    order = np.argsort(sums, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], sums[order][1:] != sums[order][:-1]]))
    for same in np.split(order, starts[1:]) if len(starts) < len(order) else []:
        if len(same) > 1:
            vectors = index.read_vectors(same)
            marked[same[1:]] |= (vectors[1:] == vectors[0]).all(1)
    return marked


def _sums(raw: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """One sum a row (n, D), of its 16-bit words times odd numbers that are fixed, modulo 2^64."""
    words = np.ascontiguousarray(raw).view(np.uint16).astype(np.uint64)
    odd = np.random.default_rng(0).integers(0, 2**63, words.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    return np.asarray(np.einsum("nw,w->n", words, odd), np.uint64)


def _repeated_ids(index: Index) -> BoolArray:
    marked, seen = np.zeros(len(index), bool), set[str]()
    for shard in index.shards:
        for row, id in enumerate(shard.ids(), start=shard.first):  # noqa: A001 -- the word the noun uses
            marked[row] = id in seen
            seen.add(id)
    return marked


def retrieve(
    index: Index,
    encoder: TextEncoder,
    vocabulary: Vocabulary,
    k: int = 500,
    *,
    method: str = "exact",
    probes: int = 32,
    unique: bool = False,
    min_score: float | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Archive:
    """Make an archive: of each name the ``k`` best images, or all where there are fewer.

    An image may be in the archives of several names.  ``unique`` drops every row whose embedding, to the last byte, or whose
    id an earlier row of the index has (a copy that was embedded in a batch of another size may differ in a last digit, and
    stays); without it, copies of an image under other ids stay, and of rows with one id the best stays.  ``min_score`` drops
    what fits worse.  The archive's ``about`` says how many were dropped.  ``method`` ``faiss`` looks only into the ``probes``
    nearest lists of an inverted file and may miss some.

    Raises InputError as ``search`` does, for an unknown method, and where a name is left without an image.
    """
    if method not in _METHODS:
        raise build_unknown_error("retrieval method", method, _METHODS)
    queries = _queries(encoder, vocabulary)
    _check(index, queries, k)
    without = find_repeated_rows(index) if unique else None
    if method == "exact":
        rankings = search(index, queries, k, without=without, on_progress=on_progress)
    else:
        rankings = search_inverted_file(index, queries, k, probes=probes, without=without)
    archive = _archive(index, vocabulary, rankings if min_score is None else [r.with_min_score(min_score) for r in rankings])
    for name, members in archive.members.items():
        if not members:
            raise _nothing(name, rankings[vocabulary.names.index(name)], min_score)
    archive.about.update(
        {
            "index": str(index.folder),
            "rows": len(index),
            "k": k,
            "method": method if method == "exact" else f"faiss, {probes} probes",
            "min_score": min_score,
            "unique": unique,
            "dropped_as_repeated": 0 if without is None else int(without.sum()),
            "classes": [list(words) for words in vocabulary.synonyms],
            "model": index.model,
        }
    )
    return archive


def _queries(encoder: TextEncoder, vocabulary: Vocabulary) -> FloatArray:
    with torch.inference_mode():
        return np.asarray(encoder.encode_text(vocabulary).float().cpu().numpy(), np.float32)


def _archive(index: Index, vocabulary: Vocabulary, rankings: Sequence[Ranking]) -> Archive:
    ids = iter(index.read_ids(np.concatenate([ranking.rows for ranking in rankings])))
    members: dict[str, tuple[Member, ...]] = {}
    for name, ranking in zip(vocabulary.names, rankings, strict=True):
        own: dict[str, Member] = {}
        for score in ranking.scores.tolist():
            member = Member(next(ids), score)
            own.setdefault(member.id, member)
        members[name] = tuple(own.values())
    doubled = sum(len(r.rows) for r in rankings) - sum(map(len, members.values()))
    places = {m.id: index.place(m.id) for own_members in members.values() for m in own_members}
    return Archive(vocabulary.names, members, places, {"dropped_as_same_id": doubled})


def _nothing(name: str, ranking: Ranking, min_score: float | None) -> InputError:
    best = f"; the best has {ranking.scores[0]:.3f}" if len(ranking.scores) else ""
    least = "" if min_score is None else f" with a score of at least {min_score}"
    return InputError(
        f"expected images for each name, but there is none for {name!r}{least}{best}; "
        "lower the least score, give the name synonyms, or leave it out"
    )
