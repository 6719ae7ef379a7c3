"""Sure masks of many points: what is left of plain prediction once the unsure is gone, whatever is skipped on the way."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from annofree.detections.proposals import build_point_grid
from annofree.features.decoders.two_way import TwoWayDecoder
from annofree.features.sam import Sam
from annofree.features.sam_inputs import Frame
from annofree.hub.cards import find_bundled
from annofree.protocols import Keep, SureMasker, SureMasks, Sureness
from annofree.structures import Image


@pytest.fixture(scope="module")
def sam() -> Sam:
    return Sam(find_bundled("tiny-sam"))


@pytest.fixture(scope="module")
def image() -> Image:
    y, x = np.mgrid[:90, :140]
    inside = (np.hypot(y - 40, x - 50) < 25) | ((y > 50) & (x > 90))
    return Image(np.where(inside[..., None], (230, 120, 20), (90, 110, 140)).astype(np.uint8))


def join(parts: list[SureMasks]) -> tuple[Any, Any]:
    return np.concatenate([p.masks for p in parts]), np.concatenate([p.quality for p in parts])


@pytest.mark.parametrize("keep", get_args(Keep))
@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_sure_masks_are_those_of_plain_prediction_above_the_thresholds(
    sam: Sam, image: Image, keep: Keep, share: float
) -> None:
    (embedding,) = sam.embed([image])
    points = build_point_grid(4, image.size)
    drawn = sam.predict_masks(embedding, points=points, multimask=keep != "first")
    least = float(drawn.quality.quantile(share)) if share else 0.0
    sure = Sureness(keep, quality=least, stability=0)
    masks, quality = sure.choose_masks(drawn.masks, drawn.quality)
    filled = masks.flatten(1).any(1)
    found, guessed = join(list(sam.iterate_sure_masks(embedding, points, sure)))
    assert isinstance(sam, SureMasker)
    assert (guessed == quality[filled].numpy()).all(), "the order is that of the points"
    assert (found != masks[filled].numpy()).mean() < 1e-4 if len(found) else not filled.any()
    assert (len(found) == 0) == (share == 1.0)


def test_stability_is_counted_at_the_size_of_the_image(sam: Sam, image: Image) -> None:
    (embedding,) = sam.embed([image])
    points = build_point_grid(4, image.size)
    kept = [
        len(join(list(sam.iterate_sure_masks(embedding, points, Sureness(quality=0, stability=least))))[0])
        for least in (0.0, 0.5, 0.9, 1.1)
    ]
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[2] and kept[-1] == 0


@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize("size", [(48, 64), (200, 31), (1, 1), (7, 130)])
def test_a_frame_enlarges_by_matrices_as_step_by_step(fit: Literal["pad", "squash"], size: tuple[int, int]) -> None:
    frame = Frame(64, fit)
    logits = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    masks, _ = frame.build_enlargement(16, size, torch.device("cpu")).cut_masks(logits[:, 0], 1.0)
    assert (masks == frame.resize_masks(logits, size)[:, 0].numpy()).all()


@pytest.mark.parametrize("multimask", [False, True])
def test_no_cell_is_upscaled_for_a_prompt_without_a_sure_mask(
    sam: Sam, image: Image, multimask: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (embedding,) = sam.embed([image])
    decoder = TwoWayDecoder(sam._model)
    upscaled: list[int] = []
    upscale = TwoWayDecoder._upscale

    def watched(self: TwoWayDecoder, side: Any, cells: Any) -> Any:
        upscaled.append(len(cells))
        return upscale(self, side, cells)

    monkeypatch.setattr(TwoWayDecoder, "_upscale", watched)
    points = torch.rand(1, 8, 1, 2, generator=torch.Generator().manual_seed(0)) * 256
    given = {"input_points": points, "input_labels": torch.ones(1, 8, 1, dtype=torch.long)}
    with torch.inference_mode():
        side = decoder.prepare_image(embedding.state[-1], *embedding.state[-2::-1])
        logits, quality = decoder.decode_prompts(side, given, multimask)
        least = float(quality.max(1).values.sort().values[4])
        rows = (quality > least).any(1)
        some, better = decoder.decode_above(side, given, multimask, least)
        none, nothing = decoder.decode_above(side, given, multimask, 1e9)
    assert upscaled == [8, 3] and none.shape == (0, *logits.shape[1:]) and nothing.shape == (0, quality.shape[1])
    assert torch.equal(better, quality[rows]) and F.l1_loss(some, logits[rows]) < 1e-4
