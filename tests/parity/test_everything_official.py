"""Everything mode beside the generator that was released with SAM, where its package is installed.

Both get the same logits, of spots around points; so all that is compared is what follows: points, crops, filters, boxes, NMS.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from annofree.methods.class_agnostic.sam_everything import SamEverything, SamEverythingSettings
from annofree.ops.rle import compute_rle_ious, encode_rles
from annofree.protocols import Embedding, SureMasks, Sureness
from annofree.structures import Image

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("segment_anything") is None, reason="segment-anything is not there to compare with"
)

SIZE = 60, 84


def draw_spots(size: tuple[int, int], points: Any) -> tuple[Tensor, Tensor]:
    """Logits (P, 3, H, W) of spots with crumbs and holes, in three sizes, and guesses (P, 3): for a point always the same."""
    high, wide = size
    y, x = np.mgrid[:high, :wide].astype(np.float32) + 0.5
    logits, guesses = [], []
    for px, py in np.asarray(points, np.float32):
        rng = np.random.default_rng(zlib.crc32(np.array([high, wide, px, py], np.float32).tobytes()))
        crumbs = np.kron(rng.random((-(-high // 3), -(-wide // 3))), np.ones((3, 3)))[:high, :wide]
        for share in (0.06, 0.12, 0.25):
            middle, radius = np.array([px, py]) + rng.normal(0, 3, 2), share * min(size)
            far = np.hypot((x - middle[0]) / rng.uniform(0.7, 1.4), y - middle[1])
            turned = (crumbs > 0.97) & (far < 1.4 * radius)
            logits.append((radius - far) * rng.uniform(0.5, 9) * np.where(turned, -1, 1))
            guesses.append(rng.integers(60, 110) / 100)
    shape = len(points), 3
    return torch.tensor(np.array(logits, np.float32)).view(*shape, *size), torch.tensor(guesses).float().view(shape)


class Spots:
    """What both ask: a predictor of the released package, and a masker."""

    provenance: ClassVar[dict[str, Any]] = {}
    model = SimpleNamespace(mask_threshold=0.0)
    device = torch.device("cpu")

    def set_image(self, pixels: Any) -> None:
        self.size = pixels.shape[:2]

    def reset_image(self) -> None:
        del self.size

    transform = SimpleNamespace(apply_coords=lambda points, size: points)

    def predict_torch(self, points: Tensor, labels: Tensor, **_: Any) -> tuple[Tensor, Tensor, None]:
        return *draw_spots(self.size, points[:, 0].numpy()), None

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        return [Embedding(image.size, ()) for image in images]

    def predict_masks(self, embedding: Embedding, **_: Any) -> Any:
        raise NotImplementedError

    def iterate_sure_masks(self, embedding: Embedding, points: Any, sure: Sureness) -> Iterator[SureMasks]:
        for start in range(0, len(points), 50):
            logits, quality = sure.choose_masks(*draw_spots(embedding.size, points[start : start + 50]))
            stability = (logits > sure.offset).sum((1, 2)) / (logits > -sure.offset).sum((1, 2))
            kept = sure.pass_stable(stability) & (logits > 0).any(2).any(1)
            yield SureMasks((logits[kept] > 0).numpy(), quality[kept].numpy())


CASES = [
    SamEverythingSettings(),
    SamEverythingSettings(12, crop_layers=1),
    SamEverythingSettings(12, crop_layers=2, crop_fewer=2, crop_overlap=0.2, nms=0.5),
    SamEverythingSettings(16, min_region=30),
    SamEverythingSettings(32, crop_layers=1, crop_fewer=2, min_region=30),
    SamEverythingSettings(12, crop_layers=1, min_region=12, crop_nms=0.9, sure=Sureness(quality=0, stability=0.8)),
]


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_what_follows_the_network_is_that_of_the_released_generator(settings: SamEverythingSettings) -> None:
    if settings.min_region:
        pytest.importorskip("cv2", reason="OpenCV is not there to compare with")
    from segment_anything import SamAutomaticMaskGenerator

    released = SamAutomaticMaskGenerator(
        SimpleNamespace(image_encoder=SimpleNamespace(img_size=128), device="cpu"),
        settings.points,
        pred_iou_thresh=settings.sure.quality,
        stability_score_thresh=settings.sure.stability,
        box_nms_thresh=settings.nms,
        crop_n_layers=settings.crop_layers,
        crop_nms_thresh=settings.crop_nms,
        crop_overlap_ratio=settings.crop_overlap,
        crop_n_points_downscale_factor=settings.crop_fewer,
        min_mask_region_area=settings.min_region,
    )
    released.predictor = Spots()
    pixels = np.zeros((*SIZE, 3), np.uint8)
    expected = [one for one in released.generate(pixels) if one["area"]]
    (found,) = SamEverything(Spots(), settings).discover([Image(pixels)])
    assert len(found) == len(expected) > 10
    order = np.argsort([-one["predicted_iou"] for one in expected], kind="stable")
    theirs = encode_rles(np.stack([expected[k]["segmentation"] for k in order]))
    guesses = np.array([expected[k]["predicted_iou"] for k in order]).clip(0, 1)
    np.testing.assert_allclose(found.scores, guesses, atol=1e-6)
    assert sorted(map(str, found.rles)) == sorted(map(str, theirs)), "the same masks to the pixel"
    assert (compute_rle_ious(theirs, found.rles).max(1) == 1).all()
