"""A method with a policy is a method, and hands over what the policy leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from annofree.clues.distractors import Distractors
from annofree.detections.overlaps import Overlaps
from annofree.detections.policy import OutputPolicy
from annofree.errors import InputError
from annofree.methods.answering import Answering
from annofree.methods.catalogue import load
from annofree.methods.tuning import default_method, policy_of
from annofree.methods.zip import Zip
from annofree.protocols import Segmenter
from annofree.running.encodings import kinds_of
from annofree.structures import Detections, Image, Vocabulary
from annofree.testing.conformance import CHECKS
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, scenes

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
        masks = next(s.masks for s in scenes() if s.image.id == image.id)
        return Detections.from_masks(masks, [0] * len(masks), [0.5] * len(masks), Vocabulary.of(classes).names)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_is_a_segmenter(check: Callable[[Segmenter], None]) -> None:
    check(answering())


def test_names_are_given_again_by_what_clip_sees() -> None:
    for scene in scenes():
        found = answering(method=Liar()).instances(scene.image, NAMES)
        assert sorted(found.labels) == sorted(scene.names)


def test_a_distractor_takes_what_is_not_asked_for() -> None:
    scene = next(s for s in scenes() if len(set(s.names)) > 1)
    asked, other = sorted(set(scene.names))[:2]
    method = Answering(Liar(), POLICY, FakeClip(), Distractors((other, "background")))
    found = method.instances(scene.image, [asked])
    assert found.labels == [asked] * scene.names.count(asked)


def test_the_whole_ranking_without_verification() -> None:
    scene = scenes()[0]
    plain = Answering(Liar(), OutputPolicy(), FakeClip())
    assert plain.instances(scene.image, NAMES).labels == [NAMES[0]] * len(scene.names)


def test_what_clip_saw_is_kept_once() -> None:
    image = scenes()[0].image
    assert answering().encode([image])[0][1] is None  # Zip keeps its cells
    assert answering(method=Liar()).encode([image])[0][1] is not None
    assert {"ZipEncoding", "FeatureMap", "Seen"} <= set(kinds_of(answering()))


def test_provenance_tells_the_policy() -> None:
    told = answering().provenance["policy"]
    assert told["overlaps"] == asdict(POLICY.overlaps) and told["calibrated"] is False
    assert any("not calibrated" in remark for remark in answering().remarks(NAMES))


def test_policies_of_presets() -> None:
    assert default_method("tiny") == "consensus" and default_method("fast") == default_method("paper") == "zip"
    assert policy_of("tiny", "consensus").calibration is not None and policy_of("fast", "zip").calibration is None
    assert policy_of("tiny", "zip", {"floor": 0.9}).floor == 0.9
    with pytest.raises(InputError, match="part of a policy"):
        policy_of("tiny", "zip", {"flor": 0.9})


def test_a_policy_by_name() -> None:
    image = Image(np.full((64, 64, 3), 255, np.uint8))
    assert isinstance(load("zip", models="tiny", policy="answer"), Answering)
    assert isinstance(load("zip", models="tiny"), Zip)
    with pytest.raises(InputError, match="policy"):
        load("zip", models="tiny", policy="anser")
    assert len(load("zip", models="tiny", policy={"floor": 1.0}).instances(image, "dog")) == 0
