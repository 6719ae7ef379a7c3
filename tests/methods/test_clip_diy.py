"""CLIP-DIY on the paper world, and against a slow twin that does one crop and one pixel at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from tests.support.painted import assert_best
from torch import Tensor
from torch.nn import functional as F

from annofree.clues.background import Background
from annofree.clues.crops import lay_tilings
from annofree.detections.painting import number_components
from annofree.errors import InputError, MissingError
from annofree.methods.dense.clip_diy import OBJECTNESS, VARIANTS, ClipDiy, ClipDiySettings, Parts, build_objectness
from annofree.ops.fixed_bilinear import resize_levels
from annofree.ops.grids import resize_nearest
from annofree.protocols import Segmenter, SemanticSegmenter
from annofree.structures import FloatArray, Image, Vocabulary
from annofree.testing.conformance import CHECKS
from annofree.testing.fakes import FakeClip, FakeDino, FakeObjectness
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.semantic_conformance import SEMANTIC_CHECKS, check_known_pixels
from annofree.testing.tolerances import assert_close


def noise(size: tuple[int, int], seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


class Mixer(FakeClip):
    """Sees the mean of each of 4 x 4 parts of a square, mixed: any image, any crop has its own feature."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def encode_squares(self, pixels: Tensor) -> Tensor:
        self.asked.append(len(pixels))
        mixing = torch.randn(48, self.dimension, generator=torch.Generator().manual_seed(0))
        return F.normalize((F.adaptive_avg_pool2d(pixels, 4).flatten(1) - 0.45) @ mixing, dim=1)

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        seeds = [sum(map(ord, name)) for name in vocabulary.names]
        return torch.stack([F.normalize(torch.randn(64, generator=torch.Generator().manual_seed(s)), dim=0) for s in seeds])


class Blobs:
    """A soft objectness."""

    provenance: dict[str, Any] = {"name": "blobs"}  # noqa: RUF012

    def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        coarse = torch.rand(1, 1, 4, 5, generator=generator)
        return [F.interpolate(coarse, i.size, mode="bilinear", align_corners=False)[0, 0] for i in images]


# the paper world


@pytest.mark.parametrize("check", SEMANTIC_CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Callable[[SemanticSegmenter], None]) -> None:
    method = ClipDiy(FakeClip(), FakeObjectness(), replace(VARIANTS["default"], side=16, canvas=64, scales=(0, 1)))
    assert isinstance(method, SemanticSegmenter)
    check(method)


# windows are too coarse for two things that touch, which these want apart
APART = ("check_known_answers", "check_no_memory", "check_absent_classes")


@pytest.mark.parametrize("check", [c for c in CHECKS if c.__name__ not in APART], ids=lambda check: check.__name__)
def test_its_regions_conform(check: Callable[[Segmenter], None]) -> None:
    method = ClipDiy(FakeClip(), FakeObjectness(), replace(VARIANTS["default"], side=32))
    assert isinstance(method, Segmenter)
    check(method)


@pytest.mark.parametrize("paint", ["canvas", "image"])
def test_its_instances_are_the_regions_of_its_label_map(paint: Any) -> None:
    image, names = noise((24, 36)), Vocabulary.of("cat, dog")
    method = ClipDiy(Mixer(), Blobs(), ClipDiySettings(canvas=32, side=8, paint=paint, most=10_000))
    labels, found = method.semantic(image, names), method.instances(image, names)
    regions, owner = number_components(labels)
    assert len(found) == len(owner) > 2
    for k, name in enumerate(names.names):
        own = found[found.class_ids == k].masks
        assert np.array_equal(own.any(0), labels.labels == labels.names.index(name)) and own.sum(0).max() <= 1
    # each is scored by the mean of what its pixels say
    values = method.compute_scores(image, names)
    scale = method.settings.logit_scale
    drawn = values.amax(0), (values * scale).softmax(0).amax(0)
    best, sure = (resize_nearest(m, image.size).numpy() for m in drawn)
    for i in range(len(found)):
        mask = found[i : i + 1].masks[0]
        expected = sure[mask].mean() / (1 + np.exp(-5 * best[mask].mean()))
        assert found.scores[i] == pytest.approx(expected, rel=1e-4)
    assert regions.max() == len(owner)


def test_a_region_that_a_distractor_wins_is_its_own() -> None:
    scene = next(s for s in draw_paper_scenes() if len(set(s.names)) > 1)
    method = ClipDiy(FakeClip(), FakeObjectness(), replace(VARIANTS["default"], side=32))
    first, other = dict.fromkeys(scene.names)
    found = method.verify(scene.image, Vocabulary.of(first), (other,))
    assert found.names == (first, other) and set(found.labels.tolist()) == {first, other}


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_finds_the_objects(variant: str) -> None:
    settings = replace(VARIANTS[variant], side=32)
    check_known_pixels(ClipDiy(FakeClip(), FakeObjectness(), settings), min_iou=0.8)


def test_the_image_s_own_resolution_keeps_the_objectness_to_the_pixel() -> None:
    scene = next(s for s in draw_paper_scenes() if s.image.id == "off-grid")
    found = ClipDiy(FakeClip(), FakeObjectness(), replace(VARIANTS["default"], side=32)).semantic(scene.image, "banana")
    assert np.array_equal(found.labels == 1, scene.masks[0])


def test_objectness_of_dino_s_keys_serves_as_well() -> None:
    for name in ("found-bkg", "tokencut"):
        source = build_objectness(name, Parts(dino=FakeDino()))
        found = ClipDiy(FakeClip(), source, ClipDiySettings(side=32)).semantic(draw_paper_scenes()[0].image, NAMES)
        truth = draw_paper_scenes()[0].masks[0]
        assert ((found.labels == 1) & truth).sum() / ((found.labels == 1) | truth).sum() > 0.9


# parity with the released code


def test_the_official_windows_are_59() -> None:
    official = VARIANTS["official"]
    tiles = lay_tilings((official.canvas, official.canvas), official.scales, official.layout)
    assert [len(t.boxes) for t in tiles] == [1, 9, 49]


@pytest.mark.parametrize("size", [(40, 60), (9, 7), (1, 1), (64, 32), (32, 32)])
def test_the_official_canvas_is_made_in_whole_numbers(size: tuple[int, int]) -> None:
    image = noise(size)
    canvas = ClipDiy(FakeClip(), settings=replace(VARIANTS["official"], canvas=32)).draw_canvas(image) * 255
    expected = torch.from_numpy(resize_levels(image.pixels, (32, 32))).permute(2, 0, 1).float()
    assert torch.equal(canvas.round(), expected)
    assert_close(canvas, expected)


def obvious_fused(clip: FakeClip, image: Image, rows: list[str], side: int, canvas: int, where: Tensor | None) -> FloatArray:
    """One crop at a time through Pillow, one value of the map at a time (R, canvas, canvas); the first row is background."""
    squashed = resize_levels(image.pixels, (canvas, canvas))
    words = clip.encode_text(Vocabulary.of(rows))
    total = np.zeros((len(rows), canvas, canvas))
    for window in (canvas, canvas // 2, canvas // 4):
        starts = range(0, canvas - window + 1, window // 2)
        grid = np.zeros((len(rows), len(starts), len(starts)))
        for i, y in enumerate(starts):
            for j, x in enumerate(starts):
                crop = Picture.fromarray(squashed[y : y + window, x : x + window])
                square = np.asarray(crop.resize((side, side), Picture.Resampling.BICUBIC), np.float32) / 255
                grid[:, i, j] = (words @ clip.encode_squares(torch.from_numpy(square).permute(2, 0, 1)[None])[0]).numpy()
        total += slowly_enlarged(grid, canvas)
    total /= 3
    if where is not None:
        s = F.interpolate(where[None, None], (canvas, canvas), mode="bilinear", align_corners=False)[0, 0].numpy()
        total[0] *= 1 - s
        total[1:] *= s
    return total.astype(np.float32)


def slowly_enlarged(grid: Any, side: int) -> Any:
    out = np.zeros((len(grid), side, side))
    count = grid.shape[1]
    places = [max((i + 0.5) * count / side - 0.5, 0) for i in range(side)]
    for i, y in enumerate(places):
        for j, x in enumerate(places):
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, count - 1), min(x0 + 1, count - 1)
            top = grid[:, y0, x0] * (1 - x + x0) + grid[:, y0, x1] * (x - x0)
            low = grid[:, y1, x0] * (1 - x + x0) + grid[:, y1, x1] * (x - x0)
            out[:, i, j] = top * (1 - y + y0) + low * (y - y0)
    return out


@pytest.mark.parametrize("source", [None, Blobs()])
def test_the_fused_map_is_that_of_the_slow_twin(source: Blobs | None) -> None:
    image, names = noise((50, 37)), ["cat", "dog", "kite"]
    settings = replace(VARIANTS["official"], canvas=32, side=24)
    method = ClipDiy(Mixer(), source, settings)
    where = None if source is None else source.predict_maps([image])[0]
    expected = obvious_fused(Mixer(), image, ["background", *names], 24, 32, where)
    # Pillow rounds what it resizes to whole grey levels
    np.testing.assert_allclose(method.compute_scores(image, names).numpy(), expected, atol=6e-3)
    labels = resize_nearest(torch.from_numpy(expected).argmax(0), image.size).numpy()
    assert (method.semantic(image, names).labels == labels).mean() > 0.98


def test_scale_0_is_plain_clip_on_the_squashed_image() -> None:
    image, clip = noise((50, 37)), Mixer()
    method = ClipDiy(clip, settings=replace(VARIANTS["official"], scales=(0,), canvas=24, side=24))
    rows = Vocabulary.of("background, cat, dog")
    plain = clip.encode_text(rows) @ clip.encode_squares(method.draw_canvas(image)[None])[0]
    (likeness,) = method.compute_similarity(method.encode([image])[0], rows)
    assert_close(likeness[:, 0, 0], plain)
    maps = method.compute_scores(image, "cat, dog")
    assert_close(maps, plain[:, None, None].expand(3, 24, 24))


# batches, class lists, settings


def test_windows_of_all_scales_and_images_go_into_one_call() -> None:
    clip = Mixer()
    method = ClipDiy(clip, Blobs(), replace(VARIANTS["official"], side=8))
    method.encode([noise((30, 40)), noise((40, 30))])
    assert clip.asked == [118]


def test_a_batch_is_one_by_one() -> None:
    images = [noise((30, 41), 1), noise((44, 23), 2), noise((17, 17), 3)]
    method = ClipDiy(Mixer(), Blobs(), ClipDiySettings(canvas=64, side=16))
    for image, encoding in zip(images, method.encode(images), strict=True):
        assert_close(method.compute_scores(encoding, "cat, dog"), method.compute_scores(image, "cat, dog"))


def test_another_class_list_asks_clip_for_no_picture() -> None:
    clip = Mixer()
    method = ClipDiy(clip, Blobs(), ClipDiySettings(canvas=64, side=16))
    encoding = method.encode([noise((30, 40))])[0]
    clip.asked.clear()
    method.semantic(encoding, "cat, dog")
    method.semantic(encoding, "kite")
    assert clip.asked == []


@pytest.mark.parametrize("scales", [(0,), (1,), (2, 0), (0, 1, 2, 3), (1, 2, 3)])
def test_any_scales(scales: tuple[int, ...]) -> None:
    method = ClipDiy(Mixer(), Blobs(), ClipDiySettings(canvas=32, side=8, scales=scales))
    encoding = method.encode([noise((20, 31))])[0]
    assert len(encoding.crops) == len(scales)
    assert method.semantic(encoding, "cat, dog").size == (20, 31)


def test_without_objectness_the_plain_average_decides() -> None:
    image, names = noise((24, 36)), "cat, dog, kite"
    method = ClipDiy(Mixer(), None, ClipDiySettings(canvas=32, side=8, background=Background("none")))
    found = method.semantic(image, names)
    assert found.background is None and found.names == ("cat", "dog", "kite")
    assert_best(found.labels, method.compute_scores(image, names))


def test_background_words_are_weighed_by_what_is_no_thing() -> None:
    image = noise((24, 36))
    settings = ClipDiySettings(canvas=32, side=8, background=Background(words=("sky", "wall")))
    plain = ClipDiy(Mixer(), None, settings).compute_scores(image, "cat")
    s = Blobs().predict_maps([image])[0]
    assert_close(ClipDiy(Mixer(), Blobs(), settings).compute_scores(image, "cat"), plain * torch.stack([1 - s, 1 - s, s]))
    assert ClipDiy(Mixer(), Blobs(), settings).semantic(image, "cat").names == ("background", "cat")


def test_objectness_below_a_threshold_is_background() -> None:
    image, rule = noise((24, 36)), Background("objectness", threshold=0.6)
    found = ClipDiy(Mixer(), Blobs(), ClipDiySettings(canvas=32, side=8, background=rule)).semantic(image, "cat, dog")
    assert np.array_equal(found.labels == 0, (Blobs().predict_maps([image])[0] < 0.6).numpy())
    with pytest.raises(InputError, match="needs an objectness source"):
        ClipDiy(Mixer(), None, ClipDiySettings(background=rule))


def test_500_classes_and_endless_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"thing {i}" for i in range(500)]
    method = ClipDiy(Mixer(), Blobs(), ClipDiySettings(canvas=32, side=8))
    encoding = method.encode([noise((37, 53))])[0]
    found = method.semantic(encoding, names)
    assert_best(found.labels, method.compute_scores(encoding, names))
    for size in ((1, 1), (20000, 3)):
        assert method.semantic(noise(size), "cat, dog").size == size


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown variant of clip_diy 'oficial'; did you mean 'official'\?"):
        ClipDiy(FakeClip(), settings="oficial")
    with pytest.raises(InputError, match="expected scales from 0 on"):
        ClipDiy(FakeClip(), settings=ClipDiySettings(canvas=64, scales=(0, 7))).encode([noise((8, 9))])
    with pytest.raises(InputError, match="at least 1 px"):
        ClipDiySettings(canvas=0)
    with pytest.raises(InputError, match="expected a SAM for redraw 'box'"):
        ClipDiy(FakeClip(), settings=ClipDiySettings(redraw="box"))


def test_provenance_tells_both_models() -> None:
    told = ClipDiy(FakeClip(), FakeObjectness(), "official").provenance
    assert [m["name"] for m in told["models"]] == ["fake-clip", "fake-objectness"]
    assert json.loads(json.dumps(told))["settings"]["prompts"] == "clip-diy"
    assert len(ClipDiy(FakeClip()).provenance["models"]) == 1
    keys = {ClipDiy(FakeClip(), settings=v).encoding_key for v in VARIANTS}
    assert len(keys) == len(VARIANTS)


def test_sources_by_name() -> None:
    assert OBJECTNESS.keys() == {"found", "found-bkg", "tokencut", "maskcut", "cutler", "instances", "none"}
    with pytest.raises(InputError, match=r"did you mean 'found'"):
        build_objectness("fond", Parts())
    with pytest.raises(MissingError, match="needs a dino"):
        build_objectness("tokencut", Parts())
    with pytest.raises(MissingError, match="needs a head"):
        build_objectness("found", Parts(dino=FakeDino()))
    with pytest.raises(MissingError, match=r"FOUND's head .* there is none"):
        build_objectness("found", Parts(dino=FakeDino(), head=Path("nowhere.pt")))
