"""What label maps refuse at birth, and how they are told and saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annofree.errors import InputError
from annofree.formats.label_maps import ClassList, read_label_map
from annofree.structures import VOID, LabelMap

MAP = LabelMap(np.array([[0, 1, 1, 1], [1, 2, VOID, 1]], np.int32), ("background", "dog", "a cat"), 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": [[0]]}, r"\(H, W\) int32 array, got list"),
        ({"labels": np.zeros((2, 2))}, r"got float64 \(2, 2\)"),
        ({"labels": np.zeros((0, 2), np.int32)}, r"got int32 \(0, 2\)"),
        ({"labels": np.full((2, 2), 3, np.int32)}, "from -1 to 2, got 3 to 3"),
        ({"labels": np.full((2, 2), -2, np.int32)}, "got -2 to -2"),
        ({"names": ["a", "b", "c"]}, "names as a tuple of str"),
        ({"background": 3}, "an index below 3 or None, got 3"),
        ({"background": -1}, "got -1"),
    ],
)
def test_what_no_label_map_can_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(MAP, **changes)


def test_one_line() -> None:
    assert repr(MAP) == "LabelMap(4x2: 62.5% dog, 12.5% background, 12.5% a cat, 12.5% void)"
    assert repr(LabelMap(np.full((1, 1), VOID, np.int32), ("dog",))) == "LabelMap(1x1: 100.0% void)"
    many = LabelMap(np.arange(8, dtype=np.int32)[None], tuple("abcdefgh"))
    assert repr(many) == "LabelMap(8x1: 12.5% a, 12.5% b, 12.5% c, 12.5% d, 12.5% e, 37.5% of 3 more names)"


def test_equal_is_every_label_the_names_and_the_background() -> None:
    assert replace(MAP, labels=MAP.labels.copy()) == MAP and MAP != "dog"
    assert replace(MAP, background=None) != MAP and replace(MAP, names=("background", "dog", "cow")) != MAP
    assert replace(MAP, labels=MAP.labels[:, ::-1]) != MAP and replace(MAP, labels=MAP.labels[:1]) != MAP
    turned = replace(MAP, labels=np.where(MAP.labels == VOID, VOID, 2 - MAP.labels).astype(np.int32), names=MAP.names[::-1])
    assert replace(turned, background=2) != MAP
    with pytest.raises(TypeError, match="unhashable"):
        hash(MAP)


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    MAP.save(tmp_path / "new" / "a.png")
    replace(MAP, labels=MAP.labels[:1]).save(f"{tmp_path}/new/b.PNG")
    folder = tmp_path / "new"
    assert sorted(place.name for place in folder.iterdir()) == ["a.png", "b.PNG", "classes.json"]
    assert read_label_map(folder / "a.png", ClassList.read(folder)) == MAP


def test_a_folder_of_other_names_is_left_alone(tmp_path: Path) -> None:
    MAP.save(tmp_path / "a.png")
    before = {place.name: place.read_bytes() for place in tmp_path.iterdir()}
    for other in (replace(MAP, names=("background", "cow", "a cat")), replace(MAP, background=None)):
        with pytest.raises(InputError, match=r"classes.json has, .* into a folder of their own"):
            other.save(tmp_path / "b.png")
    assert {place.name: place.read_bytes() for place in tmp_path.iterdir()} == before
    with pytest.raises(InputError, match=r"to end in .png, .* got c.jpg"):
        MAP.save(tmp_path / "c.jpg")
