"""What ``load`` is known to return, for editors and type checkers, is what the methods are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from annofree.methods.build import InstanceMethod, UniversalMethod
from annofree.methods.registry import METHODS

if TYPE_CHECKING:
    from typing import assert_type

    import annofree
    from annofree.protocols import Segmenter, UniversalSegmenter

    assert_type(annofree.load(), Segmenter)
    assert_type(annofree.load("zip", models="tiny"), Segmenter)
    assert_type(annofree.load("clip_diy", device="cpu"), UniversalSegmenter)
    assert_type(annofree.load("consensus", policy="answer").instances(None, "dog"), annofree.Detections)
    assert_type(annofree.load("zutis"), UniversalSegmenter)
    folder = "runs/detector"
    assert_type(annofree.load(folder), Any)


def test_each_method_is_listed_under_what_it_answers() -> None:
    listed = {("instance",): InstanceMethod, ("instance", "semantic"): UniversalMethod}
    assert {name: entry.tasks for name, entry in METHODS.items()} == {
        name: tasks for tasks, names in listed.items() for name in get_args(names)
    }
