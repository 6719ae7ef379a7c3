"""Maps of cells look at what tensors say of themselves, and never at their values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from annofree.errors import InputError
from annofree.structures import ClueMap, FeatureMap, Fragments

MAP = torch.zeros(3, 2, 2)


@pytest.mark.parametrize(
    ("values", "size", "window", "said"),
    [
        (torch.zeros(2, 2), (4, 4), None, r"features \(D, h, w\) .* got float32 \(2, 2\)"),
        (torch.zeros(3, 2, 2, dtype=torch.int64), (4, 4), None, r"got int64 \(3, 2, 2\)"),
        ([1.0], (4, 4), None, "got list"),
        (MAP, (4, 0), None, r"got \(4, 0\)"),
        (MAP, torch.Size([4]), None, "got"),
        (MAP, (4, 4), (4,), r"got \(4,\)"),
    ],
)
def test_features_that_are_no_map_are_refused(values: Any, size: Any, window: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        FeatureMap(values, size, window)


def test_clues_that_are_no_map_are_refused() -> None:
    meaning: Any = "likelihood"
    with pytest.raises(InputError, match=r"clues \(K, h, w\)"):
        ClueMap(MAP[0], (4, 4), "cosine")
    with pytest.raises(InputError, match="mean cosine or activation, got 'likelihood'"):
        ClueMap(MAP, (4, 4), meaning)


def test_fragments_whose_columns_do_not_belong_together_are_refused() -> None:
    two, labels = torch.ones(2), torch.ones(2, 2, dtype=torch.int64)
    assert len(Fragments(labels, two, torch.zeros(2, 4), two)) == 2
    for boxes, cluster in ((torch.zeros(3, 4), two), (torch.zeros(2, 5), two), (torch.zeros(2, 4), torch.ones(3))):
        with pytest.raises(InputError, match=r"area \(N\), boxes \(N, 4\) and cluster \(N\)"):
            Fragments(labels, two, boxes, cluster)
    with pytest.raises(InputError, match=r"\(h, w\) int64, got float32 \(2, 2\)"):
        Fragments(labels.float(), two, torch.zeros(2, 4), two)


def test_values_on_a_device_are_not_looked_at() -> None:
    """Tensors of the meta device have no values: whoever asks for one fails."""
    away = torch.zeros(3, 2, 2, device="meta")
    one = torch.zeros(1, device="meta")
    FeatureMap(away, (4, 4))
    ClueMap(away, (4, 4), "cosine")
    Fragments(away[0].long(), one, torch.zeros(1, 4, device="meta"), one)
