import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pycocotools import mask as coco_mask
from tests.support.drawing import drawing
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from annofree.datasets.emoji import world as emoji_world
from annofree.datasets.emoji.world import CATEGORIES, SPLITS, Scene, Split, World, find_font
from annofree.errors import InputError, MissingError
from annofree.ops.boxes import compute_tight_boxes

EXAMPLES = Path(__file__).parents[2] / "examples"
VALIDATION = EXAMPLES / "validation"
MANY = {
    "people": "person", "buses": "bus", "sheep": "sheep", "wine glasses": "wine glass", "knives": "knife",
    "sandwiches": "sandwich", "couches": "couch", "mice": "mouse", "scissors": "scissors", "toothbrushes": "toothbrush",
    "broccoli": "broccoli",
}  # fmt: skip
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}


@cache
def world(held_out: float = 0.0) -> World:
    return World(held_out=held_out)


@cache
def drawn(split: Split, held_out: float = 0.0) -> list[Scene]:
    return list(world(held_out).draw_scenes(12, 5, split, 128))


def same(a: Scene, b: Scene) -> bool:
    arrays = ((a.image, b.image), (a.layout, b.layout), (a.parts, b.parts))
    words = ((a.objects, b.objects), (a.caption, b.caption), (a.split, b.split), (a.background, b.background))
    return all(np.array_equal(x, y) for x, y in arrays) and all(x == y for x, y in words)


def told(caption: str) -> dict[str, int | None]:
    """The names that a caption mentions and how many of each, None for an open plural."""
    found = re.fullmatch(r"(?:a photo of |a picture of |a scene with |there is )?(.*?)(?: here)?", caption)
    assert found
    names: dict[str, int | None] = {}
    for phrase in re.split(r", | and ", found[1]):
        first, _, rest = phrase.partition(" ")
        if first in ("a", "an"):
            assert rest in CATEGORIES.values() and (first == "an") == (rest[0] in "aeiou"), caption
            names[rest] = 1
            continue
        number, plural = (NUMBERS[first], rest) if first in NUMBERS else (None, phrase)
        names[MANY[plural] if plural in MANY else plural.removesuffix("s")] = number
    return names


class TestCategories:
    def test_ids_and_names_are_those_of_coco(self) -> None:
        coco = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]  # the list position is COCO's id
        assert len(CATEGORIES) == 65
        assert {id_: coco[id_] for id_ in CATEGORIES} == CATEGORIES

    def test_the_committed_truth_has_the_same(self) -> None:
        assert {c["id"]: c["name"] for c in truth()["categories"]} == CATEGORIES


class TestFont:
    def test_without_a_font_the_error_says_how_to_get_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(emoji_world, "_FONTS", ("/nowhere/NotoColorEmoji.ttf",))
        for ask in (find_font, World):
            with pytest.raises(MissingError, match=r"fonts-noto-color-emoji.*--font"):
                ask()

    def test_a_font_that_is_given_has_to_be_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="expected a font file, but there is none at"):
            find_font(tmp_path / "none.ttf")

    def test_a_font_that_is_given_is_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(emoji_world, "_FONTS", ())
        (tmp_path / "a.ttf").touch()
        assert find_font(tmp_path / "a.ttf") == tmp_path / "a.ttf"


@drawing
class TestScenes:
    @pytest.mark.parametrize("split", ["plain", "cluttered", "mixed"])
    def test_the_same_seed_gives_the_same_scenes(self, split: Split) -> None:
        again = list(World().draw_scenes(3, 5, split, 128))
        assert all(same(a, b) for a, b in zip(drawn(split)[:3], again, strict=True))
        others = list(world().draw_scenes(3, 6, split, 128))
        assert not any(same(a, b) for a, b in zip(drawn(split)[:3], others, strict=True))

    def test_a_scene_does_not_depend_on_how_many_are_drawn(self) -> None:
        (*_, last) = world().draw_scenes(5, 5, "plain", 128)
        assert same(last, drawn("plain")[4])

    def test_splits_of_one_seed_are_different_scenes(self) -> None:
        firsts = [drawn(s)[0] for s in ("plain", "mixed", "touching")]
        assert not any(np.array_equal(a.image, b.image) for a in firsts for b in firsts if a is not b)

    @pytest.mark.parametrize("split", [*SPLITS, "single", "empty", "mixed"])
    def test_layout_and_objects_agree(self, split: Split) -> None:
        for scene in drawn(split):
            assert scene.image.shape == (128, 128, 3) and scene.image.dtype == np.uint8
            assert scene.layout.shape == scene.parts.shape == (128, 128)
            assert scene.split == split
            numbers = np.unique(scene.layout)
            assert set(numbers.tolist()) - {0} == set(range(1, len(scene.objects) + 1))
            masks = [scene.mask(i) for i in range(len(scene.objects))]
            assert all(m.sum() >= 0.0015 * m.size for m in masks)
            assert np.array_equal(sum(masks, np.zeros((128, 128), int)), (scene.layout > 0).astype(int))  # disjoint
            assert all(o.category_id in CATEGORIES for o in scene.objects)

    @pytest.mark.parametrize("split", [*SPLITS, "single", "mixed"])
    def test_a_caption_names_what_is_visible_and_nothing_else(self, split: Split) -> None:
        for scene in drawn(split):
            if not scene.objects:
                continue
            visible = Counter(CATEGORIES[o.category_id] for o in scene.objects)
            mentioned = told(scene.caption)
            assert set(mentioned) == set(visible), scene.caption
            for name, number in mentioned.items():
                # a mass noun or an open plural tells no number
                assert number in (None, min(visible[name], 6)), scene.caption

    def test_what_the_splits_are(self) -> None:
        for scene in drawn("single"):
            assert len(scene.objects) == 1
        for scene in drawn("empty"):
            assert not scene.objects and not scene.layout.any()
            assert "nothing" in scene.caption or "empty background" in scene.caption
        assert {s.background for s in drawn("cluttered")} == {"photo"}
        assert {s.background for s in drawn("plain") + drawn("touching")} <= {"plain", "gradient", "noise"}
        assert all(len({o.category_id for o in s.objects}) <= 2 for s in drawn("touching"))
        assert max(len(s.objects) for split in SPLITS for s in drawn(split)) > 3

    def test_siblings_of_the_touching_split_touch_more_often(self) -> None:
        def touching(split: Split) -> float:
            shares = []
            for scene in drawn(split):
                ids = [o.category_id for o in scene.objects]
                pairs = [(i, j) for i in range(len(ids)) for j in range(i) if ids[i] == ids[j]]
                shares += [touch(scene.mask(i), scene.mask(j)) for i, j in pairs]
            return float(np.mean(shares))

        def touch(a: np.ndarray, b: np.ndarray) -> bool:
            grown = np.pad(a, 1)
            near = grown[2:, 1:-1] | grown[:-2, 1:-1] | grown[1:-1, 2:] | grown[1:-1, :-2]
            return bool((near & b).any())

        assert touching("touching") > 0.4

    def test_kept_out_looks_show_only_when_asked_for(self) -> None:
        kept = {s.emoji for looks in world().sprites.values() for s in looks if s.held_out}
        classes = {i for i, looks in world().sprites.items() if any(s.held_out for s in looks)}
        assert len(kept) == len(classes) > 10
        for split in ("plain", "mixed"):
            for o in (o for s in drawn(split) for o in s.objects):
                assert not o.held_out and o.emoji not in kept
        worn = [o for s in drawn("mixed", 1.0) for o in s.objects]
        assert any(o.held_out for o in worn)
        assert all(o.held_out == (o.category_id in classes) == (o.emoji in kept) for o in worn)

    def test_a_cast_is_what_is_composed(self) -> None:
        scene = world().compose(np.random.default_rng(0), [22, 22, 55], "plain", 200)
        assert scene.image.shape == (200, 200, 3)
        assert [o.category_id for o in scene.objects] == [22, 22, 55]
        assert set(told(scene.caption)) == {"elephant", "orange"}

    def test_sprites_are_tight_pictures_with_parts(self) -> None:
        for id_, looks in world().sprites.items():
            assert looks and not looks[0].held_out
            for sprite in looks:
                assert sprite.category_id == id_
                alpha = sprite.pixels[..., 3]
                assert alpha[0].any() and alpha[-1].any() and alpha[:, 0].any() and alpha[:, -1].any()
                assert sprite.parts.shape == alpha.shape and sprite.parts.any()
                assert not sprite.parts[alpha <= 127].any()


@cache
def truth() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((VALIDATION / "truth.json").read_text(encoding="utf-8"))
    return data


class TestCommittedFiles:
    def test_a_hundred_and_fifty_pictures_fifty_a_split(self) -> None:
        images = truth()["images"]
        assert Counter(i["split"] for i in images) == dict.fromkeys(SPLITS, 50)
        assert [i["id"] for i in images] == list(range(1, 151))
        names = [i["file_name"] for i in images]
        assert sorted(names) == sorted(p.name for p in (VALIDATION / "images").iterdir())
        for image in images:
            with PIL.Image.open(VALIDATION / "images" / image["file_name"]) as picture:
                assert (picture.height, picture.width) == (image["height"], image["width"]) == (256, 256)
                assert picture.mode == "RGB"

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools, with NumPy 2
    def test_annotations_are_filled_and_their_boxes_tight(self) -> None:
        annotations = truth()["annotations"]
        assert [a["id"] for a in annotations] == list(range(1, len(annotations) + 1))
        assert {a["image_id"] for a in annotations} == set(range(1, 151))  # no image is without an object
        assert all(a["category_id"] in CATEGORIES and a["iscrowd"] == 0 for a in annotations)
        rles = [a["segmentation"] | {"counts": a["segmentation"]["counts"].encode()} for a in annotations]
        masks = np.ascontiguousarray(coco_mask.decode(rles).transpose(2, 0, 1)).astype(bool)
        areas = masks.sum((1, 2))
        assert areas.min() >= 0.0015 * 256 * 256
        assert areas.tolist() == [a["area"] for a in annotations]
        x, y, w, h = np.array([a["bbox"] for a in annotations]).T
        assert np.array_equal(np.stack([x, y, x + w, y + h], 1), compute_tight_boxes(masks))
        for image in range(1, 151):
            assert masks[[a["image_id"] == image for a in annotations]].sum(0).max() == 1  # disjoint

    def test_unseen_says_which_looks_were_kept_out_of_training(self) -> None:
        annotations = truth()["annotations"]
        kept = {emoji for _, _, _, emojis in emoji_world._TABLE for emoji in emojis}
        names = {id_: set(seen) | set(new) for id_, _, seen, new in emoji_world._TABLE}
        assert all(a["unseen"] == (a["emoji"] in kept) for a in annotations)
        assert all(a["emoji"] in names[a["category_id"]] for a in annotations)
        for image in truth()["images"]:
            assert image["unseen"] == any(a["unseen"] for a in annotations if a["image_id"] == image["id"])
        assert 0.02 < np.mean([a["unseen"] for a in annotations]) < 0.3

    def test_captions_name_the_objects(self) -> None:
        captions = json.loads((VALIDATION / "captions.json").read_text(encoding="utf-8"))
        assert captions["images"] == truth()["images"]
        assert [c["image_id"] for c in captions["annotations"]] == list(range(1, 151))
        for caption in captions["annotations"]:
            ids = {a["category_id"] for a in truth()["annotations"] if a["image_id"] == caption["image_id"]}
            assert set(told(caption["caption"])) == {CATEGORIES[i] for i in ids}, caption

    def test_a_dozen_sample_scenes_and_a_small_folder(self) -> None:
        scenes = sorted((EXAMPLES / "scenes").glob("*.jpg"))
        assert len(scenes) == 12
        for path in scenes:
            with PIL.Image.open(path) as image:
                assert image.format == "JPEG" and image.size == (256, 256)
        assert sum(p.stat().st_size for p in EXAMPLES.rglob("*") if p.is_file()) <= 8 * 2**20

    @drawing
    def test_the_committed_truth_is_what_the_world_draws(self) -> None:
        scene = next(World(held_out=0.3).draw_scenes(1, 2024, "plain"))
        found = [a for a in truth()["annotations"] if a["image_id"] == 1]
        assert [(a["category_id"], a["emoji"]) for a in found] == [(o.category_id, o.emoji) for o in scene.objects]
        with PIL.Image.open(VALIDATION / "images" / "plain-00.jpg") as image:
            assert np.abs(np.asarray(image).astype(int) - scene.image).mean() < 10  # fonts differ a little
