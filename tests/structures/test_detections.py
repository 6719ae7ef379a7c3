"""What detections refuse at birth, how they are selected from, joined, named and told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.detections import NAMES, SIZE, detections, some

from annofree.errors import InputError
from annofree.structures import Detections


def rows(found: Detections) -> list[tuple[Any, ...]]:
    """What belongs together in each row."""
    columns = found.labels.tolist(), found.scores.tolist(), map(tuple, found.boxes.tolist()), (r["counts"] for r in found.rles)
    return list(zip(*columns, strict=True))


GOOD = some(0, 1)

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"class_ids": np.array([0, 3])}, r"from 0 to 2, the places of the names \('dog', 'cat', 'bird'\), got 3"),
    ({"class_ids": np.array([-1, 0])}, "got -1"),
    ({"class_ids": [0, 1]}, r"class_ids as an \(N\) int64 array, got list; np.asarray\(class_ids, np.int64\)"),
    ({"class_ids": np.array([0, 1], np.int32)}, r"got int32 \(2,\)"),
    ({"class_ids": np.array([0])}, "as many class ids, scores, boxes and rles, got 1, 2, 2 and 2"),
    ({"scores": np.array([9.0, 0.5], np.float32)}, "scores from 0 to 1, got 9 in row 0"),
    ({"scores": np.array([0.5, -0.5], np.float32)}, "got -0.5 in row 1"),
    ({"scores": np.array([0.5, np.nan], np.float32)}, "got nan in row 1"),
    ({"scores": np.array([0.5, np.inf], np.float32)}, "got inf in row 1"),
    ({"scores": np.array([0.5, 0.25])}, r"scores as an \(N\) float32 array, got float64"),
    ({"scores": np.zeros((2, 1), np.float32)}, r"got float32 \(2, 1\)"),
    ({"boxes": np.zeros((2, 5), np.float32)}, r"boxes as an \(N, 4\) float32 array, got float32 \(2, 5\)"),
    ({"boxes": np.zeros((3, 4), np.float32)}, "got 2, 2, 3 and 2"),
    ({"boxes": np.array([[0, 0, 1, 1], [3, 0, 2, 1]], np.float32)}, r"got \[3.0, 0.0, 2.0, 1.0\] in row 1; are they x y width"),
    ({"boxes": np.array([[0, 0, 1, np.inf], [0, 0, 1, 1]], np.float32)}, "inf.* in row 0"),
    ({"boxes": np.array([[0, np.nan, 1, 1], [0, 0, 1, 1]], np.float32)}, "nan.* in row 0"),
    ({"rles": GOOD.rles[:1]}, "got 2, 2, 2 and 1"),
    ({"rles": list(GOOD.rles)}, "rles as a tuple"),
    ({"rles": ({"size": [6, 8], "counts": "text"}, GOOD.rles[1])}, "counts as bytes, got size .* and counts as str in row 0"),
    ({"rles": (GOOD.rles[0], {**GOOD.rles[1], "size": [8, 6]})}, r"size \[6, 8\] .* got size \[8, 6\] .* in row 1"),
    ({"rles": (GOOD.rles[0], {})}, "got size None and counts as NoneType in row 1"),
    ({"size": (0, 8)}, r"\(height, width\) in pixels, both above 0, got \(0, 8\)"),
    ({"size": (6, 8.0)}, "got"),
    ({"size": [6, 8]}, r"got \[6, 8\]"),
    ({"names": ["dog", "cat", "bird"]}, "names as a tuple of str"),
    ({"names": ("dog", 1)}, "names as a tuple of str"),
    ({"names": ()}, "from 0 to -1"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_what_no_detections_can_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(GOOD, **changes)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Detections.from_masks(np.ones((1, 2, 2), bool), [7], [0.5], ["dog"]), "from 0 to 0.*got 7"),
        (lambda: Detections.from_masks(np.ones((1, 2, 2), bool), [0], [9.0], ["dog"]), "got 9 in row 0"),
        (lambda: Detections.from_masks(np.ones((1, 2, 2), bool), [0], [0.5], "dog"), r"a list of names, got the text 'dog'"),
        (lambda: Detections.from_masks(np.ones((1, 2, 2), np.uint8), [0], [0.5], ["dog"]), r"bool with N .* uint8 \(1, 2, 2\)"),
        (lambda: Detections.from_masks(np.ones((2, 2), bool), [0, 0], [0.5, 0.5], ["dog"]), r"got bool \(2, 2\), 2, 2"),
        (lambda: Detections.from_masks(np.ones((1, 2, 2), bool), [0], [], ["dog"]), "1, 0"),
        (lambda: Detections.none((0, 5), ["dog"]), r"above 0, got \(0, 5\)"),
    ],
)
def test_masks_that_are_none_are_refused(call: Callable[[], Detections], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


def test_labels_are_an_array_that_selects() -> None:
    found = some(0, 1, 0, 2)
    assert found.labels.tolist() == ["dog", "cat", "dog", "bird"]
    assert rows(found[found.labels == "dog"]) == [rows(found)[0], rows(found)[2]]
    assert len(found[found.labels == "horse"]) == 0
    assert Detections.none(SIZE, ()).labels.shape == (0,)


def test_an_index_and_an_iteration_give_detections_of_length_one() -> None:
    found = some(0, 1, 2)
    assert [rows(one) for one in found] == [[row] for row in rows(found)]
    assert rows(found[0]) == rows(found)[:1] and rows(found[-1]) == rows(found[np.int64(2)]) == rows(found)[2:]
    for beyond in (3, -4, [0, 3]):
        with pytest.raises(IndexError, match="from -3 to 2, for there are 3"):
            found[beyond]


@pytest.mark.parametrize("keep", [True, np.bool_(False), [True], np.zeros(4, bool), 0.5, "dog", [[0]], ["dog"], None])
def test_what_is_no_selection_is_refused(keep: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        some(0, 1)[keep]


@given(detections(), st.data())
def test_a_selection_keeps_rows_together(found: Detections, data: st.DataObject) -> None:
    whole, count = rows(found), len(found)
    booleans = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    assert rows(found[booleans]) == [row for row, kept in zip(whole, booleans, strict=True) if kept]
    assert rows(found[booleans.tolist()]) == rows(found[booleans])
    part = data.draw(st.slices(count))
    assert rows(found[part]) == whole[part] and found[part].names == found.names and found[part].size == found.size
    places = data.draw(st.lists(st.integers(-count, count - 1), max_size=4)) if count else []
    assert rows(found[places]) == rows(found[np.array(places, int)]) == [whole[i] for i in places]
    assert np.array_equal(found[part].masks, found.masks[part])


@given(detections())
def test_masks_come_back(found: Detections) -> None:
    order = np.argsort(-found.scores, kind="stable")
    again = Detections.from_masks(found.masks, found.class_ids, found.scores, found.names)
    assert np.array_equal(again.masks, found.masks[order]) and again.areas.tolist() == again.masks.sum((1, 2)).tolist()
    assert replace(again, boxes=found.boxes[order]) == found[order]


@given(st.data())
def test_a_merge_keeps_rows_together_and_unites_names(data: st.DataObject) -> None:
    size = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    parts = [data.draw(detections(size)) for _ in range(data.draw(st.integers(1, 3)))]
    both = Detections.merge(parts)
    expected = [row for part in parts for row in rows(part)]
    assert rows(both) == sorted(expected, key=lambda row: -row[1]), "by falling score, of equals the first first"
    assert both.names == tuple(dict.fromkeys(name for part in parts for name in part.names)) and both.size == size


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(InputError, match="got none"):
        Detections.merge([])
    with pytest.raises(InputError, match=r"of one size to merge, got \[\(3, 8\), \(6, 8\)\]"):
        Detections.merge([some(0), Detections.none((3, 8), NAMES)])


def test_other_names_for_the_same_classes() -> None:
    found = some(0, 2)
    named = found.with_names(["bird", "cow", "dog"])
    assert named.names == ("bird", "cow", "dog") and rows(named) == rows(found)
    for names, said in ((["dog", "cat"], "got none for 'bird'"), ("dog", "the text 'dog'")):
        with pytest.raises(InputError, match=said):
            found.with_names(names)


def test_equal_is_equal_to_the_bit_and_in_order() -> None:
    found = some(0, 1)
    assert found == some(0, 1) and found == found[:] and found != found[::-1] and found != found[:1] and found != "dog"
    assert found != replace(found, names=("dog", "cat", "cow")) and found != some(0, 2) and found != some(0, 1, seed=1)
    assert found != replace(found, scores=np.nextafter(found.scores, np.float32(0)))
    assert found != replace(found, boxes=found.boxes * np.float32(0.5))
    assert Detections.none((3, 4), NAMES) != Detections.none((4, 3), NAMES)
    with pytest.raises(TypeError, match="unhashable"):
        hash(found)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (Detections.none((480, 640), ["dog"]), "Detections(0 of 640x480)"),
        (some(1), "Detections(1 of 8x6: 1 cat; score 0.94)"),
        (some(1, 0, 0), "Detections(3 of 8x6: 2 dog, 1 cat; scores 0.81–0.94)"),
        (some(0, names=("a\n" + 40 * "b",)), f"Detections(1 of 8x6: 1 a {28 * 'b'}; score 0.94)"),
        (
            some(0, 1, 2, 3, 4, 5, 6, 6, names=tuple("abcdefg")),
            "Detections(8 of 8x6: 2 g, 1 a, 1 b, 1 c, 1 d, 2 of 2 more names; scores 0.50–0.94)",
        ),
    ],
)
def test_one_line(found: Detections, line: str) -> None:
    assert repr(found) == line
