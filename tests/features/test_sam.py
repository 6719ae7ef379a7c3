import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.features.sam import Sam
from annofree.features.weights import bundled
from annofree.protocols import Embedding
from annofree.structures import Image


@pytest.fixture(scope="module")
def sam() -> Sam:
    return Sam(bundled("tiny-sam"))


def disc(height: int, width: int, centre: tuple[float, float], radius: float) -> Image:
    """A bright disc, its centre (y, x), on a dull and slightly uneven ground."""
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - centre[0], x - centre[1]) < radius
    pixels = np.where(inside[..., None], (230, 120, 20), (90, 110, 140)) + (x % 3)[..., None]
    return Image(pixels.astype(np.uint8))


def boxes(*rows: tuple[float, float, float, float]) -> npt.NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def points(*rows: tuple[float, float]) -> npt.NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 2)


def normalised(sam: Sam, image: Image) -> Tensor:
    x = torch.tensor(image.pixels).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(sam.card.use[k]).view(3, 1, 1) for k in ("mean", "std"))
    return (x - mean) / std


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("prompt", ["box", "point", "both"])
def test_drawing_from_an_embedding_is_the_full_forward_pass(sam: Sam, prompt: str, many: bool) -> None:
    image = disc(256, 256, (120, 100), 50)  # the model's own size: nothing is resized
    b = boxes((50, 70, 150, 170), (10, 10, 200, 90)) if prompt != "point" else None
    p = points((100, 120), (30.5, 200)) if prompt != "box" else None
    found = sam.draw(sam.embed([image])[0], boxes=b, points=p, many=many)
    with torch.inference_mode():
        out = sam._model(
            pixel_values=normalised(sam, image),
            input_boxes=None if b is None else torch.tensor(b)[None],
            input_points=None if p is None else torch.tensor(p)[None, :, None],
            input_labels=None if p is None else torch.ones(1, len(p), 1, dtype=torch.long),
            multimask_output=many,
        )
    logits = F.interpolate(out.pred_masks[0], size=(256, 256), mode="bilinear", align_corners=False)
    assert found.masks.shape == (2, 3 if many else 1, 256, 256) and found.masks.dtype == torch.bool
    sure = logits.abs() > 1e-3
    assert torch.equal(found.masks[sure], logits[sure] > 0)
    assert float(sure.float().mean()) > 0.99
    torch.testing.assert_close(found.quality, out.iou_scores[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("many", [False, True])
def test_no_prompts(sam: Sam, many: bool) -> None:
    embedding = Embedding((40, 60), ())
    for prompts in ({"boxes": boxes()}, {"points": points()}, {}):
        found = sam.draw(embedding, many=many, **prompts)
        assert found.masks.shape == (0, 3 if many else 1, 40, 60) and found.masks.dtype == torch.bool
        assert found.quality.shape == (0, 3 if many else 1)


def test_many_prompts_are_as_each_in_a_smaller_batch(sam: Sam) -> None:
    (embedding,) = sam.embed([disc(48, 64, (20, 30), 12)])
    random = np.random.default_rng(0)
    low = random.uniform(0, (40, 24), (131, 2))
    b = np.concatenate([low, low + random.uniform(8, 24, (131, 2))], 1).astype(np.float32)
    together = sam.draw(embedding, boxes=b)
    assert together.masks.shape == (131, 1, 48, 64)
    parts = [sam.draw(embedding, boxes=b[s : s + 40]) for s in range(0, 131, 40)]
    torch.testing.assert_close(together.quality, torch.cat([p.quality for p in parts]), atol=1e-4, rtol=1e-4)
    differ = (together.masks != torch.cat([p.masks for p in parts])).float().mean()
    assert float(differ) < 1e-3  # nothing but logits that are zero up to rounding


def test_large_pictures_are_drawn_in_smaller_batches(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    (embedding,) = sam.embed([disc(48, 64, (20, 30), 12)])
    b = boxes((10, 10, 40, 30), (0, 0, 64, 48), (20, 5, 30, 30), (1, 1, 20, 20), (5, 5, 60, 40))
    plain, sizes, draw = sam.draw(embedding, boxes=b), [], sam._draw

    def watched(e: Embedding, chunk: npt.NDArray[np.float32], *rest: object) -> tuple[Tensor, Tensor]:
        sizes.append(len(chunk))
        return draw(e, chunk, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("annofree.features.sam._LOGITS_AT_ONCE", 2 * 48 * 64)
    monkeypatch.setattr(sam, "_draw", watched)
    found = sam.draw(embedding, boxes=b)
    assert sizes == [2, 2, 1]
    torch.testing.assert_close(found.quality, plain.quality, atol=1e-4, rtol=1e-4)


def test_coordinates_are_scaled_with_the_picture(sam: Sam) -> None:
    (square,) = sam.embed([disc(256, 256, (120, 100), 50)])
    wide = Embedding((64, 512), square.state)  # the same features, said to be of a picture of 64 x 512
    of_square = sam.draw(square, boxes=boxes((50, 70, 150, 170)), points=points((100, 120)))
    of_wide = sam.draw(wide, boxes=boxes((100, 17.5, 300, 42.5)), points=points((200, 30)))
    torch.testing.assert_close(of_wide.quality, of_square.quality, atol=1e-5, rtol=1e-5)
    assert of_wide.masks.shape == (1, 1, 64, 512)
    shrunk = of_square.masks[0, 0][2::4].repeat_interleave(2, 1)
    assert float((shrunk != of_wide.masks[0, 0]).float().mean()) < 0.02


@pytest.mark.parametrize(("size", "centre"), [((128, 384), (64.0, 300.0)), ((384, 128), (300.0, 64.0))])
def test_a_box_on_a_long_picture_gives_a_mask_mostly_within_it(
    sam: Sam, size: tuple[int, int], centre: tuple[float, float]
) -> None:
    image = disc(*size, centre, 40)
    y, x = centre
    found = sam.draw(sam.embed([image])[0], boxes=boxes((x - 40, y - 40, x + 40, y + 40)))
    mask = found.masks[0, 0].numpy()
    inside = mask[int(y) - 44 : int(y) + 44, int(x) - 44 : int(x) + 44]
    assert mask.sum() > 300
    assert inside.sum() > 0.6 * mask.sum()


def test_two_pictures_are_as_each_alone(sam: Sam) -> None:
    images = [disc(100, 160, (50, 40), 30), disc(160, 90, (80, 60), 25)]
    for together, image in zip(sam.embed(images), images, strict=True):
        (alone,) = sam.embed([image])
        assert together.size == alone.size == image.size
        assert len(together.state) == len(alone.state)
        for a, b in zip(together.state, alone.state, strict=True):
            assert a.shape == b.shape and len(a) == 1
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        prompt = boxes((20, 20, 80, 80))
        torch.testing.assert_close(
            sam.draw(together, boxes=prompt).quality, sam.draw(alone, boxes=prompt).quality, atol=1e-4, rtol=1e-4
        )


def test_provenance_says_which_weights(sam: Sam) -> None:
    assert sam.provenance["name"] == "tiny-sam" and sam.provenance["tier"] == "S2"
    assert set(sam.provenance["sha256"]) == {"config.json", "model.safetensors"}
