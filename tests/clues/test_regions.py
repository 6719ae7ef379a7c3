"""What CLIP sees of a mask: pooled from cells, or cut out with all else blanked."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from annofree.clues.regions import draw_cut_outs, encode_cut_outs, pool_features
from annofree.structures import FeatureMap, Image, Vocabulary
from annofree.testing.fakes import FakeClip
from annofree.testing.paper_world import NAMES, draw_paper_scenes


def masks(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (12, 18)) -> np.ndarray:
    found = np.zeros((len(boxes), *size), bool)
    for mask, (x0, y0, x1, y1) in zip(found, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return found


def test_pooling_is_the_mean_of_cells_by_how_much_is_covered() -> None:
    tokens = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))
    mask = masks((0, 0, 5, 3), (7, 2, 18, 12))
    found = pool_features(FeatureMap(tokens, (12, 18)), mask)
    for one, feature in zip(mask, found, strict=True):
        share = one.reshape(4, 3, 6, 3).mean((1, 3))
        expected = F.normalize((tokens * torch.from_numpy(share).float()).sum((1, 2)), dim=0)
        torch.testing.assert_close(feature, expected)


def test_a_window_beyond_the_image_is_covered_by_nothing() -> None:
    tokens = torch.zeros(2, 1, 2)
    tokens[0, 0, 0], tokens[1, 0, 1] = 1.0, 1.0
    found = pool_features(FeatureMap(tokens, (4, 6), window=(4, 8)), np.ones((1, 4, 6), bool))
    torch.testing.assert_close(found, F.normalize(torch.tensor([[1.0, 0.5]]), dim=1))


def test_no_masks_give_no_features() -> None:
    assert pool_features(FeatureMap(torch.zeros(3, 2, 2), (4, 4)), np.zeros((0, 4, 4), bool)).shape == (0, 3)
    assert (
        encode_cut_outs(
            FakeClip(), draw_paper_scenes()[0].image, np.zeros((0, *draw_paper_scenes()[0].image.size), bool)
        ).shape[0]
        == 0
    )


def test_a_cut_out_shows_the_mask_alone() -> None:
    image = Image(np.full((40, 60, 3), 255, np.uint8))
    (square,) = draw_cut_outs(image, masks((0, 10, 20, 30), size=(40, 60)), 22)
    assert square.shape == (3, 22, 22)
    assert float(square[:, 11, 11].min()) == 1.0 and float(square[:, 0, 0].max()) == 0.5  # grey beyond the mask, and the image
    assert 0.75 < float((square > 0.9).float().mean()) < 0.9  # 20 of 22 px a side


def test_objects_are_named_by_both_readings() -> None:
    clip = FakeClip()
    words = clip.encode_text(Vocabulary.of(NAMES))
    for scene in draw_paper_scenes():
        if scene.names:
            for features in (
                encode_cut_outs(clip, scene.image, scene.masks),
                pool_features(clip.encode_dense([scene.image])[0], scene.masks),
            ):
                assert [NAMES[k] for k in (features @ words.T).argmax(1)] == list(scene.names)
