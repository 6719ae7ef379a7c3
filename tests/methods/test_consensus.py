"""Consensus: masks from several proposers, named by competition, on the paper world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from annofree.detections.verification import SIGNALS, Calibration
from annofree.errors import InputError
from annofree.methods.consensus import Consensus, ConsensusSettings
from annofree.methods.variants import change_settings
from annofree.protocols import Segmenter
from annofree.structures import Image, Vocabulary
from annofree.testing.conformance import CHECKS
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.tolerances import assert_close

PAPER = tuple(name for name in ("background",))
SETTINGS = ConsensusSettings(points=24, negatives=PAPER, largest=0.6)


def made(settings: ConsensusSettings = SETTINGS) -> Consensus:
    return Consensus(FakeClip(), FakeSam(), settings)


@dataclass(frozen=True, eq=False)
class Found:
    masks: Tensor
    scores: Tensor
    labels: Tensor


class Eye:
    """A detector that sees the whole image as one thing, and nothing as another."""

    def detect(self, pixels: list[Tensor]) -> Sequence[Found]:
        size = pixels[0].shape[1:]
        return [
            Found(
                torch.stack([torch.ones(size), torch.zeros(size)]).bool(),
                torch.tensor([0.75, 0.9]),
                torch.zeros(2, dtype=torch.long),
            )
        ]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_is_a_segmenter(check: Callable[[Segmenter], None]) -> None:
    check(made())


def test_detections_are_candidates_with_their_own_score() -> None:
    image = draw_paper_scenes()[0].image
    own = ConsensusSettings(sources=("detector",))
    encoding = Consensus(FakeClip(), FakeSam(), own, Eye(), {"name": "eye"}).encode([image])[0]
    assert encoding.drawn[:, :4].tolist() == [[0.0, 0.0, 1.0, 0.75]]  # the empty one is none
    assert len(encoding.counts) == len(encoding.features) == len(encoding.shape) == 1


def test_clip_looks_at_the_surest_alone() -> None:
    image = max(draw_paper_scenes(), key=lambda scene: len(scene.names)).image
    every, few = (Consensus(FakeClip(), FakeSam(), replace(SETTINGS, seen=n)).encode([image])[0] for n in (64, 2))
    assert len(few.counts) == len(few.features) == len(few.shape) == 2 < len(every.counts)
    assert few.counts == every.counts[:2] and torch.equal(few.shape, every.shape[:2])  # beside all that were proposed


def test_each_pixel_has_the_likeliest_name_of_its_masks() -> None:
    for scene in draw_paper_scenes():
        labels = made().semantic(scene.image, NAMES)
        assert labels.names == ("background", *NAMES) and labels.background == 0
        for mask, name in zip(scene.masks, scene.names, strict=True):
            assert (labels.labels[mask] == 1 + NAMES.index(name)).mean() > 0.9
        assert (labels.labels[~scene.masks.any(0)] == 0).mean() > 0.9
        listed = made().semantic(scene.image, [*NAMES, "background"])
        assert listed.names == (*NAMES, "background") and listed.background == len(NAMES)


def test_a_detector_is_asked_only_where_the_settings_say_so() -> None:
    method = Consensus(FakeClip(), FakeSam(), replace(SETTINGS, sources=("grid",)), Eye(), {"name": "eye"})
    assert method.detector is None and [m["name"] for m in method.provenance["models"]] == ["fake-clip", "fake-sam"]


def test_all_that_hangs_on_no_name_is_in_the_encoding() -> None:
    method, image = made(), draw_paper_scenes()[0].image
    encoding = method.encode([image])[0]
    method.sam = None  # type: ignore[assignment]
    assert method.instances(encoding, NAMES).labels.tolist() == made().instances(image, NAMES).labels.tolist()


def test_fragments_are_drawn_by_their_boxes() -> None:
    settings = replace(SETTINGS, sources=("fragments",), min_cells=4)
    for scene in draw_paper_scenes():
        found = made(settings).instances(scene.image, NAMES)
        assert set(found.labels) >= set(scene.names) or not scene.names


def test_the_calibration_scores_what_is_told() -> None:
    scene = draw_paper_scenes()[0]
    method = made(replace(SETTINGS, calibration=Calibration({"share": 1.0, "quality": 0.5}, 0.25)))
    encoding = method.encode([scene.image])[0]
    words = method.clip.encode_text(Vocabulary.of([*NAMES, *PAPER]))
    shares = method.settings.naming.compute_shares(encoding.features, words)
    signals = method.compute_signals(encoding, words, shares)
    expected = 1 / (1 + np.exp(-(signals[:, SIGNALS.index("share")] + 0.5 * signals[:, SIGNALS.index("quality")] + 0.25)))
    asked = shares.argmax(1).numpy() < len(NAMES)
    found = method.instances(encoding, NAMES)
    assert_close(found.scores, np.sort(expected[asked])[::-1].astype(np.float32).copy())


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(InputError, match="variant of consensus"):
        Consensus(FakeClip(), FakeSam(), "defalt")


def test_a_list_of_a_settings_file_is_a_tuple() -> None:
    settings = change_settings(SETTINGS, {"sources": ["grid"], "negatives": ["wall"]})
    assert settings.sources == ("grid",) and settings.negatives == ("wall",)
    assert hash(made(settings).encoding_key) == hash(made(replace(SETTINGS, sources=("grid",))).encoding_key)


def test_no_images_and_a_tiny_one() -> None:
    assert made().encode([]) == []
    assert len(made().instances(Image(np.full((1, 1, 3), 128, np.uint8)), NAMES)) == 0
