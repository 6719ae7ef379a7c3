import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.vectors import AXES, VECTORS, index_of, unit

from annofree.errors import InputError, MissingError
from annofree.retrieval.inverted_file import search_inverted_file
from annofree.retrieval.search import retrieve, search
from annofree.structures import FloatArray, Vocabulary
from annofree.testing.tolerances import assert_close


@pytest.fixture
def faiss() -> Any:
    return pytest.importorskip("faiss")


def clustered(rows: int) -> tuple[FloatArray, FloatArray]:
    """Embeddings around 20 centres, as those of images are, and a query at each of five."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, 32))
    return unit(centers[rng.integers(0, 20, rows)] + 0.5 * rng.normal(size=(rows, 32))), unit(centers[:5])


def test_all_lists_give_what_the_exact_search_gives(tmp_path: Path, faiss: Any) -> None:
    vectors, queries = clustered(900)
    index = index_of(tmp_path, vectors[:500], vectors[500:])
    exact = search(index, queries, 20)
    for _ in range(2):  # made, then mapped
        found = search_inverted_file(index, queries, 20, probes=1000)
        for ours, best in zip(found, exact, strict=True):
            # in float16 its lists cannot tell all vectors apart, so one of the last may be another
            assert_close(ours.scores, best.scores, dtype=torch.float16)
            assert len(set(ours.rows.tolist()) & set(best.rows.tolist())) >= 19


def test_few_lists_find_most(tmp_path: Path, faiss: Any) -> None:
    vectors, queries = clustered(2000)
    index = index_of(tmp_path, vectors)
    exact, found = search(index, queries, 20), search_inverted_file(index, queries, 20, probes=8)
    shared = [len(set(a.rows.tolist()) & set(b.rows.tolist())) / 20 for a, b in zip(exact, found, strict=True)]
    assert np.mean(shared) > 0.8


def test_an_index_that_changed_is_read_anew(tmp_path: Path, faiss: Any) -> None:
    search_inverted_file(index_of(tmp_path, np.eye(4)[:3]), np.eye(4, dtype=np.float32), 1)
    found = search_inverted_file(index_of(tmp_path, np.eye(4)), np.eye(4, dtype=np.float32), 1)
    assert [r.rows.tolist() for r in found] == [[0], [1], [2], [3]]


def test_rows_that_are_left_out_are_not_found(tmp_path: Path, faiss: Any) -> None:
    archive = retrieve(index_of(tmp_path, VECTORS), AXES, Vocabulary.of("x"), 3, method="faiss", probes=99, unique=True)
    assert [m.id for m in archive.members["x"]] == ["0", "4", "3"]


def test_without_faiss_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingError, match=r"install annofree\[faiss\]"):
        retrieve(index_of(tmp_path, VECTORS), AXES, Vocabulary.of("x"), method="faiss")
    with pytest.raises(InputError, match="one probe"):
        search_inverted_file(index_of(tmp_path, VECTORS), np.eye(3, dtype=np.float32), 1, probes=0)
