"""The best rows of a name, with ties in a stated order.

A score is the cosine of a row and a name's text feature, summed in float64 and rounded to float32; of rows with the same score
the smaller number comes first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from annofree.structures import FloatArray, IntArray

__all__ = ["Ranking", "compute_exact_scores"]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best rows of one name, best first: ``rows`` (n) int64 and ``scores`` (n) float32."""

    rows: IntArray
    scores: FloatArray

    @classmethod
    def none(cls) -> Ranking:
        """No rows."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.float32))

    def with_rows(self, rows: IntArray, scores: FloatArray, k: int) -> Ranking:
        """The best ``k`` of these and of other rows: by falling score, then by rising number."""
        all_rows, all_scores = np.concatenate([self.rows, rows]), np.concatenate([self.scores, scores])
        order = np.lexsort((all_rows, -all_scores))[:k]
        return Ranking(all_rows[order], all_scores[order])

    def with_min_score(self, score: float) -> Ranking:
        """Those with at least some score."""
        return Ranking(self.rows[self.scores >= score], self.scores[self.scores >= score])


def compute_exact_scores(vectors: FloatArray, query: FloatArray) -> FloatArray:
    """The score (n) of each vector (n, D) and a query (D); the same for the same vector, whatever stands beside it."""
    scores: FloatArray = (vectors.astype(np.float64) * query.astype(np.float64)).sum(1).astype(np.float32)
    return scores
