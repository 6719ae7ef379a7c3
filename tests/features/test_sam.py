import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.support.models import spoil_model
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, MissingError
from annofree.features.sam import FAMILIES, Sam
from annofree.features.sam_inputs import Frame
from annofree.hub.cards import Card, find_bundled
from annofree.protocols import Embedding
from annofree.structures import Image
from annofree.testing.tolerances import assert_close, assert_same_masks, assert_same_pixels


@pytest.fixture(scope="module")
def sam() -> Sam:
    return Sam(find_bundled("tiny-sam"))


def disc(height: int, width: int, center: tuple[float, float], radius: float) -> Image:
    """A bright disc, its centre (y, x), on a dull and slightly uneven ground."""
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - center[0], x - center[1]) < radius
    pixels = np.where(inside[..., None], (230, 120, 20), (90, 110, 140)) + (x % 3)[..., None]
    return Image(pixels.astype(np.uint8))


def boxes(*rows: tuple[float, float, float, float]) -> npt.NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def points(*rows: tuple[float, float]) -> npt.NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 2)


def normalized(sam: Sam, image: Image) -> Tensor:
    x = torch.tensor(image.pixels).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(sam.card.use[k]).view(3, 1, 1) for k in ("mean", "std"))
    return (x - mean) / std


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("prompt", ["box", "point", "both"])
def test_drawing_from_an_embedding_is_the_full_forward_pass(sam: Sam, prompt: str, many: bool) -> None:
    image = disc(256, 256, (120, 100), 50)  # the model's own size: nothing is resized
    b = boxes((50, 70, 150, 170), (10, 10, 200, 90)) if prompt != "point" else None
    p = points((100, 120), (30.5, 200)) if prompt != "box" else None
    found = sam.predict_masks(sam.embed([image])[0], boxes=b, points=p, multimask=many)
    with torch.inference_mode():
        out = sam._model(
            pixel_values=normalized(sam, image),
            input_boxes=None if b is None else torch.tensor(b)[None],
            input_points=None if p is None else torch.tensor(p)[None, :, None],
            input_labels=None if p is None else torch.ones(1, len(p), 1, dtype=torch.long),
            multimask_output=many,
        )
    logits = F.interpolate(out.pred_masks[0], size=(256, 256), mode="bilinear", align_corners=False)
    assert found.masks.shape == (2, 3 if many else 1, 256, 256) and found.masks.dtype == torch.bool
    sure = logits.abs() > 1e-3  # they go up to 37, and every layer rounds
    assert torch.equal(found.masks[sure], logits[sure] > 0)
    assert float(sure.float().mean()) > 0.99
    assert_close(found.quality, out.iou_scores[0], depth="network")


@pytest.mark.parametrize("many", [False, True])
def test_no_prompts(sam: Sam, many: bool) -> None:
    embedding = Embedding((40, 60), ())
    none: list[dict[str, Any]] = [{"boxes": boxes()}, {"points": points()}, {}]
    for prompts in none:
        found = sam.predict_masks(embedding, multimask=many, **prompts)
        assert found.masks.shape == (0, 3 if many else 1, 40, 60) and found.masks.dtype == torch.bool
        assert found.quality.shape == (0, 3 if many else 1)


def test_many_prompts_are_as_each_in_a_smaller_batch(sam: Sam) -> None:
    (embedding,) = sam.embed([disc(48, 64, (20, 30), 12)])
    random = np.random.default_rng(0)
    low = random.uniform(0, (40, 24), (131, 2))
    b = np.concatenate([low, low + random.uniform(8, 24, (131, 2))], 1).astype(np.float32)
    together = sam.predict_masks(embedding, boxes=b)
    assert together.masks.shape == (131, 1, 48, 64)
    parts = [sam.predict_masks(embedding, boxes=b[s : s + 40]) for s in range(0, 131, 40)]
    assert_close(together.quality, torch.cat([p.quality for p in parts]), depth="network")
    # nothing but logits that are zero up to rounding; some masks are of a pixel or two, so not one by one
    assert_same_pixels(together.masks, torch.cat([p.masks for p in parts]), share=1e-3)


def test_large_pictures_are_enlarged_in_smaller_batches(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    (embedding,) = sam.embed([disc(48, 64, (20, 30), 12)])
    b = boxes((10, 10, 40, 30), (0, 0, 64, 48), (20, 5, 30, 30), (12, 8, 44, 36), (5, 5, 60, 40))
    plain, sizes, enlarge = sam.predict_masks(embedding, boxes=b), [], Frame._enlarged

    def watched(frame: Frame, logits: Tensor, size: tuple[int, int]) -> Tensor:
        sizes.append(len(logits))
        return enlarge(frame, logits, size)

    monkeypatch.setattr("annofree.features.sam_inputs._LOGITS_AT_ONCE", 2 * 48 * 64)
    monkeypatch.setattr(Frame, "_enlarged", watched)
    found = sam.predict_masks(embedding, boxes=b)
    assert sizes == [2, 2, 1]
    assert int(plain.masks.sum((2, 3)).min()) > 100
    assert_same_masks(found.masks, plain.masks)


def test_coordinates_are_scaled_with_the_picture(sam: Sam) -> None:
    (square,) = sam.embed([disc(256, 256, (120, 100), 50)])
    wide = Embedding((64, 512), square.state)  # the same features, said to be of an image of 64 x 512
    of_square = sam.predict_masks(square, boxes=boxes((50, 70, 150, 170)), points=points((100, 120)))
    of_wide = sam.predict_masks(wide, boxes=boxes((100, 17.5, 300, 42.5)), points=points((200, 30)))
    assert_close(of_wide.quality, of_square.quality, depth="network")
    assert of_wide.masks.shape == (1, 1, 64, 512)
    shrunk = of_square.masks[0, 0][2::4].repeat_interleave(2, 1)
    assert float((shrunk != of_wide.masks[0, 0]).float().mean()) < 0.02  # resized otherwise: borders move by part of a pixel


@pytest.mark.parametrize(("size", "center"), [((128, 384), (64.0, 300.0)), ((384, 128), (300.0, 64.0))])
def test_a_box_on_a_long_picture_gives_a_mask_mostly_within_it(
    sam: Sam, size: tuple[int, int], center: tuple[float, float]
) -> None:
    image = disc(*size, center, 40)
    y, x = center
    found = sam.predict_masks(sam.embed([image])[0], boxes=boxes((x - 40, y - 40, x + 40, y + 40)))
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
            assert_close(a, b, depth="network")
        prompt = boxes((20, 20, 80, 80))
        assert_close(
            sam.predict_masks(together, boxes=prompt).quality, sam.predict_masks(alone, boxes=prompt).quality, depth="network"
        )


def test_provenance_says_which_weights(sam: Sam) -> None:
    assert sam.provenance["name"] == "tiny-sam" and sam.provenance["tier"] == "S2"
    assert set(sam.provenance["sha256"]) == {"config.json", "model.safetensors"}


def test_no_pictures(sam: Sam) -> None:
    assert sam.embed([]) == [] and sam.predict_masks_batch([]) == []


def test_points_without_labels_are_all_on_the_thing(sam: Sam) -> None:
    (embedding,) = sam.embed([disc(96, 96, (40, 50), 25)])
    several = np.array([[[50, 40], [60, 45]], [[10, 10], [90, 80]]], np.float32)
    plain = sam.predict_masks(embedding, points=several)
    said = sam.predict_masks(embedding, points=several, labels=np.ones((2, 2), np.int64))
    assert torch.equal(plain.masks, said.masks) and plain.masks.shape == (2, 1, 96, 96)
    flat = sam.predict_masks(embedding, points=several[:, 0], labels=np.ones(2, np.int64))
    assert torch.equal(flat.quality, sam.predict_masks(embedding, points=several[:, :1]).quality)


def test_a_point_beside_the_thing_takes_it_away(sam: Sam) -> None:
    (embedding,) = sam.embed([disc(256, 256, (120, 100), 50)])
    both = np.array([[[100, 120], [100, 120]]], np.float32)
    on, off = (sam.predict_masks(embedding, points=both, labels=np.array([[1, k]])).quality for k in (1, 0))
    assert float((on - off).abs().max()) > 1e-3


GOOD = {"boxes": boxes((1, 1, 9, 9)), "points": points((5, 5))}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"boxes": points((1, 1))}, r"expected boxes \(P, 4\).*got boxes \(1, 2\)"),
        ({"points": boxes((1, 1, 2, 2))}, r"points \(1, 1, 4\)"),
        ({"points": np.zeros((2, 0, 2), np.float32)}, r"points \(2, 0, 2\)"),
        (GOOD | {"boxes": boxes((1, 1, 9, 9), (2, 2, 9, 9))}, r"all of the same P, got boxes \(2, 4\), points \(1, 1, 2\)"),
        (GOOD | {"labels": np.ones((1, 2), np.int64)}, "labels"),
        ({"boxes": boxes((1, 1, 9, 9)), "labels": np.ones((1, 1), np.int64)}, r"labels \(1, 1\)"),
        (GOOD | {"labels": np.array([[2]])}, r"1 \(on the thing\) or 0 \(beside it\)"),
        ({"boxes": boxes((1, 1, 9, float("nan")))}, "not finite"),
        ({"points": points((float("inf"), 3))}, "not finite"),
    ],
)
def test_prompts_that_are_none(sam: Sam, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        sam.predict_masks(Embedding((10, 10), ()), **wrong)


def test_as_many_prompts_as_pictures(sam: Sam) -> None:
    embeddings = sam.embed([disc(48, 64, (20, 30), 12)] * 2)
    with pytest.raises(InputError, match=r"expected prompts for 2 images, got \[1, 2, 2\]"):
        sam.predict_masks_batch(embeddings, boxes=[boxes((1, 1, 9, 9))])


def test_prompts_of_several_kinds_in_one_call(sam: Sam) -> None:
    images = [disc(48, 64, (20, 30), 12), disc(64, 48, (30, 20), 12), disc(50, 50, (20, 30), 12), disc(40, 40, (9, 9), 6)]
    embeddings = sam.embed(images)
    given_boxes = [boxes((10, 5, 40, 40)), None, boxes((3, 3, 40, 30), (0, 0, 20, 20)), None]
    given_points = [None, points((20, 30)), points((30, 20), (5, 5)), None]
    drawn = sam.predict_masks_batch(embeddings, boxes=given_boxes, points=given_points, multimask=True)
    assert [len(d.masks) for d in drawn] == [1, 1, 2, 0]
    for found, e, b, p in zip(drawn, embeddings, given_boxes, given_points, strict=True):
        alone = sam.predict_masks(e, boxes=b, points=p, multimask=True)
        assert_close(found.quality, alone.quality, depth="network")
        assert found.masks.shape == alone.masks.shape == (len(found.quality), 3, *e.size)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The bundled folder, without its card, to be spoiled."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(find_bundled("tiny-sam") / name, tmp_path / name)
    return tmp_path


def spoil(copy: Path, change: str) -> None:
    if spoil_model(copy, change, "mask_decoder.iou_token.weight", "mask_decoder.more"):
        return
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config | {"model_type": change}), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ("truncated", InputError, "cannot be loaded.*fetch or train it again"),
        ("no weights", MissingError, r"expected model\.safetensors in .*; there is none"),
        ("pickle", InputError, r"got pytorch_model\.bin; a pickle can run any code"),
        ("missing", InputError, r"got 1 missing, such as mask_decoder\.iou_token\.weight"),
        ("unexpected", InputError, r"got 1 unexpected, such as mask_decoder\.more"),
        ("shape", InputError, "cannot be loaded|mismatched"),
        ("no config", MissingError, r"there is no config\.json"),
        ("broken config", InputError, r"expected JSON in .*config\.json"),
        ("list", InputError, "expected a JSON object .* got list"),
        ("clip", InputError, "unknown architecture of a SAM 'clip'"),
        ("sam", InputError, "cannot be loaded|missing"),
    ],
)
def test_folders_that_cannot_be_read(
    copy: Path, change: str, error: type[Exception], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(copy, change)
    with pytest.raises(error, match=said):
        Sam(copy, card=Card.read(find_bundled("tiny-sam")))
    assert not capfd.readouterr().err  # no table of keys, no bar


def test_another_card_may_be_passed(copy: Path, sam: Sam) -> None:
    card = Card(name="mine", family="none", tier="S2", licence="none", trained_on="", world="", files={}, use=sam.card.use)
    other = Sam(copy, card=card)
    assert other.provenance["name"] == "mine"
    image = disc(48, 64, (20, 30), 12)
    for a, b in zip(other.embed([image])[0].state, sam.embed([image])[0].state, strict=True):
        assert torch.equal(a, b)


def test_pictures_are_prepared_as_the_folder_says(tmp_path: Path) -> None:
    assert Frame.read(tmp_path, 64, "pad", {}) == Frame(64, "pad")  # as released: bytes, ImageNet's mean and std
    own = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    assert Frame.read(tmp_path, 64, "squash", own) == Frame(64, "squash", False, (0.5,) * 3, (0.25,) * 3)
    said: dict[str, Any] = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}, "resample": 2}
    said |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said), encoding="utf-8")
    assert Frame.read(tmp_path, 64, "pad", own) == Frame(64, "pad", mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    newer = {"image_processor": said | {"image_mean": [0.4, 0.4, 0.4]}}
    (tmp_path / "processor_config.json").write_text(json.dumps(newer), encoding="utf-8")
    assert Frame.read(tmp_path, 64, "pad", own).mean == (0.4, 0.4, 0.4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": {"height": 32, "width": 64}}, r"expected images of 64 px, the model's square, but .* says \[32, 64\]"),
        ({"resample": 3}, "resizes bilinearly"),
        ({"do_normalize": False}, "normalises"),
    ],
)
def test_a_preprocessor_of_something_else(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(change), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        Frame.read(tmp_path, 64, "pad", {})


def test_padding_is_cut_off_before_the_last_resize() -> None:
    frame = Frame(64, "pad")
    assert frame.fit_inner((20, 40)) == (32, 64) and frame.scale((20, 40)) == (1.6, 1.6)
    logits = torch.full((1, 1, 16, 16), -1.0)
    logits[..., :8, :] = 1.0  # of the image; what follows is padding
    masks = frame.resize_masks(logits, (20, 40))
    assert masks.shape == (1, 1, 20, 40) and masks[..., :19, :].all()
    zeros = frame.preprocess(Image(np.full((20, 40, 3), 255, np.uint8)), torch.device("cpu"))
    assert zeros.shape == (1, 3, 64, 64) and (zeros[..., 32:, :] == 0).all() and (zeros[..., :32, :] > 1).all()


def test_each_family_is_one_of_transformers() -> None:
    import transformers

    assert all(hasattr(transformers, family.model) for family in FAMILIES.values())
    assert {k for k, f in FAMILIES.items() if f.fit == "pad"} == {"sam", "sam_hq"}


def test_images_alone_are_encoded_in_half_precision(sam: Sam) -> None:
    half, image, at = Sam(find_bundled("tiny-sam"), encoder=torch.bfloat16), disc(48, 64, (20, 30), 12), points((30, 20))
    (exact,), (found,) = sam.embed([image]), half.embed([image])
    assert {level.dtype for level in found.state} == {torch.float32}
    apart = [float((a - b).norm() / a.norm()) for a, b in zip(exact.state, found.state, strict=True)]
    assert 1e-5 < max(apart) < 5e-2
    both = [s.predict_masks(e, points=at) for s, e in ((sam, exact), (half, found))]
    assert_same_pixels(both[0].masks, both[1].masks, share=1e-2)
    again = [s.predict_masks(exact, points=at) for s in (sam, half)]
    assert torch.equal(again[0].quality, again[1].quality)
    assert half.provenance == sam.provenance | {"encoder": "bfloat16"}


def test_half_precision_moves_no_prompt(sam: Sam) -> None:
    half = Sam(find_bundled("tiny-sam"), dtype=torch.bfloat16)
    place = torch.tensor([[[[100.3, 201.7]]]])
    exact, found = (s._model.prompt_encoder.shared_embedding(place.clone(), (256, 256)) for s in (sam, half))
    assert found.dtype == torch.float32 and torch.equal(found, exact)
    assert half._model.mask_decoder.iou_token.weight.dtype == torch.bfloat16
    (embedding,) = half.embed([disc(48, 64, (20, 30), 12)])
    assert half.predict_masks(embedding, points=points((30, 20))).quality.dtype == torch.float32
