"""SelfMask's pseudo-labels: images whose thing can be seen, sources that disagree, and the parts that a vote is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.methods.components import Models
from annofree.ops.spectral import choose_winner
from annofree.protocols import Objectness
from annofree.structures import FeatureMap, Image
from annofree.testing.fakes import FakeClip, FakeDino
from annofree.testing.paper_world import BACKGROUND
from annofree.training.selfmask.spectral_voting import SOURCES, SpectralVoter, Voting, cut_masks, extract_colors, select_voter


def square(at: tuple[int, int] = (16, 24), side: int = 24, size: tuple[int, int] = (64, 80)) -> tuple[Image, torch.Tensor]:
    """A warm square on a cool ground, both a little noisy."""
    rng = np.random.default_rng(0)
    pixels = np.full((*size, 3), (60, 90, 160), np.float64)
    truth = torch.zeros(size, dtype=torch.bool)
    rows, columns = (slice(a, a + side) for a in at)
    pixels[rows, columns] = 220, 120, 40
    truth[rows, columns] = True
    return Image((pixels + rng.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)), truth


FAST = Voting(most=900)


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_colour_alone_finds_a_thing_of_another_colour() -> None:
    image, truth = square()
    voter = SpectralVoter({"colour": extract_colors})
    objectness: Objectness = voter
    (vote,) = voter.vote([image])
    assert iou(vote.mask, truth) > 0.8 and vote.source == "colour" and 0 < vote.agreement <= 1
    assert torch.equal(objectness.predict_maps([image])[0], vote.mask.float())


def test_the_same_picture_gets_the_same_mask_in_any_company() -> None:
    (one, _), (other, _) = square(), square((4, 40), 16)
    voter = SpectralVoter({"colour": extract_colors, "dino": FakeDino().extract_keys}, FAST)
    together, alone = voter.vote([other, one]), [voter.vote([i])[0] for i in (other, one)]
    # exactly: each image is cut by itself, whoever is there
    assert all(torch.equal(a.mask, b.mask) and a.agreement == b.agreement for a, b in zip(together, alone, strict=True))


def test_nine_masks_a_source_cut_a_picture_into_two_three_and_four() -> None:
    image, _ = square()
    masks = cut_masks(extract_colors([image])[0])
    assert masks.shape == (9, 64, 80)
    for first, count in ((0, 2), (2, 3), (5, 4)):
        assert (masks[first : first + count].sum(0) == 1).all(), "each pixel is in one of them"


def test_padding_is_cut_off_and_cells_lie_where_they_were_seen() -> None:
    thing = torch.zeros(2, 3, 4)
    thing[0, 1, 2] = thing[1, 0] = 1.0
    thing[1, 1, 2] = 0
    thing[1, 2] = 1.0
    features = FeatureMap(thing, (20, 27), (24, 32))
    masks = cut_masks(features, Voting(counts=(2,), enlarge=1))
    expected = F.interpolate(thing[None, :1], size=(24, 32), mode="nearest")[0, 0, :20, :27] > 0.5
    assert masks.shape == (2, 20, 27) and any(torch.equal(m, expected) or torch.equal(~m, expected) for m in masks)


def test_a_large_grid_is_made_smaller() -> None:
    image, truth = square()
    (features,) = extract_colors([image])
    few = cut_masks(features, Voting(counts=(2,), most=100))
    assert few.shape == (2, 64, 80) and max(iou(m, truth) for m in few) > 0.6
    edges = (few[0][1:] != few[0][:-1]).any(1).sum()
    assert edges <= 9, "9 rows of cells, so 8 places where rows can differ"


def test_the_vote_runs_over_all_sources() -> None:
    image, truth = square()
    off, _ = square((30, 4), 20)

    def misled(images: Sequence[Image]) -> list[FeatureMap]:
        return [FeatureMap(extract_colors([off])[0].values, i.size) for i in images]

    voter = SpectralVoter({"misled": misled, "dino": extract_colors, "clip": extract_colors}, FAST)
    (vote,) = voter.vote([image])
    every = torch.cat([cut_masks(source([image])[0], FAST) for source in voter.sources.values()])
    assert torch.equal(vote.mask, every[choose_winner(every)[0]])
    assert iou(vote.mask, truth) > 0.8 and vote.source == "dino", "two against one, and the first of equals"
    assert list(voter.provenance["sources"]) == ["misled", "dino", "clip"]


def test_dino_s_keys_find_paint_on_paper() -> None:
    pixels = np.full((64, 72, 3), BACKGROUND, np.uint8)
    pixels[16:40, 24:48] = 200, 30, 30
    (vote,) = SpectralVoter({"dino": FakeDino().extract_keys}).vote([Image(pixels)])
    assert iou(vote.mask, torch.from_numpy(pixels[..., 1] == 30)) > 0.6


def test_a_picture_of_nothing_is_one_mask() -> None:
    (vote,) = SpectralVoter({"colour": extract_colors}).vote([Image(np.full((20, 30, 3), 90, np.uint8))])
    assert bool(vote.mask.all()) and vote.agreement == 1.0


def test_sources_are_taken_by_name() -> None:
    class Parts:
        clip, dino = FakeClip(), FakeDino()

    models = cast(Models, Parts())
    image, _ = square()
    voter = select_voter(list(SOURCES), models)
    assert list(voter.sources) == list(SOURCES)
    for name, source in voter.sources.items():
        assert source([image])[0].values.ndim == 3, name
    assert voter.provenance["sources"]["dino"] == FakeDino().provenance and voter.provenance["sources"]["colour"] is None
    assert voter.tier == "S0" and SpectralVoter({"a": extract_colors}, models={"a": {"tier": "S1"}}).tier == "S1"
    with pytest.raises(InputError, match="source of features 'moco'"):
        select_voter(["moco"], models)


@pytest.mark.parametrize("wrong", [{"sources": {}}, {"settings": Voting(counts=())}, {"settings": Voting(counts=(0, 2))}])
def test_a_vote_without_candidates_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        SpectralVoter(**{"sources": {"colour": extract_colors}} | wrong)
