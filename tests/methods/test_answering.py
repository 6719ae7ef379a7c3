"""A method with a policy is a method, and hands over what the policy leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from annofree.clues.distractors import Distractors
from annofree.detections.nms import Overlaps
from annofree.detections.policy import OutputPolicy
from annofree.errors import InputError
from annofree.fragments.clusters import Seeding
from annofree.methods.answering import Answering, AnsweringMaps
from annofree.methods.build import build_method, load
from annofree.methods.components import Models
from annofree.methods.policies import build_answering as answering_of
from annofree.methods.policies import resolve_policy
from annofree.methods.tuning import find_default_method, find_tuning, list_tuned_methods
from annofree.methods.zip import Zip
from annofree.protocols import Segmenter
from annofree.runs.encodings import list_kinds
from annofree.structures import Detections, Image, LabelMap, Vocabulary
from annofree.testing.conformance import CHECKS
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes

POLICY = OutputPolicy(verify=True, overlaps=Overlaps(within=0.5, across=0.5))


def answering(policy: OutputPolicy = POLICY, method: Any = None) -> Answering:
    return Answering(method or Zip(FakeClip(), FakeSam()), policy, FakeClip(), Distractors(("background",)))


class Liar:
    """Finds every thing of a scene, and calls all of them by the first name."""

    @property
    def provenance(self) -> dict[str, Any]:
        return {"models": []}

    def remarks(self, classes: Any) -> list[str]:
        return []

    def encode(self, images: Sequence[Image]) -> list[Image]:
        return list(images)

    def instances(self, image: Image, classes: Any) -> Detections:
        masks = next(s.masks for s in draw_paper_scenes() if s.image.id == image.id)
        return Detections.from_masks(masks, [0] * len(masks), [0.5] * len(masks), Vocabulary.of(classes).names)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_is_a_segmenter(check: Callable[[Segmenter], None]) -> None:
    check(answering())


def test_names_are_given_again_by_what_clip_sees() -> None:
    for scene in draw_paper_scenes():
        found = answering(method=Liar()).instances(scene.image, NAMES)
        assert sorted(found.labels) == sorted(scene.names)


def test_a_distractor_takes_what_is_not_asked_for() -> None:
    scene = next(s for s in draw_paper_scenes() if len(set(s.names)) > 1)
    asked, other = sorted(set(scene.names))[:2]
    method = Answering(Liar(), POLICY, FakeClip(), Distractors((other, "background")))
    found = method.instances(scene.image, [asked])
    assert found.labels.tolist() == [asked] * scene.names.count(asked)


def test_the_whole_ranking_without_verification() -> None:
    scene = draw_paper_scenes()[0]
    plain = Answering(Liar(), OutputPolicy(), FakeClip())
    assert plain.instances(scene.image, NAMES).labels.tolist() == [NAMES[0]] * len(scene.names)


def test_what_clip_saw_is_kept_once() -> None:
    image = draw_paper_scenes()[0].image
    assert answering().encode([image])[0][1] is None  # Zip keeps its cells
    assert answering(method=Liar()).encode([image])[0][1] is not None
    assert {"ZipEncoding", "FeatureMap", "Seen"} <= set(list_kinds(answering()))


class Recorder(Liar):
    """Likewise, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def instances(self, image: Image, classes: Any) -> Detections:
        self.asked.append(Vocabulary.of(classes).names)
        return super().instances(image, classes)


CROWD = tuple(f"thing {k}" for k in range(30))


def test_a_method_is_asked_for_names_that_stand_out_alone() -> None:
    method, policy = Recorder(), replace(POLICY, presence=1.0)
    for scene in draw_paper_scenes():
        there, absent = sorted(set(scene.names)), next(n for n in NAMES if n not in scene.names)
        found = Answering(method, policy, FakeClip(), Distractors(CROWD)).instances(scene.image, [absent, *there])
        assert found.names == (absent, *there)
        assert not there or method.asked[-1] == tuple(there)
        assert sorted(found.labels) == sorted(scene.names)
        nothing = Answering(method, policy, FakeClip(), Distractors(CROWD)).instances(scene.image, [absent])
        assert len(nothing) == 0 and nothing.names == (absent,) and nothing.size == scene.image.size
    # of a few names alone none stands out: all are asked for
    Answering(method, policy, FakeClip(), Distractors(CROWD[:5])).instances(draw_paper_scenes()[0].image, NAMES)
    assert method.asked[-1] == NAMES


class Painter:
    """A label map by FakeClip's cells, without a background."""

    def __init__(self) -> None:
        self.provenance: dict[str, Any] = {"models": []}
        self.asked: list[tuple[str, ...]] = []

    def remarks(self, classes: Any) -> list[str]:
        return []

    def encode(self, images: Sequence[Image]) -> list[Any]:
        return FakeClip().encode_dense(images)

    def semantic(self, encoding: Any, classes: Any) -> LabelMap:
        vocabulary = Vocabulary.of(classes)
        self.asked.append(vocabulary.names)
        scores = torch.einsum("kd,dhw->khw", FakeClip().encode_text(vocabulary), encoding.values)
        labels = scores.argmax(0).repeat_interleave(8, 0).repeat_interleave(8, 1)[: encoding.size[0], : encoding.size[1]]
        return LabelMap(labels.numpy().astype(np.int32), vocabulary.names)


def test_what_a_distractor_wins_of_a_label_map_is_background() -> None:
    scene = next(s for s in draw_paper_scenes() if len(set(s.names)) > 1)
    asked, other = sorted(set(scene.names))[:2]
    method = AnsweringMaps(Painter(), POLICY, FakeClip(), Distractors((other, "background")))
    found = method.semantic(scene.image, [asked])
    assert found.names == ("background", asked) and found.background == 0
    inside = [m for m, name in zip(scene.masks, scene.names, strict=True) if name == asked]
    others = [m for m, name in zip(scene.masks, scene.names, strict=True) if name == other]
    assert all((found.labels[m] == 1).mean() > 0.9 for m in inside)
    assert all((found.labels[m] == 0).mean() > 0.9 for m in others)
    listed = method.semantic(scene.image, [asked, "Background"])
    assert listed.names == (asked, "Background") and listed.background == 1
    plain = AnsweringMaps(Painter(), OutputPolicy(), None).semantic(scene.image, NAMES)
    assert plain.background is None and plain.names == NAMES


def test_a_label_map_is_asked_for_what_stands_out_alone() -> None:
    scene, painter = draw_paper_scenes()[0], Painter()
    method = AnsweringMaps(painter, replace(POLICY, presence=1.0), FakeClip(), Distractors(CROWD))
    there, absent = sorted(set(scene.names)), next(n for n in NAMES if n not in scene.names)
    found = method.semantic(scene.image, [absent, *there])
    assert painter.asked[-1] == tuple(there) and found.names == ("background", absent, *there)
    assert set(np.unique(found.labels).tolist()) <= {0, *range(2, 2 + len(there))}
    assert method.semantic(scene.image, [absent]).compute_shares() == {"background": 1.0}


def test_a_method_that_gates_names_leaves_it_to_the_policy() -> None:
    models = Models("tiny", "cpu", objectness="none")
    gated = answering_of(build_method("zip", models), "zip", models, {"presence": 1.0})
    assert gated.method.settings.presence == 0.0 and gated.method.encoding_key == build_method("zip", models).encoding_key
    assert answering_of(build_method("zip", models), "zip", models).method.settings.presence == 0.02


def test_provenance_tells_the_policy() -> None:
    told = answering().provenance["policy"]
    assert told["overlaps"] == asdict(POLICY.overlaps) and told["calibrated"] is False
    assert any("not calibrated" in remark for remark in answering().remarks(NAMES))


def test_policies_of_presets() -> None:
    assert find_default_method("tiny") == "consensus" and find_default_method("fast") == find_default_method("paper") == "zip"
    assert resolve_policy("tiny", "consensus").calibration is not None and resolve_policy("fast", "zip").calibration is None
    assert resolve_policy("tiny", "zip", {"floor": 0.9}).floor == 0.9
    with pytest.raises(InputError, match="part of a policy"):
        resolve_policy("tiny", "zip", {"flor": 0.9})
    assert find_default_method("tiny", "semantic") == "consensus" and find_default_method("best", "semantic") == "clip_diy"


def test_settings_of_presets() -> None:
    models = Models("tiny", "cpu", objectness="none")
    assert build_method("zip", models).settings.min_activation == 0.6
    assert build_method("zip", models, "paper").settings == build_method("zip", models, "default").settings.__class__(
        seeding=Seeding("semantic")
    )
    assert build_method("zip", models, changes={"within": 1.0}).settings.within == 1.0
    assert find_tuning("fast", "zip").settings == {} and find_tuning("tiny", "zip").chosen_on
    assert set(list_tuned_methods("fast")) == set()
    with pytest.raises(InputError, match="list of distractors"):
        load("zip", models="tiny", policy={"distractors": "comon"})
    none: Any = load("zip", models="tiny", policy={"distractors": "none"}, negatives=["wall"])
    assert none.distractors.names == ("wall",)


def test_a_policy_by_name() -> None:
    image = Image(np.full((64, 64, 3), 255, np.uint8))
    assert isinstance(load("zip", models="tiny", policy="answer"), Answering)
    assert isinstance(load("zip", models="tiny"), Zip)
    with pytest.raises(InputError, match="policy"):
        load("zip", models="tiny", policy="anser")
    assert len(load("zip", models="tiny", policy={"floor": 1.0}).instances(image, "dog")) == 0
