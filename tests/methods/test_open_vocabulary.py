"""Open vocabulary: a detector's things under names that it learned and names that it did not, on the paper world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from annofree.detections.verification import Naming
from annofree.detectors.build import build_network
from annofree.detectors.config import DetectorConfig
from annofree.errors import InputError
from annofree.methods.detector import Detector, DetectorInfo
from annofree.methods.open_vocabulary import OpenVocabulary, OpenVocabularyEncoding, OpenVocabularySettings
from annofree.pipelines.plan import Plan
from annofree.protocols import Segmenter
from annofree.structures import Detections, FeatureMap, Image, Vocabulary
from annofree.testing.conformance import CHECKS
from annofree.testing.fake_detector import FakeDetector
from annofree.testing.fakes import FakeClip
from annofree.testing.paper_world import NAMES, draw_paper_scenes

SETTINGS = OpenVocabularySettings(negatives=("background",))
KNOWN = ("car", "tree", "thing-3", "thing-4", "thing-5", "thing-6")  # the fake's six, four under names that nobody asks for


def made(settings: OpenVocabularySettings = SETTINGS, names: tuple[str, ...] = NAMES) -> OpenVocabulary:
    return OpenVocabulary(FakeClip(), FakeDetector(), DetectorInfo(names, {"name": "fake-detector", "tier": "S0"}), settings)


class Things(NamedTuple):
    masks: Tensor
    labels: Tensor
    scores: Tensor


class Two:
    """A detector of cats and dogs that sees the left half as both, cat first, and the right one as a cat, hardly."""

    def detect(self, pixels: list[Tensor]) -> list[Things]:
        left = torch.zeros(pixels[0].shape[1:], dtype=torch.bool)
        left[:, : left.shape[1] // 2] = True
        return [Things(torch.stack([left, left, ~left]), torch.tensor([0, 1, 0]), torch.tensor([0.8, 0.4, 0.1]))] * len(pixels)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("names", [NAMES, KNOWN], ids=["all", "other"])
def test_it_is_a_segmenter_whatever_the_network_learned(names: tuple[str, ...], check: Callable[[Segmenter], None]) -> None:
    check(made(names=names))


def test_of_a_network_without_names_all_are_clips() -> None:
    class Nameless(FakeDetector):
        def detect(self, pixels: list[Tensor]) -> list[Any]:
            return [one._replace(labels=one.labels * 0) for one in super().detect(pixels)]

    method = OpenVocabulary(FakeClip(), Nameless(), DetectorInfo(("object",), {}), SETTINGS)
    for scene in draw_paper_scenes():
        assert sorted(method.instances(scene.image, NAMES).labels.tolist()) == sorted(scene.names)
    assert method.remarks("apple, car") == ["the detector did not learn apple, car: CLIP alone names these"]


def test_a_name_that_nobody_taught_is_found_where_the_detector_alone_finds_none() -> None:
    scene = draw_paper_scenes()[0]
    info = DetectorInfo(KNOWN, {"name": "fake-detector"})
    assert scene.names == ("apple",) and not len(Detector(FakeDetector(), info).instances(scene.image, "apple"))
    assert made(names=KNOWN).instances(scene.image, "apple, zeppelin").labels.tolist() == ["apple"]


def test_things_are_distinct_masks_with_a_score_of_each_name() -> None:
    info = DetectorInfo(("cat", "dog"), {})
    encoding = OpenVocabulary(FakeClip(), Two(), info).encode([Image(np.full((8, 20, 3), 128, np.uint8))])[0]
    assert len(encoding.counts) == len(encoding.features) == 2
    assert encoding.head.numpy() == pytest.approx(np.array([[0.8, 0.4], [0.1, 0.0]], np.float32))
    sure = OpenVocabulary(FakeClip(), Two(), info, OpenVocabularySettings(min_detector_score=0.5))
    assert sure.encode([Image(np.full((8, 20, 3), 128, np.uint8))])[0].head.shape == (1, 2)


class Even(FakeClip):
    """Takes what a thing is as it is told, by the features themselves."""

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        return torch.eye(3)[: len(vocabulary)]


def encoded(head: list[list[float]], shares: list[list[float]]) -> OpenVocabularyEncoding:
    """Things of the left half, then more of the same, whose shares under a scale of 1 are those told."""
    masks = np.zeros((len(head), 8, 20), bool)
    for k, mask in enumerate(masks):
        mask[k :: len(head)] = True
    found = Detections.from_masks(masks, np.zeros(len(head), np.int64), [1.0] * len(head), ["object"])
    counts = tuple(rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"] for rle in found.rles)
    return OpenVocabularyEncoding(
        (8, 20),
        torch.zeros(3),
        FeatureMap(torch.zeros(3, 1, 1), (8, 20)),
        counts,
        torch.tensor(shares).log(),
        torch.tensor(head),
    )


def test_known_names_trust_the_head_and_new_ones_clip() -> None:
    settings = OpenVocabularySettings(known=0.25, novel=0.75, unsaid=0.5, naming=Naming(1.0), within=1.0)
    method = OpenVocabulary(Even(), Two(), DetectorInfo(("cat", "dog"), {}), settings)
    encoding = encoded([[0.8, 0.0], [0.8, 0.0]], [[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
    found = method.instances(encoding, "kitten: cat | kitten, dog, zeppelin")
    cat, zeppelin = 0.8**0.75 * 0.5**0.25, 0.8**0.25 * 0.8**0.75
    assert found.labels.tolist() == ["zeppelin", "kitten"]
    assert found.scores == pytest.approx(np.array([zeppelin, cat], np.float32))
    unsaid = method.instances(encoded([[0.8, 0.0]], [[0.01, 0.98, 0.01]]), "cat, dog, zeppelin")
    assert unsaid.labels.tolist() == ["dog"] and unsaid.scores == pytest.approx([0.4**0.75 * 0.98**0.25], abs=1e-5)


def test_the_network_is_asked_for_what_it_is_hardly_sure_of_and_stays_as_it_was() -> None:
    config = DetectorConfig(
        "cascade", ("cat", "dog"), "clip-resnet", layers=(1, 1, 1, 1), width=8, channels=8, fc=8, mask_convs=1, side=64,
        longest=96, norm="group", score_floor=0.9, rpn_before=(50, 50), rpn_after=(20, 20),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of some weights nothing reaches the lower floor either
        network = build_network(config).eval()
    image, info = draw_paper_scenes()[0].image, DetectorInfo(config.names, {})
    found = [
        OpenVocabulary(FakeClip(), network, info, OpenVocabularySettings(min_detector_score=floor)).encode([image])[0]
        for floor in (0.9, 0.01)
    ]
    assert len(found[0].counts) == 0 < len(found[1].counts) and network.config is config


def test_it_says_which_names_are_clips_alone() -> None:
    told = "the detector did not learn apple: CLIP alone names these"
    assert made(names=KNOWN).remarks("apple, car") == [told] and made().remarks("apple, car") == []
    assert made().provenance["models"][1]["trained_on"] == list(NAMES)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected known in 0 .. 1, got 2"):
        OpenVocabularySettings(known=2)
    with pytest.raises(InputError, match="variant of open_vocabulary"):
        OpenVocabulary(FakeClip(), FakeDetector(), DetectorInfo(NAMES, {}), "defalt")


def test_what_hangs_on_no_name_is_in_the_encoding() -> None:
    method, image = made(), draw_paper_scenes()[0].image
    encoding = method.encode([image])[0]
    method.network = None  # type: ignore[assignment]
    assert method.instances(encoding, NAMES).labels.tolist() == made().instances(image, NAMES).labels.tolist()
    assert method.encoding_key != made(replace(SETTINGS, seen=3)).encoding_key
    assert method.encoding_key == made(replace(SETTINGS, known=0.9, within=1.0)).encoding_key


# Who is asked where a detector is given


def plan(models: str, detector: Path | None, **more: Any) -> Plan:
    rest = {"method": None, "variant": "default", "objectness": "found", "device": "cpu", "policy": "answer"}
    return Plan(("instance",), models=models, detector=detector, **{**rest, **more})


def test_a_detector_is_asked_by_a_method_that_takes_it(tmp_path: Path) -> None:
    (tmp_path / "detector.json").write_text("{}")
    assert plan("fast", None).resolve_methods() == {"instance": "zip"}
    assert plan("fast", tmp_path).resolve_methods() == {"instance": "open_vocabulary"}
    assert plan("tiny", tmp_path).resolve_methods() == {"instance": "consensus"}
    assert plan("tiny", tmp_path, policy="all").resolve_methods() == {"instance": "open_vocabulary"}
    plan("fast", tmp_path).check()
    with pytest.raises(InputError, match=r"takes a detector, such as consensus or open_vocabulary, got zip; to ask"):
        plan("fast", tmp_path, method="zip").check()
