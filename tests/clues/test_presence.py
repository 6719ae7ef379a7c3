"""Presence set against a folder: names that are liked too well come down, the rest stays as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from annofree.clues.presence import FEWEST, measure_folder_levels, standardize_evidence, subtract_levels
from annofree.errors import InputError
from annofree.methods.zip import VARIANTS, Zip
from annofree.structures import Vocabulary
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.tolerances import assert_close


def test_a_bias_of_names_is_taken_off() -> None:
    generator = torch.Generator().manual_seed(0)
    fair = torch.randn(400, 5, generator=generator) - 3
    bias = torch.tensor([2.0, -1.0, 0.0, 0.5, -1.5])  # sums to 0, so the level of all stays
    levels = measure_folder_levels(torch.sigmoid(fair + bias))
    assert (levels - bias).abs().max() < 0.25  # five deviations of a mean of 400
    assert_close(levels.sum(), 0.0)
    assert_close(subtract_levels(torch.sigmoid(fair + bias), levels), torch.sigmoid(fair - (levels - bias)))


def test_sure_presences_stay_finite() -> None:
    levels = measure_folder_levels([torch.tensor([0.0, 1.0])] * FEWEST)
    assert torch.isfinite(levels).all() and torch.isfinite(subtract_levels(torch.tensor([1.0, 0.0]), levels)).all()


def test_few_pictures_say_nothing() -> None:
    with pytest.raises(InputError, match=f"expected {FEWEST} images or more .* got 19"):
        measure_folder_levels([torch.tensor([0.5, 0.5])] * 19)


class Fond(FakeClip):
    """Likes the first name in every image a little."""

    def score_presence(self, whole, tokens, words):  # type: ignore[no-untyped-def]
        real = super().score_presence(whole, tokens, words)
        liked = torch.where(torch.arange(len(real)) == 0, 0.1, 0.001)
        return torch.maximum(0.9 * real, liked)


def test_zip_passes_over_a_name_that_it_likes_everywhere() -> None:
    plain = Zip(Fond(), FakeSam(), replace(VARIANTS["paper"], presence=0.02))
    encodings = plain.encode([scene.image for scene in draw_paper_scenes()])
    folder = plain.with_calibration((encodings * FEWEST)[: 5 * len(encodings)], NAMES)
    words, gate = plain.clip.encode_text(Vocabulary.of(NAMES)), plain.settings.presence
    levels = torch.tensor([folder.provenance["presence_levels"][name] for name in NAMES])
    for scene, encoding in zip(draw_paper_scenes(), encodings, strict=True):
        presence = plain.clip.score_presence(encoding.whole, encoding.tokens, words)
        assert presence[0] >= gate
        assert (subtract_levels(presence, levels)[0] >= gate) == (NAMES[0] in scene.names)
        assert sorted(folder.instances(encoding, NAMES).labels) == sorted(scene.names)
    assert folder.encoding_key == plain.encoding_key
    assert set(folder.provenance["presence_levels"]) == set(NAMES) and "presence_levels" not in plain.provenance


def test_a_small_thing_stands_out_in_the_cells_alone() -> None:
    evidence = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)) * 0.02 + torch.tensor([0.2, 0.1])
    evidence[3, 1], evidence[5, 0] = 0.3, 0.5
    out = standardize_evidence(evidence)
    assert out.argsort(descending=True)[:2].tolist() == [5, 3] and (out >= 4).sum() == 2
    assert torch.isinf(standardize_evidence(evidence[:19])).all()
