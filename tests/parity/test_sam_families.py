"""Every SAM family, random and tiny but of the true structure, against transformers' own processor and model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from tests.support.sams import SAMS, SIDE, build_sam
from torch import Tensor
from transformers.utils import logging

from annofree.features.sam import Sam
from annofree.hub.cards import Card
from annofree.structures import Image
from annofree.testing.tolerances import assert_close, assert_same_masks, assert_same_pixels

KINDS = tuple(SAMS)
CARD = Card(name="random", family="none", tier="S2", licence="none", trained_on="nothing", world="none", files={})
Reference = tuple[list[Tensor], list[Tensor]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of each family, every tensor random, with its processor beside the weights."""
    root = tmp_path_factory.mktemp("families")
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for kind in KINDS:
        build_sam(kind).save_pretrained(root / kind)
        processor(kind).save_pretrained(root / kind)
    yield root
    logging.set_verbosity(level)
    logging.enable_progress_bar()


def processor(kind: str) -> Any:
    if kind in ("sam", "sam_hq"):
        images = transformers.SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
        made = (transformers.SamProcessor if kind == "sam" else transformers.SamHQProcessor)(images)
        made.target_size = SIDE
        return made
    return transformers.Sam2Processor(transformers.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}))


def model_of(home: Path, kind: str) -> Any:
    name = {"sam": "SamModel", "sam_hq": "SamHQModel", "edgetam": "EdgeTamModel", "edgetam_video": "EdgeTamModel"}.get(
        kind, "Sam2Model"
    )
    return getattr(transformers, name).from_pretrained(home / kind).eval()


def picture(height: int, width: int, seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    pixels = np.kron(coarse, np.ones((height // 5 + 1, width // 7 + 1, 1), np.uint8))[:height, :width]
    return Image(np.clip(pixels.astype(int) + rng.integers(-20, 20, pixels.shape), 0, 255).astype(np.uint8))


def prompts(size: tuple[int, int], count: int = 3, each: int = 1, seed: int = 0) -> dict[str, Any]:
    """Boxes (P, 4), points (P, each, 2) and labels (P, each) within an image."""
    rng = np.random.default_rng(seed)
    limit = np.array(size[::-1])
    low = rng.uniform(0, 0.5, (count, 2)) * limit
    return {
        "boxes": np.concatenate([low, low + rng.uniform(0.2, 0.5, (count, 2)) * limit], 1).astype(np.float32),
        "points": (rng.uniform(0, 1, (count, each, 2)) * limit).astype(np.float32),
        "labels": rng.integers(0, 2, (count, each)),
    }


def official(model: Any, prepare: Any, images: list[Image], given: list[dict[str, npt.NDArray[Any]]], many: bool) -> Reference:
    """Logits at each image's size, and qualities, as transformers makes them from pixels in one call."""
    columns = {f"input_{k}": [g[k].tolist() for g in given] for k in given[0]}
    inputs = prepare(images=[i.pixels for i in images], return_tensors="pt", **columns)
    inputs = {k: v.float() if v.dtype == torch.float64 else v for k, v in inputs.items()}
    asked = {k: inputs[k] for k in ("pixel_values", "input_boxes", "input_points", "input_labels") if k in inputs}
    with torch.inference_mode():
        out = model(**asked, multimask_output=many)
    padded = [inputs["reshaped_input_sizes"]] if "reshaped_input_sizes" in inputs else []
    logits = prepare.image_processor.post_process_masks(out.pred_masks, inputs["original_sizes"], *padded, binarize=False)
    return logits, list(out.iou_scores)


def assert_same(masks: Tensor, quality: Tensor, logits: Tensor, expected: Tensor) -> None:
    assert_close(quality, expected, depth="network")
    assert masks.shape == logits.shape and masks.dtype == torch.bool
    sure = logits.abs() > 1e-3  # what is nearer to the edge may fall on either side
    assert float(sure.float().mean()) > 0.98
    assert torch.equal(masks[sure], logits[sure] > 0)
    assert 0.002 < float(masks.float().mean()) < 0.998  # neither all nor nothing


CHOICES = {"box": ("boxes",), "points": ("points", "labels"), "both": ("boxes", "points", "labels")}


@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_qualities_are_those_of_transformers(home: Path, kind: str) -> None:
    sam, model, prepare = Sam(home / kind, card=CARD), model_of(home, kind), processor(kind)
    images = [picture(90, 150), picture(90, 150, 1)]
    embeddings = sam.embed(images)
    for chosen in CHOICES.values():
        for many in (False, True):
            given = [{k: v for k, v in prompts(i.size, each=2, seed=s).items() if k in chosen} for s, i in enumerate(images)]
            logits, quality = official(model, prepare, images, given, many)
            for k, embedding in enumerate(embeddings):
                found = sam.predict_masks(embedding, multimask=many, **given[k])
                assert_same(found.masks, found.quality, logits[k], quality[k])


@pytest.mark.parametrize("size", [(200, 70), (128, 128), (61, 300), (40, 40)])
@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_any_size_of_picture(home: Path, kind: str, size: tuple[int, int]) -> None:
    sam = Sam(home / kind, card=CARD)
    image, given = picture(*size), prompts(size)
    logits, quality = official(model_of(home, kind), processor(kind), [image], [given], True)
    found = sam.predict_masks(sam.embed([image])[0], multimask=True, **given)
    assert_same(found.masks, found.quality, logits[0], quality[0])


@pytest.mark.parametrize("kind", KINDS)
def test_several_pictures_in_one_call_are_as_one_by_one(home: Path, kind: str) -> None:
    sam = Sam(home / kind, card=CARD)
    images = [picture(90, 150), picture(64, 64, 1), picture(150, 70, 2), picture(50, 50, 3)]
    embeddings = sam.embed(images)
    given = [prompts(i.size, count, 2, seed) for seed, (i, count) in enumerate(zip(images, (3, 70, 0, 1), strict=True))]
    for chosen in CHOICES.values():
        columns: dict[str, Any] = {k: [g[k] for g in given] for k in chosen}
        for together, embedding, one in zip(sam.predict_masks_batch(embeddings, **columns), embeddings, given, strict=True):
            alone = sam.predict_masks(embedding, **{k: one[k] for k in chosen})
            assert together.masks.shape == alone.masks.shape
            assert_close(together.quality, alone.quality, depth="network")
            assert_same_masks(together.masks, alone.masks)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "edgetam_video"])  # which is read as edgetam
def test_half_precision_is_near(home: Path, kind: str, dtype: torch.dtype) -> None:
    image, given = picture(90, 150), prompts((90, 150))
    full, half = Sam(home / kind, card=CARD), Sam(home / kind, card=CARD, dtype=dtype)
    (embedding,) = half.embed([image])
    assert {level.dtype for level in embedding.state} == {dtype}
    expected, found = full.predict_masks(full.embed([image])[0], **given), half.predict_masks(embedding, **given)
    assert found.quality.dtype == torch.float32
    assert_close(found.quality, expected.quality, dtype=dtype, depth="network")
    # three digits move the edges of a random network's masks; seen were 0.0011 and 0.008 of the pixels
    assert_same_pixels(found.masks, expected.masks, share=0.003 if dtype == torch.float16 else 0.03)


def test_bytes_are_resized_as_pil_does(home: Path) -> None:
    import PIL.Image

    sam, image = Sam(home / "sam", card=CARD), picture(90, 150)
    x = sam._frame.preprocess(image, torch.device("cpu"))[0]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    resized = PIL.Image.fromarray(image.pixels).resize((128, 77), PIL.Image.Resampling.BILINEAR)  # 90 * 128 / 150 = 76.8
    expected = torch.tensor(np.asarray(resized)).permute(2, 0, 1)
    assert float(((x * std + mean) * 255)[:, :77].sub(expected).abs().max()) < 1.01  # one level, from rounding
    assert torch.equal(x[:, 77:], torch.zeros(3, 51, 128))
