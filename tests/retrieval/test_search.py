from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.vectors import AXES, VECTORS, Words, index_of, unit

from annofree.errors import InputError
from annofree.retrieval.index import Index
from annofree.retrieval.ranking import Ranking
from annofree.retrieval.search import find_repeated_rows, retrieve, search
from annofree.structures import BoolArray, FloatArray, Vocabulary
from annofree.testing.tolerances import assert_close


def slow(index: Index, queries: FloatArray, k: int, without: BoolArray | None = None) -> list[Ranking]:
    """All scores of all rows, sorted: by falling score, then by rising row."""
    vectors = np.concatenate([v for _, v in index.stream_chunks()]).astype(np.float64)
    rankings = []
    for query in queries.astype(np.float64):
        scores = np.array([sum(vector * query) for vector in vectors], np.float32)
        rows = [r for r in range(len(vectors)) if without is None or not without[r]]
        best = sorted(rows, key=lambda row: (-scores[row], row))[:k]
        rankings.append(Ranking(np.array(best, np.int64), scores[best]))
    return rankings


def assert_same(one: Sequence[Ranking], other: Sequence[Ranking]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        # in one order, for both sum in float64 and then round: what float32 cannot tell apart is a tie for both
        assert a.rows.tolist() == b.rows.tolist()
        assert_close(a.scores, b.scores)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 7 rows, so that a small index has many."""
    chunks, raw = Index.stream_chunks, Index.stream_raw_chunks
    monkeypatch.setattr(Index, "stream_chunks", lambda self, rows=7: chunks(self, rows))
    monkeypatch.setattr(Index, "stream_raw_chunks", lambda self, rows=7: raw(self, rows))


@pytest.mark.parametrize("k", [1, 6, 7, 8, 50, 60, 1000])
def test_the_same_as_a_full_sort(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(k)
    index = index_of(tmp_path, unit(rng.normal(size=(40, 16))), unit(rng.normal(size=(3, 16))), unit(rng.normal(size=(17, 16))))
    queries = unit(rng.normal(size=(5, 16)))
    found = search(index, queries, k)
    assert_same(found, slow(index, queries, k))
    assert [len(r.rows) for r in found] == [min(k, 60)] * 5


def test_of_equal_scores_the_smaller_row_comes_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    few = unit(rng.normal(size=(4, 300)))
    index = index_of(tmp_path, few[rng.integers(0, 4, 50)], few[rng.integers(0, 4, 21)])
    queries = unit(rng.normal(size=(3, 300)))
    for k in (1, 5, 20, 71):
        found = search(index, queries, k)
        assert_same(found, slow(index, queries, k))
        for ranking in found:
            ties = ranking.scores[1:] == ranking.scores[:-1]
            assert ties.any() or k == 1
            assert (ranking.rows[1:] > ranking.rows[:-1])[ties].all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_small_numbers_with_many_ties(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    rows, k = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 35))
    values = st.integers(-1, 1)
    vectors = np.array(data.draw(st.lists(st.lists(values, min_size=3, max_size=3), min_size=rows, max_size=rows)))
    queries = np.array(data.draw(st.lists(st.lists(values, min_size=3, max_size=3), min_size=1, max_size=3)), np.float32)
    cut = data.draw(st.integers(0, rows))
    blocks = [b for b in (vectors[:cut], vectors[cut:]) if len(b)]
    index = index_of(tmp_path_factory.mktemp("index"), *blocks)
    without = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    assert_same(search(index, queries, k), slow(index, queries, k))
    assert_same(search(index, queries, k, without=without), slow(index, queries, k, without))


def test_no_result_depends_on_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    near = unit(rng.normal(size=(1, 64)) + 1e-4 * rng.normal(size=(200, 64)))  # scores that float32 products mix up
    index, queries = index_of(tmp_path, near, dtype=np.float32), near[:3]
    expected = slow(index, queries, 20)
    chunks = Index.stream_chunks
    for size in (1, 3, 64, 1000):
        monkeypatch.setattr(Index, "stream_chunks", lambda self, size=size: chunks(self, size))
        assert_same(search(index, queries, 20), expected)


def test_progress_counts_rows(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    search(index_of(tmp_path, np.eye(9), np.eye(9)[:2]), np.eye(9, dtype=np.float32), 1, on_progress=lambda *s: steps.append(s))
    assert steps == [(0, 11), (7, 11), (9, 11), (11, 11)]


@pytest.mark.parametrize(
    ("queries", "k", "said"),
    [(np.eye(3), 0, "k = 0"), (np.eye(4), 1, r"queries \(K, 3\).*\(4, 4\)"), (np.ones(3), 1, r"\(3,\)")],
)
def test_a_wrong_question_is_refused(tmp_path: Path, queries: Any, k: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        search(index_of(tmp_path, np.eye(3)), queries.astype(np.float32), k)


def test_an_empty_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has none"):
        search(Index(tmp_path, (), None), np.eye(3, dtype=np.float32), 1)


def test_shards_of_different_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="D = 3 in all shards, got 4"):
        index_of(tmp_path, np.eye(3), np.eye(4))


def test_vectors_that_are_not_unit_are_made_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 8)) * rng.uniform(0.1, 50, (30, 1))
    vectors[4] = 0
    index, queries = index_of(tmp_path, vectors, unit=False, dtype=np.float32), unit(rng.normal(size=(2, 8)))
    found = search(index, queries, 30)
    assert_same(found, slow(index_of(tmp_path, unit(vectors), dtype=np.float32), queries, 30))
    assert found[0].scores[found[0].rows == 4].tolist() == [0]
    vectors[9, 1] = np.inf
    with pytest.raises(InputError, match="row 9"):
        search(index_of(tmp_path, vectors, unit=False, dtype=np.float32), queries, 1)


def test_unit_vectors_stay_as_they_are(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(30, 64))).astype(np.float16)
    held = [np.concatenate([v for _, v in index_of(tmp_path, vectors, unit=u).stream_chunks()]) for u in (True, False)]
    assert np.array_equal(held[0], held[1])
    assert np.array_equal(held[0], vectors.astype(np.float32))


@pytest.mark.parametrize("rows", [40, 1])
def test_repeated_rows_are_those_whose_bytes_came_before(tmp_path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.integers(0, 2, (rows, 5))
    index = index_of(tmp_path, vectors[:25], vectors[25:]) if rows > 25 else index_of(tmp_path, vectors)
    expected = [any((vectors[i] == vectors[j]).all() for j in range(i)) for i in range(rows)]
    assert find_repeated_rows(index).tolist() == expected
    assert any(expected) == (rows > 1)


def test_equal_sums_do_not_make_rows_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from annofree.retrieval import search as retrieval

    monkeypatch.setattr(retrieval, "_sums", lambda raw: np.zeros(len(raw), np.uint64))
    index = index_of(tmp_path, np.eye(4)[[0, 1, 2, 0, 3]])
    assert find_repeated_rows(index).tolist() == [False, False, False, True, False]


def test_repeated_ids_are_repeated_rows(tmp_path: Path) -> None:
    index = index_of(tmp_path, np.eye(4)[:2], np.eye(4)[2:], ids=["a", "b", "a", "c"])
    assert find_repeated_rows(index).tolist() == [False, False, True, False]


def test_an_archive_has_the_best_of_each_name(tmp_path: Path) -> None:
    index = index_of(tmp_path, VECTORS, ids=list("abcde"))
    archive = retrieve(index, AXES, Vocabulary.of("x, y"), k=3)
    assert {name: [m.id for m in members] for name, members in archive.members.items()} == {
        "x": ["a", "c", "e"],
        "y": ["b", "d", "e"],
    }
    assert_close(archive.members["x"][0].score, 3 / 10**0.5, dtype=torch.float16)
    assert archive.list_classes("e") == ("x", "y")
    assert archive.places == {i: i for i in "abcde"}
    about = {"k": 3, "rows": 5, "method": "exact", "unique": False, "dropped_as_repeated": 0, "dropped_as_same_id": 0}
    assert archive.about.items() >= about.items()


def test_copies_stay_unless_they_are_to_go(tmp_path: Path) -> None:
    index = index_of(tmp_path, VECTORS, ids=list("abcde"))
    archive = retrieve(index, AXES, Vocabulary.of("x"), k=3, unique=True)
    assert [m.id for m in archive.members["x"]] == ["a", "e", "d"]
    assert archive.about["dropped_as_repeated"] == 1


def test_of_rows_with_one_id_the_best_stays(tmp_path: Path) -> None:
    index = index_of(tmp_path, VECTORS, ids=list("dbced"))
    archive = retrieve(index, AXES, Vocabulary.of("x"), k=4)
    assert [m.id for m in archive.members["x"]] == ["d", "c", "e"]
    assert archive.about["dropped_as_same_id"] == 1


def test_a_name_without_a_picture_is_refused(tmp_path: Path) -> None:
    index = index_of(tmp_path, VECTORS)
    assert [len(m) for m in retrieve(index, AXES, Vocabulary.of("x, y"), min_score=0.8).members.values()] == [3, 1]
    with pytest.raises(InputError, match=r"none for 'z' with a score of at least 0\.1; the best has 0\.000; lower"):
        retrieve(index, AXES, Vocabulary.of("x, z"), min_score=0.1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda i: retrieve(i, AXES, Vocabulary.of("x"), method="hnsw"), "unknown retrieval method"),
        (lambda i: retrieve(i, AXES, Vocabulary.of("x"), 0), "k = 0"),
        (lambda i: retrieve(i, Words(x=np.eye(4)[0]), Vocabulary.of("x")), r"\(K, 3\).*CLIP that made the index"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, call: Callable[[Index], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call(index_of(tmp_path, VECTORS))
