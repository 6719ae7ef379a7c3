"""Exact retrieval from millions of embeddings: seconds, embeddings a second and the most memory that the process ever had.

    uv run python benchmarks/retrieval.py                  # 2.7 M x 768, the size of ImageNet-1K and PASS; 4.2 GB of disk
    uv run python benchmarks/retrieval.py --rows 20000

Random unit vectors are written shard by shard into a temporary folder, which is deleted at the end.  What is found is checked
against a plain sort of all scores of a few names, and memory against a limit; both end the program with an error.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from annofree.retrieval.index import FORMAT, Index, name_embeddings, name_ids
from annofree.retrieval.open_index import open_index
from annofree.retrieval.ranking import Ranking
from annofree.retrieval.search import find_repeated_rows, search
from annofree.structures import FloatArray
from annofree.testing.tolerances import assert_close

SHARD = 16_384


def unit(rng: np.random.Generator, rows: int, dimension: int) -> FloatArray:
    vectors = rng.standard_normal((rows, dimension), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def write_index(folder: Path, rows: int, dimension: int, seed: int) -> None:
    """Write an index as ``annofree index`` does, of vectors that stand for no images."""
    rng, shards = np.random.default_rng(seed), []
    for number, start in enumerate(range(0, rows, SHARD)):
        count = min(SHARD, rows - start)
        np.save(folder / name_embeddings(number), unit(rng, count, dimension).astype(np.float16))
        held = {"ids": [f"{row:08}.jpg" for row in range(start, start + count)], "failed": {}}
        (folder / name_ids(number)).write_text(json.dumps(held))
        shards.append(count)
    manifest = {
        "format": FORMAT,
        "complete": True,
        "model": {},
        "root": str(folder),
        "shards": shards,
        "about": {},
        "shard_size": 1,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def all_scores(index: Index, query: FloatArray) -> npt.NDArray[np.float64]:
    """The slow way: the scores of all rows."""
    return np.concatenate([v.astype(np.float64) @ query.astype(np.float64) for _, v in index.stream_chunks()])


def peak_bytes() -> int:
    """The most memory that this process ever had, mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_700_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--names", type=int, default=80)
    parser.add_argument("--k", type=int, default=500)
    parser.add_argument("--checked", type=int, default=2, help="names that are checked against the plain sort")
    parser.add_argument("--limit-gb", type=float, default=4.0, help="the most memory that it may take")
    parser.add_argument("--unique", action="store_true", help="time the search for repeated rows, too")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file to write the figures to")
    asked = parser.parse_args(arguments)
    queries = unit(np.random.default_rng(asked.seed + 1), asked.names, asked.dimension)
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        started = time.perf_counter()
        write_index(Path(name), asked.rows, asked.dimension, asked.seed)
        written = time.perf_counter()
        index = open_index(Path(name))
        found = search(index, queries, asked.k)
        searched = time.perf_counter()
        peak = peak_bytes()
        ids = index.read_ids(np.concatenate([ranking.rows for ranking in found]))
        named = time.perf_counter()
        figures = {
            "rows": len(index),
            "dimension": index.dimension,
            "names": asked.names,
            "k": asked.k,
            "found": len(ids),
            "index_gb": round(len(index) * index.dimension * 2 / 1e9, 3),
            "write_s": round(written - started, 2),
            "search_s": round(searched - written, 2),
            "rows_per_s": round(len(index) / (searched - written)),
            "ids_s": round(named - searched, 2),
        }
        if asked.unique:
            repeated = int(find_repeated_rows(index).sum())
            figures |= {"repeated": repeated, "repeated_s": round(time.perf_counter() - named, 2)}
        figures["peak_gb"] = round(max(peak, peak_bytes()) / 1e9, 3)  # before the check, which is not frugal
        check(index, queries, found, asked.k, min(asked.checked, asked.names))
    figures["checked_names"] = min(asked.checked, asked.names)
    print(json.dumps(figures, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(figures))
    if figures["peak_gb"] > asked.limit_gb:
        raise SystemExit(f"expected at most {asked.limit_gb} GB of memory, got {figures['peak_gb']}")


def check(index: Index, queries: FloatArray, found: Sequence[Ranking], k: int, names: int) -> None:
    """Raise SystemExit unless the first names have the rows and scores of a plain sort; of equal scores, any order will do."""
    for name in range(names):
        slow, rows = all_scores(index, queries[name]), found[name].rows
        try:
            assert_close(slow[rows], -np.sort(-slow)[:k])
            assert_close(found[name].scores, slow[rows])
            assert len(np.unique(rows)) == len(rows), "a row comes twice"
        except AssertionError as problem:
            raise SystemExit(f"name {name}: the search differs from a plain sort of all scores: {problem}") from None


if __name__ == "__main__":
    main()
