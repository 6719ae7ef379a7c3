"""Copy-paste scenes against a slow twin under the same draws, their properties, the released code's slips, and refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as transforms

from annofree.errors import ImageError, InputError
from annofree.ops.rle import decode_rle, encode_rle, to_json_rle
from annofree.retrieval.archive import Archive, Member, PseudoMask
from annofree.structures import BoolArray
from annofree.training.augment import object_crops as subjects
from annofree.training.augment.color import Axis, ColorChange, draw_light
from annofree.training.augment.copy_paste import VARIANTS, CopyPaste, CopyPasteSettings, ImageDraw, PastedScene, SceneDraw
from annofree.training.augment.scene_sheet import draw_scenes

SIDE = 32
SMALL = replace(VARIANTS["default"], crop=SIDE)
DARK = replace(SMALL, jitter_share=0.0, grey=0.0, blur=0.0)  # no change of colours
OFFICIAL = replace(VARIANTS["official"], crop=SIDE)
NAMES = ("dog", "cat", "cup")
SIZES = {"a": (40, 24), "b": (20, 50), "c": (64, 64), "d": (9, 13), "e": (33, 47), "f": (12, 12), "g": (30, 30)}
MEMBERS = {"dog": "abc", "cat": "cdg", "cup": "ef"}
"""c is the image of a dog and of a cat; g is without an object."""


def rle(mask: BoolArray) -> dict[str, Any]:
    return to_json_rle(encode_rle(mask))


def blob(rng: np.random.Generator, size: tuple[int, int]) -> BoolArray:
    """An ellipse somewhere, with holes in it."""
    y, x = np.mgrid[: size[0], : size[1]]
    center, radius = rng.uniform(0.3, 0.7, 2) * size, rng.uniform(0.2, 0.4, 2) * size
    inside = ((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 < 1
    return np.asarray(inside & (rng.random(size) < 0.9))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for id_, (h, w) in SIZES.items():
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        coarse.resize((w, h), PIL.Image.Resampling.BICUBIC).save(folder / f"{id_}.png")
    members = {name: tuple(Member(id_, 0.3) for id_ in MEMBERS[name]) for name in NAMES}
    return Archive(NAMES, members, {id_: str(folder / f"{id_}.png") for id_ in SIZES})


@pytest.fixture(scope="module")
def masks() -> dict[str, PseudoMask]:
    rng = np.random.default_rng(1)
    drawn = {id_: blob(rng, size) & (id_ != "g") for id_, size in SIZES.items()}
    drawn["f"] = np.zeros(SIZES["f"], bool)
    drawn["f"][5, 2:9] = True  # a single row
    return {id_: PseudoMask(id_, rle(mask), 0.5) for id_, mask in drawn.items()}


# The slow twin: whole images, whole maps, one pixel after another.


def obvious_window(archive: Archive, masks: dict[str, PseudoMask], draw: ImageDraw, side: int) -> tuple[Any, Any, Any]:
    """Colours (S, S, 3), the object and the padding (S, S): scaled, padded, cropped and mirrored as whole images."""
    pixels, mask = archive.open(draw.id).pixels, decode_rle(masks[draw.id].rle)
    height, width = mask.shape
    h, w = max(1, int(draw.scale * height)), max(1, int(draw.scale * width))
    small = np.asarray(PIL.Image.fromarray(pixels).resize((w, h), PIL.Image.Resampling.BILINEAR))
    small_mask = [[mask[int((y + 0.5) * height / h), int((x + 0.5) * width / w)] for x in range(w)] for y in range(h)]
    before = [n if far else 0 for n, far in zip((max(0, side - h), max(0, side - w)), draw.far, strict=True)]
    after = [max(0, side - n) - b for n, b in zip((h, w), before, strict=True)]
    margins = list(zip(before, after, strict=True))
    object_ = np.pad(np.array(small_mask), margins)
    padding = np.pad(np.zeros((h, w), bool), margins, constant_values=True)
    colors = np.pad(small, [*margins, (0, 0)])
    y, x = (int(u * (n - side + 1)) for u, n in zip(draw.window, padding.shape, strict=True))
    colors, object_, padding = (plane[y : y + side, x : x + side] for plane in (colors, object_, padding))
    rows, columns = (np.flatnonzero(~padding.all(other)) for other in (1, 0))
    inside = np.ix_(rows, columns)
    mean = tuple(np.rint(pixels.mean((0, 1))).astype(int).tolist())
    lit, fill = draw.light.apply(PIL.Image.fromarray(np.ascontiguousarray(colors[inside])), mean)
    colors = np.full((side, side, 3), fill, np.uint8)
    colors[inside] = np.asarray(lit)
    flip = slice(None, None, -1 if draw.flip else 1)
    return colors[:, flip], object_[:, flip], padding[:, flip]


def obvious_scene(archive: Archive, masks: dict[str, PseudoMask], how: CopyPasteSettings, scene: SceneDraw) -> PastedScene:
    side = how.crop
    image, object_, padding = obvious_window(archive, masks, scene[0], side)
    image = image.copy()
    semantic = np.where(padding, how.ignored, np.where(object_, 1 + scene[0].class_id, 0))
    instances = [object_.copy()]
    for draw in scene[1:]:
        colors, object_, _ = obvious_window(archive, masks, draw, side)
        instances.append(np.zeros((side, side), bool))
        ys, xs = np.nonzero(object_)
        if not len(ys):
            continue
        y0, x0 = ys.min(), xs.min()
        y1, x1 = (ys.max(), xs.max()) if how.lose_last_line else (ys.max() + 1, xs.max() + 1)
        down, across = (int(u * (side - n + 1)) for u, n in zip(draw.place, (y1 - y0, x1 - x0), strict=True))
        for y in range(y0, y1):
            for x in range(x0, x1):
                if object_[y, x]:
                    to = down + y - y0, across + x - x0
                    image[to] = colors[y, x]
                    semantic[to] = 1 + draw.class_id
                    for other in instances:
                        other[to] = False
                    instances[-1][to] = True
    kept = [i for i, mask in enumerate(instances) if mask.any() or how.keep_empty]
    shown = np.array([instances[i] for i in kept]).reshape(-1, side, side)
    return PastedScene(image, shown, np.array([scene[i].class_id for i in kept], np.int64), semantic)


@pytest.mark.parametrize("how", [DARK, replace(DARK, keep_empty=True), replace(DARK, lose_last_line=True)])
@pytest.mark.parametrize("span", [(0.1, 1.0), (0.6, 2.5)])
def test_scenes_are_those_of_the_slow_twin(
    archive: Archive, masks: dict[str, PseudoMask], how: CopyPasteSettings, span: tuple[float, float]
) -> None:
    how = replace(how, scale=span)
    made, rng = CopyPaste(archive, masks, how), np.random.default_rng(5)
    apart = []
    for _ in range(25):
        draw = made.draw(rng)
        ours, slow = made.render(draw), obvious_scene(archive, masks, how, draw)
        assert np.array_equal(ours.instances, slow.instances)
        assert np.array_equal(ours.semantic, slow.semantic)
        assert np.array_equal(ours.class_ids, slow.class_ids)
        apart.append(np.abs(ours.image.astype(int) - slow.image))
    assert np.max(apart) <= 2  # Pillow rounds after each of two passes, and ties fall either way
    assert np.mean(apart) < 0.05


def test_an_object_is_lit_as_the_whole_picture_is(archive: Archive, masks: dict[str, PseudoMask]) -> None:
    made, rng = CopyPaste(archive, masks, SMALL), np.random.default_rng(6)
    apart = []
    for _ in range(40):
        draw = made.draw(rng)
        apart.append(np.abs(made.render(draw).image.astype(int) - obvious_scene(archive, masks, SMALL, draw).image))
    assert np.mean(np.stack(apart) > 2) < 2e-3  # the hue of what is nearly grey may jump


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    crop=st.integers(1, 70),
    most=st.integers(1, 12),
    low=st.floats(0.01, 1.0),
    high=st.floats(1.0, 3.0),
    variant=st.sampled_from(sorted(VARIANTS)),
)
def test_truth_of_any_scene(
    archive: Archive, masks: dict[str, PseudoMask], seed: int, crop: int, most: int, low: float, high: float, variant: str
) -> None:
    how = replace(VARIANTS[variant], crop=crop, images=(1, most), scale=(low, high))
    scene = CopyPaste(archive, masks, how).make_scene(np.random.default_rng(seed))
    assert scene.image.shape == (crop, crop, 3) and scene.image.dtype == np.uint8
    assert scene.semantic.shape == (crop, crop) and scene.semantic.dtype == np.int64
    assert scene.instances.shape == (len(scene.class_ids), crop, crop) and scene.instances.dtype == bool
    assert len(scene.class_ids) <= most and set(scene.class_ids.tolist()) <= set(range(len(NAMES)))
    covered = scene.instances.sum(0)
    assert covered.max(initial=0) <= 1
    assert np.array_equal(np.isin(scene.semantic, (0, how.ignored)), covered == 0)
    for mask, class_id in zip(scene.instances, scene.class_ids, strict=True):
        assert (scene.semantic[mask] == 1 + class_id).all()
        assert mask.any() or how.keep_empty


# Draws


def test_the_same_generator_gives_the_same_scenes_whatever_is_kept(archive: Archive, masks: dict[str, PseudoMask]) -> None:
    made = [CopyPaste(archive, masks, SMALL, memory) for memory in (0, 1 << 20)]
    for seed in range(5):
        one, other = (m.make_scene(np.random.default_rng(seed)) for m in made)
        assert np.array_equal(one.image, other.image) and np.array_equal(one.instances, other.instances)
        assert np.array_equal(one.semantic, other.semantic) and np.array_equal(one.class_ids, other.class_ids)


def drawn(made: CopyPaste, count: int) -> list[SceneDraw]:
    rng = np.random.default_rng(3)
    return [made.draw(rng) for _ in range(count)]


def test_draws_have_the_shares_that_are_asked_for(archive: Archive, masks: dict[str, PseudoMask]) -> None:
    draws = drawn(CopyPaste(archive, masks, replace(SMALL, images=(4, 6))), 3000)
    assert Counter(len(d) for d in draws).keys() == {4, 5, 6}
    chance = (2 / 7) ** 4  # that a mixed scene of few images is of one class too, roughly
    assert np.mean([len({p.class_id for p in d}) == 1 for d in draws]) == pytest.approx(0.5 + 0.5 * chance, abs=0.03)
    images = [p for d in draws for p in d]
    assert np.mean([p.flip for p in images]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([bool(p.light.steps) for p in images]) == pytest.approx(0.8, abs=0.02)
    assert np.mean([p.light.grey for p in images]) == pytest.approx(0.2, abs=0.02)
    assert np.mean([p.light.sigma > 0 for p in images]) == pytest.approx(0.5, abs=0.02)
    assert np.quantile([p.scale for p in images], [0, 0.5, 1]) == pytest.approx([0.1, 0.55, 1.0], abs=0.02)
    corners = Counter(p.far for p in images)
    assert [corners[far] / len(images) for far in ((True, True), (False, True), (True, False), (False, False))] == (
        pytest.approx([0.25] * 4, abs=0.02)
    )
    by_class = [{p.id for p in images if p.class_id == k} for k in range(3)]
    assert by_class == [set("abc"), set("cd"), set("ef")]  # without g, and c by the class it was drawn for


def test_the_released_placements_come_of_asking_thrice(archive: Archive, masks: dict[str, PseudoMask]) -> None:
    rng = np.random.default_rng(0)

    def asked() -> tuple[bool, bool]:
        for far in ((True, True), (False, True), (True, False)):
            if rng.random() < 0.25:
                return far
        return (False, False)

    theirs = Counter(asked() for _ in range(20_000))
    ours = Counter(p.far for d in drawn(CopyPaste(archive, masks, OFFICIAL), 3000) for p in d)
    for far, count in theirs.items():
        assert ours[far] / ours.total() == pytest.approx(count / 20_000, abs=0.015)


def test_the_released_label_is_that_of_the_last_class(archive: Archive, masks: dict[str, PseudoMask]) -> None:
    last = {id_: k for k, name in enumerate(NAMES) for id_ in MEMBERS[name]}
    images = [p for d in drawn(CopyPaste(archive, masks, OFFICIAL), 300) for p in d]
    assert {(p.id, p.class_id) for p in images} == {(id_, last[id_]) for id_ in "abcdef"}


def test_the_released_paste_loses_a_row_and_a_column(archive: Archive, masks: dict[str, PseudoMask]) -> None:
    plain = ImageDraw("f", 2, 1.0, (False, False), (0.0, 0.0), False, ColorChange(), (0.5, 0.5))
    scene = plain._replace(id="g"), plain._replace(place=(0.0, 0.0)), plain._replace(id="a", scale=0.5)
    only = replace(DARK, lose_last_line=True)
    whole = masks | {"g": PseudoMask("g", rle(np.ones(SIZES["g"], bool)), 1.0)}
    kept, lost = (CopyPaste(archive, whole, how).render(scene) for how in (DARK, only))
    assert (kept.class_ids.tolist(), lost.class_ids.tolist()) == ([2, 2, 2], [2, 2])  # f has a single row
    tall, short = (s.instances[-1].any(1).sum() for s in (kept, lost))
    assert (tall - short, kept.instances[-1].any(0).sum() - lost.instances[-1].any(0).sum()) == (1, 1)
    empties = CopyPaste(archive, whole, replace(only, keep_empty=True)).render(scene)
    assert empties.instances.any((1, 2)).tolist() == [True, False, True]


def test_a_window_of_lines() -> None:
    for count, scale, far, where in [(50, 0.3, True, 0.0), (50, 1.0, False, 0.999), (7, 3.1, False, 0.4), (3, 0.01, True, 0.9)]:
        axis = Axis.placed(count, scale, 20, far, where)
        lines = list(range(max(1, int(count * scale))))
        padded = [-1] * (20 - len(lines)) * far + lines + [-1] * (20 - len(lines)) * (not far)
        start = int(where * (len(padded) - 19))
        expected = padded[start : start + 20]
        ours = [-1] * 20
        ours[axis.start : axis.start + axis.length] = list(range(axis.begin, axis.begin + axis.length))
        assert ours == expected
        assert axis.list_sources().tolist() == [int((line + 0.5) * count / len(lines)) for line in expected if line >= 0]


# Light


@pytest.fixture
def image() -> PIL.Image.Image:
    small = np.random.default_rng(2).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    return PIL.Image.fromarray(small).resize((60, 50), PIL.Image.Resampling.BICUBIC)


def mean_of(image: PIL.Image.Image) -> tuple[int, int, int]:
    red, green, blue = np.rint(np.asarray(image).mean((0, 1))).astype(int).tolist()
    return red, green, blue


@pytest.mark.parametrize("amount", [0.2, 0.7, 1.0, 1.8])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_steps_are_those_of_torchvision(image: PIL.Image.Image, name: str, amount: float) -> None:
    ours, _ = ColorChange(((name, amount),)).apply(image, mean_of(image))
    theirs = getattr(transforms, f"adjust_{name}")(image, amount)
    # the grey of the mean is the mean of the grey, but for rounding
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max() <= (1 if name == "contrast" else 0)


@pytest.mark.parametrize("amount", [-0.2, -0.03, 0.0, 0.11, 0.2])
def test_hue_is_that_of_torchvision(image: PIL.Image.Image, amount: float) -> None:
    ours, _ = ColorChange((("hue", amount),)).apply(image, mean_of(image))
    assert np.array_equal(np.asarray(ours), np.asarray(transforms.adjust_hue(image, amount)))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_blur_is_gaussian(image: PIL.Image.Image, sigma: float) -> None:
    ours, _ = ColorChange(sigma=sigma).apply(image, (0, 0, 0))
    theirs = transforms.gaussian_blur(image, [13, 13], [sigma, sigma])
    inner = np.s_[7:-7, 7:-7]
    # of 255 levels: Pillow's curve is three boxes, one after the other
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs))[inner].max() <= 4


def test_blur_reaches_no_farther_than_it_says() -> None:
    for sigma in (0.1, 0.5, 1.0, 1.5, 2.0, 4.0):
        edge = np.zeros((61, 3, 3), np.uint8)
        edge[30:] = 255
        light = ColorChange(sigma=sigma)
        rows = np.asarray(light.apply(PIL.Image.fromarray(edge), (0, 0, 0))[0])[:, 1, 0]
        assert (rows[: 30 - light.reach] == 0).all() and (rows[30 + light.reach :] == 255).all()


def test_the_mean_is_lit_like_a_pixel_of_its_colour() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        light = replace(draw_light(rng, (0.8, 0.8, 0.8, 0.2), 1.0, 0.5, 0.0, (0.1, 2.0)), sigma=0.0)
        color = tuple(rng.integers(0, 256, 3).tolist())
        seen, mean = light.apply(PIL.Image.new("RGB", (2, 2), color), color)
        assert seen.getpixel((1, 1)) == mean


# What is kept, and what is refused


def test_pictures_are_decoded_once_within_the_memory(
    archive: Archive, masks: dict[str, PseudoMask], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    plain = subjects.ObjectCrop.of

    def counted(archive: Archive, mask: PseudoMask) -> subjects.ObjectCrop:
        opened.append(mask.id)
        return plain(archive, mask)

    monkeypatch.setattr(subjects.ObjectCrop, "of", counted)
    album = subjects.CropCache(archive, masks, 1 << 20)
    for id_ in "abcabc":
        album.open(id_)
    assert opened == list("abc")
    room = sum(album.open(id_).memory for id_ in "ab")
    opened.clear()
    tight = subjects.CropCache(archive, masks, room)
    for id_ in "abab" + "d" + "ba":  # d takes the place of a, which was used least lately
        tight.open(id_)
    assert opened == [*"abda"]
    assert sum(s.memory for s in tight._kept.values()) == tight._used <= room


def test_pictures_without_an_object_are_left_out(archive: Archive, masks: dict[str, PseudoMask]) -> None:
    assert CopyPaste(archive, masks, SMALL).left_out == 1
    fewer = {id_: mask for id_, mask in masks.items() if id_ != "b"}
    assert CopyPaste(archive, fewer, SMALL).left_out == 2


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ("", "'cup' to make scenes of, but its archive is empty"),
        ("g", "'cup' .* none of its 1 images has a mask that is not"),
    ],
)
def test_a_class_without_a_picture_is_named(
    archive: Archive, masks: dict[str, PseudoMask], members: Sequence[str], why: str
) -> None:
    short = replace(archive, members={**archive.members, "cup": tuple(Member(id_, 0.1) for id_ in members)})
    with pytest.raises(InputError, match=rf"{why}.*larger k.*another saliency source"):
        CopyPaste(short, masks, SMALL)


def test_more_classes_than_labels(archive: Archive, masks: dict[str, PseudoMask]) -> None:
    with pytest.raises(InputError, match="fewer classes than the label of padding, 3, got 3; set ignored to a higher"):
        CopyPaste(archive, masks, replace(SMALL, ignored=3))
    padded = CopyPaste(archive, masks, replace(SMALL, ignored=1000, crop=80)).make_scene(np.random.default_rng(0))
    assert padded.semantic.max() == 1000


def test_a_mask_of_another_size(archive: Archive, masks: dict[str, PseudoMask]) -> None:
    wrong = {id_: PseudoMask(id_, rle(np.ones((4, 4), bool)), 1.0) for id_ in masks}
    with pytest.raises(InputError, match=r"expected a mask of \(\d+, \d+\) px for ., got one of \(4, 4\); mask the archive"):
        CopyPaste(archive, wrong, SMALL).make_scene(np.random.default_rng(0))


def test_a_picture_that_cannot_be_read_is_named(archive: Archive, masks: dict[str, PseudoMask], tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    torn = replace(archive, places=dict.fromkeys(archive.places, str(tmp_path / "torn.png")))
    with pytest.raises(ImageError, match=r"torn\.png"):
        CopyPaste(torn, masks, SMALL).make_scene(np.random.default_rng(0))


@pytest.mark.parametrize(
    "changes",
    [
        {"same_archive": 1.5},
        {"corners": (0.5, 0.5, 0.5, 0.0)},
        {"corners": (0.5, 0.5)},
        {"images": (0, 3)},
        {"images": (4, 3)},
        {"images": (1, 255)},
        {"scale": (0.0, 1.0)},
        {"sigma": (2.0, 1.0)},
        {"jitter": (0.8, 0.8, 0.8, 0.6)},
        {"jitter": (0.8, 0.8)},
        {"crop": 0},
    ],
)
def test_settings_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        replace(VARIANTS["default"], **changes)


# The sheet


def test_a_sheet_shows_each_scene_beside_its_truth(archive: Archive, masks: dict[str, PseudoMask]) -> None:
    made, rng = CopyPaste(archive, masks, SMALL), np.random.default_rng(0)
    scenes = [made.make_scene(rng) for _ in range(3)]
    sheet = draw_scenes(scenes, NAMES, columns=2, side=64)
    assert sheet.size == (4 * 70 + 6, 2 * 70 + 6)
    cells: npt.NDArray[np.uint8] = np.asarray(sheet)
    first = PIL.Image.fromarray(scenes[0].image).resize((64, 64), PIL.Image.Resampling.LANCZOS)
    assert np.array_equal(cells[6:70, 6:70], np.asarray(first))
    assert not np.array_equal(cells[6:70, 76:140], np.asarray(first))
    assert (cells[76:140, 146:] == 255).all()  # no fourth scene
    with pytest.raises(InputError, match="at least one scene"):
        draw_scenes([], NAMES)


def test_a_whole_canvas_leaves_no_padding(archive: Archive, masks: dict[str, PseudoMask]) -> None:
    how = CopyPasteSettings(crop=48, scale=(0.1, 0.4), images=(1, 3))
    plain, whole = (CopyPaste(archive, masks, replace(how, whole_canvas=yes)) for yes in (False, True))
    for seed in range(12):
        assert not (whole.make_scene(np.random.default_rng(seed)).semantic == how.ignored).any()
    assert any((plain.make_scene(np.random.default_rng(seed)).semantic == how.ignored).any() for seed in range(12))
