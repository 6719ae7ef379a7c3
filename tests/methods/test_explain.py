"""The steps of a method are those that it takes: the last picture is its answer, and none is computed otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import annofree
from annofree.detections.nms import Overlaps
from annofree.detections.policy import OutputPolicy
from annofree.io.images import read_image
from annofree.methods.build import MethodSpec, change_settings
from annofree.methods.components import Models
from annofree.methods.explain.explain import DRAWN, Explanation, explain_method
from annofree.methods.zip import VARIANTS, Zip
from annofree.render.label_overlay import draw_label_map
from annofree.render.overlay import draw_overlay
from annofree.render.step_pictures import draw_heat
from annofree.structures import Detections, Image, Vocabulary
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes

PICTURE = Image(np.ascontiguousarray(read_image("examples/scenes/oranges.jpg").pixels[96:, 96:]), "oranges.jpg")
MODELS = Models("tiny", "cpu")
SCENE = draw_paper_scenes()[2]
ASKED = Vocabulary.of("orange, elephant, boat")


def explain(name: str, task: str, policy: str, asked: Vocabulary = ASKED, **options: Any) -> tuple[Any, Explanation]:
    method = MethodSpec(name, models="tiny", device="cpu", policy=policy, **options).build(models=MODELS)
    return method, explain_method(method, PICTURE, asked, task)


def explain_fake(image: Image = SCENE.image, asked: Vocabulary | None = None, **changes: Any) -> tuple[Zip, Explanation]:
    """Zip on the fakes, which read the paper world perfectly."""
    method = Zip(FakeClip(), FakeSam(), change_settings(VARIANTS["default"], changes))
    return method, explain_method(method, image, asked or Vocabulary.of(NAMES), "instance")


def alike(a: PIL.Image.Image, b: PIL.Image.Image) -> bool:
    return a.size == b.size and a.tobytes() == b.tobytes()


def titles(found: Explanation) -> list[str]:
    return [step.title for step in found.steps]


@pytest.mark.parametrize(
    ("name", "task", "policy"),
    [
        ("zip", "instance", "all"),
        ("zip", "instance", "answer"),
        ("consensus", "instance", "answer"),
        ("clip_diy", "semantic", "answer"),
        ("zutis", "instance", "answer"),
        ("zutis", "semantic", "all"),
        ("maskcut", "instance", "answer"),
        ("maskclip", "semantic", "answer"),
    ],
)
def test_the_last_picture_is_the_answer_of_the_method(name: str, task: str, policy: str) -> None:
    asked = Vocabulary.of("object") if name == "maskcut" else ASKED
    method, found = explain(name, task, policy, asked, variant="cells" if name == "maskcut" else "default")
    own = method.instances(PICTURE, asked) if task == "instance" else method.semantic(PICTURE, asked)
    drawn = draw_overlay(PICTURE, own) if isinstance(own, Detections) else draw_label_map(PICTURE, own)
    assert found.answer == own
    assert found.steps[-1].title == "The answer"
    assert alike(found.steps[-1].drawings[0].picture, drawn)
    assert len(found.steps) > 3 or name not in DRAWN or (name, task) == ("zutis", "semantic")
    assert all(step.words for step in found.steps)
    assert any("has no drawing" in step.words for step in found.steps) == (name not in DRAWN)


def test_the_answer_is_what_segment_gives() -> None:
    given: dict[str, Any] = {"models": "tiny", "device": "cpu"}
    (said,) = annofree.segment(PICTURE, "orange, boat", **given)
    found = annofree.explain(PICTURE, "orange, boat", **given)
    assert found.answer == said.detections and found.page is None and found.provenance["method"] == "consensus"


def test_the_clue_of_zip_is_the_one_that_it_finds_instances_by() -> None:
    method, found = explain_fake(presence=0.0)
    clues = method.compute_clues(method.encode([SCENE.image])[0], Vocabulary.of(NAMES))
    step = next(s for s in found.steps if s.title == "Clue of each name")
    first = int(torch.argsort(clues.presence[clues.asked], descending=True, stable=True)[0])
    assert len(step.drawings) == min(6, len(NAMES)) and step.drawings[0].caption.startswith(NAMES[int(clues.asked[first])])
    assert alike(step.drawings[0].picture, draw_heat(SCENE.image, clues.maps[first].numpy()))


def test_zip_tells_names_below_its_gate_and_stops_where_none_is_left() -> None:
    _, found = explain_fake(asked=Vocabulary.of("orange, boat"), presence=1.5)
    assert titles(found) == ["The image", "Clue of each name", "The answer"]
    assert "passed over: orange, boat" in found.steps[1].words and found.steps[-1].words == "Found: nothing."


@pytest.mark.parametrize(
    ("changes", "absent"),
    [({"instances": "clue"}, "Fragments kept and dropped"), ({"prompting": "none"}, "SAM's first masks"), ({}, "Masks")],
)
def test_a_step_that_zip_does_not_take_is_not_drawn(changes: dict[str, Any], absent: str) -> None:
    method, found = explain_fake(**changes)
    assert absent not in titles(found) and "Coarse boxes" in titles(found)
    assert found.answer == method.instances(SCENE.image, NAMES) and len(method.instances(SCENE.image, NAMES)) > 0


def test_an_image_of_another_shape_and_many_names() -> None:
    wide = Image(np.ascontiguousarray(SCENE.image.pixels[:40]), "wide.png")
    _, found = explain_fake(wide, Vocabulary.of([*NAMES, *(f"thing {k}" for k in range(20))]), presence=0.0)
    assert max(len(step.drawings) for step in found.steps) == 6
    assert f"{len(NAMES) + 20 - 6} more names are not drawn" in found.steps[1].words


def test_reasons_are_those_of_the_policy() -> None:
    masks = np.zeros((6, 8, 8), bool)
    for k, part in enumerate((slice(0, 4), slice(0, 4), slice(4, 6), slice(6, 7), slice(6, 8), slice(7, 8))):
        masks[k, part] = True
    ranking = Detections.from_masks(masks, [0, 0, 2, 1, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.5, 0.3], ["dog", "cat", "wall"])
    for policy in (
        OutputPolicy(),
        OutputPolicy(overlaps=Overlaps(within=0.5), floor=0.4),
        OutputPolicy(overlaps=Overlaps(within=0.5, inside=0.4), most=1),
        OutputPolicy(overlaps=Overlaps(within=0.5, inside=0.4, inside_across=0.4, pair=0.8, prefer="whole"), floor=0.55),
    ):
        for told in (None, 2):
            reasons = policy.explain(ranking, told)
            assert [k for k, why in enumerate(reasons) if not why] == policy.select(ranking, told).tolist()
    assert OutputPolicy(overlaps=Overlaps(within=0.5), floor=0.4, most=2).explain(ranking, 2) == [
        "",
        "much the same as a stronger one",
        "won by a name that only competes",
        "",
        "beyond the 2 strongest",
        "less likely than 0.4",
    ]
