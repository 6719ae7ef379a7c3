"""Names compete, and a logistic of what speaks for a candidate says how likely it is right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from annofree.detections.verification import (
    SIGNALS,
    Calibration,
    Naming,
    compute_signals,
    measure_edge_support,
    measure_geometry,
    pick_best_rows,
)
from annofree.errors import InputError
from annofree.ops.rle import encode_rles
from annofree.structures import RLE, Image


def rles(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (20, 30)) -> list[RLE]:
    """Masks that fill boxes x0 y0 x1 y1."""
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return encode_rles(masks)


def column(shape: np.ndarray, name: str) -> list[float]:
    return [round(float(v), 4) for v in shape[:, SIGNALS.index(name) - SIGNALS.index("area")]]


def test_shares_are_the_softmax_of_scaled_cosines() -> None:
    words = torch.eye(3)
    features = torch.tensor([[0.6, 0.8, 0.0]])
    expected = torch.tensor([[6.0, 8.0, 0.0]]).softmax(1)
    torch.testing.assert_close(Naming(10.0).compute_shares(features, words), expected)


def test_the_best_row_names_a_candidate() -> None:
    assert pick_best_rows(torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])).tolist() == [0, 2, 1]


def test_geometry_of_masks_in_and_over_each_other() -> None:
    whole, part, twin, apart = (2, 2, 12, 12), (3, 3, 6, 6), (2, 2, 12, 11), (20, 0, 30, 20)
    shape = measure_geometry(rles(whole, part, twin, apart), (20, 30))
    assert column(shape, "area") == [round(float(np.log(a / 600)), 4) for a in (100, 9, 90, 200)]
    assert column(shape, "compactness") == [1.0, 1.0, 1.0, 1.0]
    assert column(shape, "edge") == [0.0, 0.0, 0.0, 1.0]
    assert column(shape, "agreement") == [0.6931, 0.0, 0.6931, 0.0]  # the twins, of each other
    assert column(shape, "holds") == [0.6931, 0.0, 0.6931, 0.0]  # each twin holds the part
    assert column(shape, "held") == [0.0, 1.0986, 0.0, 0.0]  # which lies in both


def test_geometry_of_nothing() -> None:
    assert measure_geometry([], (4, 4)).shape == (0, 7)


def test_signals_stand_in_their_order() -> None:
    features, words = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.eye(2)
    shares = Naming(100.0).compute_shares(features, words)
    drawn = np.array([[0.9, 0.8, 0.0, 0.0, 0.3], [0.0, 0.0, 1.0, 0.7, 0.4]], np.float32)
    found = compute_signals(
        features, words, shares, torch.tensor([0.25, 0.5]), drawn, np.arange(14, dtype=np.float32).reshape(2, 7)
    )
    assert found.shape == (2, len(SIGNALS))
    row = dict(zip(SIGNALS, found[1].tolist(), strict=True))
    assert row["share"] == pytest.approx(np.log(1 + 1e-4), rel=1e-2) and row["likeness"] == 10.0 and row["presence"] == 0.5
    assert (row["quality"], row["stability"], row["area"], row["held"]) == (0.0, 0.0, 7.0, 13.0)
    assert row["detector"] == 1.0 and row["detector_score"] == pytest.approx(0.7) and row["boundary"] == pytest.approx(0.4)


def test_a_contour_on_edges_tells_a_whole_thing_from_a_part() -> None:
    pixels = np.full((60, 80, 3), 40, np.uint8)
    pixels[10:50, 10:40], pixels[20:40, 60:80] = (200, 30, 30), (30, 30, 200)
    whole, part, both, at_border, nothing = np.zeros((5, 60, 80), bool)
    whole[10:50, 10:40], part[10:50, 10:24], at_border[20:40, 60:80] = True, True, True
    both[10:50, 10:60] = True
    found = measure_edge_support(Image(pixels), np.stack([whole, part, both, at_border, nothing]))
    assert found[0] == found[3] == 1.0 and found[4] == 0.0  # the border of the image is no contour
    assert found[1] < 0.75 and found[2] < 0.75
    assert measure_edge_support(Image(np.zeros((8, 8, 3), np.uint8)), np.ones((1, 8, 8), bool)).tolist() == [0.0]
    assert len(measure_edge_support(Image(pixels), np.zeros((0, 60, 80), bool))) == 0


def test_a_logistic_of_named_signals() -> None:
    signals = np.zeros((2, len(SIGNALS)), np.float32)
    signals[1, SIGNALS.index("stability")] = 2.0
    found = Calibration({"stability": 1.5}, -1.0).predict(signals)
    np.testing.assert_allclose(found, 1 / (1 + np.exp([1.0, -2.0])), rtol=1e-6)


def test_bad_calibrations_are_refused() -> None:
    with pytest.raises(InputError, match=r"qualty.*quality"):
        Calibration({"qualty": 1.0}, 0.0)
    with pytest.raises(InputError, match="finite"):
        Calibration({"quality": float("nan")}, 0.0)
