"""Zip on the paper world: the whole conformance suite, and that each setting does what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from tests.support.prompts import plain_prompts
from torch import Tensor

from annofree.errors import InputError
from annofree.fragments.clusters import Init, Seeding
from annofree.methods.zip import VARIANTS, Coarse, Zip, ZipSettings
from annofree.protocols import Embedding, PromptedMasks, Segmenter
from annofree.structures import Detections, FeatureMap, Image, Vocabulary
from annofree.testing.conformance import CHECKS, check_known_answers
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import BACKGROUND, COLORS, NAMES, PaperScene, draw_paper_scenes
from annofree.testing.tolerances import assert_close

PAPER = VARIANTS["paper"]
Check = Callable[[Segmenter], None]
Rectangle = tuple[int, int, int, int]


def scene(name: str) -> PaperScene:
    return next(s for s in draw_paper_scenes() if s.image.id == name)


def zip_of(settings: ZipSettings | str = PAPER) -> Zip:
    return Zip(FakeClip(), FakeSam(), settings)


def ask(settings: ZipSettings | str, image: Image) -> Detections:
    return zip_of(settings).instances(image, NAMES)


def coarse_of(settings: ZipSettings | str, image: Image, clip: FakeClip | None = None) -> Coarse:
    method = Zip(clip or FakeClip(), FakeSam(), settings)
    return method.find_coarse(method.encode([image])[0], Vocabulary.of(NAMES))


def paper(size: tuple[int, int], *pieces: tuple[str, Rectangle]) -> Image:
    """Rectangles x0 y0 x1 y1 on grey; the name "" is a hole."""
    pixels = np.full((*size, 3), BACKGROUND, np.uint8)
    for name, (x0, y0, x1, y1) in pieces:
        pixels[y0:y1, x0:x1] = COLORS[name][0] if name else BACKGROUND
    return Image(pixels)


def same(one: Detections, other: Detections) -> bool:
    """To the bit: both are asked for in one way."""
    rles = [[r["counts"] for r in found.rles] for found in (one, other)]
    return one.labels.tolist() == other.labels.tolist() and rles[0] == rles[1] and np.array_equal(one.scores, other.scores)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("variant", ["default", "paper"])
def test_conforms(variant: str, check: Check) -> None:
    check(zip_of(variant))


@pytest.mark.parametrize("check", [c for c in CHECKS if c is not check_known_answers], ids=lambda check: check.__name__)
def test_the_official_variant_conforms_but_for_its_coarse_masks(check: Check) -> None:
    check(zip_of("official"))


def test_the_official_variant_finds_everything_coarsely() -> None:
    check_known_answers(zip_of("official"), min_iou=0.75)  # a cell of 2 px is lost all around: nothing is drawn by SAM


# What the official variant keeps of the released demo


def test_official_boxes_are_exact_on_a_square_scene() -> None:
    """The object covers 16..80 x 24..104 px; the cells of 2 px at its edge are boundary, on either side."""
    found = coarse_of("official", paper((128, 128), ("apple", (16, 24, 80, 104))))
    assert found.boxes.tolist() == [[18.0, 26.0, 78.0, 102.0]]
    assert found.regions.shape == (1, 64, 64)
    assert int(found.regions.sum()) == 30 * 38


@pytest.mark.parametrize("size", [(90, 151), (151, 90)])
def test_the_official_scale_is_swapped(size: tuple[int, int]) -> None:
    """151 px are 76 cells, so the two scales differ: x grows by H / h and y by W / w."""
    image, (down, right) = paper(size, ("apple", (16, 24, 72, 64))), (n / round(n / 2) for n in size)
    straight = coarse_of(replace(VARIANTS["official"], swapped_scale=False), image).boxes
    swapped = coarse_of("official", image).boxes
    assert down != right
    cells = straight / torch.tensor([right, down, right, down])
    assert_close(cells, cells.round())
    assert_close(swapped, cells * torch.tensor([down, right, down, right]))


@pytest.mark.parametrize(("bottom", "found"), [(48, ["tree", "apple"]), (46, ["tree"])])
def test_the_official_floor_is_a_hundred_cells(bottom: int, found: list[str]) -> None:
    """24 x 24 px are 10 x 10 cells within the edge, 24 x 22 px are 10 x 9."""
    image = paper((128, 128), ("apple", (16, 24, 40, bottom)), ("tree", (72, 40, 120, 120)))
    assert ask("official", image).labels.tolist() == found
    assert sorted(ask(replace(VARIANTS["official"], min_area=0), image).labels) == ["apple", "tree"]


# Settings


class Recording(FakeSam):
    def __init__(self) -> None:
        self.asked: list[tuple[Any, Any]] = []

    def predict_masks(self, embedding: Embedding, **prompts: Any) -> PromptedMasks:
        self.asked.append(plain_prompts(prompts))
        return super().predict_masks(embedding, **prompts)


def prompted(settings: ZipSettings) -> tuple[list[tuple[Any, Any]], Detections]:
    sam = Recording()
    return sam.asked, Zip(FakeClip(), sam, settings).instances(scene("touching").image, NAMES)


COARSE = [[18.0, 82.0, 78.0, 134.0], [18.0, 26.0, 62.0, 78.0]]  # of "touching", strongest first
REFINED = [[16.0, 80.0, 80.0, 136.0], [16.0, 24.0, 64.0, 80.0]]
CENTERS = [[48.0, 108.0], [40.0, 52.0]]


def test_without_prompting_the_cells_are_the_masks() -> None:
    asked, found = prompted(replace(PAPER, prompting="none"))
    assert asked == []
    assert found.boxes.tolist() == COARSE
    assert np.array_equal(found.masks[:, ::2, ::2].repeat(2, 1).repeat(2, 2), found.masks)


def test_one_step_prompts_with_the_coarse_boxes() -> None:
    asked, found = prompted(replace(PAPER, prompting="one-step"))
    assert asked == [(COARSE, None)]
    assert np.array_equal(found.masks, scene("touching").masks[::-1])


@pytest.mark.parametrize(("second", "boxes"), [("point", None), ("box+point", REFINED)])
def test_two_steps_prompt_with_the_centre_of_the_refined_box(second: Any, boxes: Any) -> None:
    asked, found = prompted(replace(PAPER, prompting="two-step", second=second))
    assert asked == [(COARSE, None), (boxes, CENTERS)]
    assert np.array_equal(found.masks, scene("touching").masks[::-1])


def test_the_second_step_draws_what_lies_at_the_centre() -> None:
    """The middle of a ring is not the ring: what the paper's second step does to such a thing."""
    ring = paper((128, 160), ("car", (24, 16, 104, 112)), ("", (48, 48, 80, 80)))
    one, two = (ask(replace(PAPER, prompting=p), ring) for p in ("one-step", "two-step"))
    assert one.areas.tolist() == [80 * 96 - 32 * 32]
    assert two.boxes.tolist() == [[48.0, 48.0, 80.0, 80.0]]


class SeesNothing(FakeSam):
    def predict_masks(self, embedding: Embedding, **prompts: Any) -> PromptedMasks:
        drawn = super().predict_masks(embedding, **prompts)
        return PromptedMasks(torch.zeros_like(drawn.masks), drawn.quality)


def test_where_sam_draws_nothing_the_cells_stay() -> None:
    image = scene("touching").image
    found = Zip(FakeClip(), SeesNothing(), PAPER).instances(image, NAMES)
    assert same(found, ask(replace(PAPER, prompting="none"), image))


@pytest.mark.parametrize("variant", VARIANTS)
def test_clues_alone_merge_what_fragments_separate(variant: str) -> None:
    settings, image = replace(VARIANTS[variant], prompting="none"), scene("touching").image
    assert ask(replace(settings, instances="fragments"), image).labels.tolist() == ["car", "car"]
    merged = ask(replace(settings, instances="clue"), image)
    assert merged.labels.tolist() == ["car"]
    truth = scene("touching").masks.any(0)
    assert (merged.masks[0] & truth).sum() / (merged.masks[0] | truth).sum() > 0.85


def test_the_strongest_are_kept() -> None:
    image = scene("touching").image
    all_, one = ask(PAPER, image), ask(replace(PAPER, most=1), image)
    assert len(all_) == 2
    assert same(one, all_[:1])
    assert len(ask(replace(PAPER, most=0), image)) == 0


class Doubtful(FakeClip):
    """Umbrellas are there with 0.8, trees with 0.2."""

    def score_presence(self, whole: Tensor, tokens: FeatureMap, words: Tensor) -> Tensor:
        likely = torch.zeros(words.shape[1])
        likely[NAMES.index("umbrella")], likely[NAMES.index("tree")] = 0.8, 0.2
        return words @ likely


@pytest.mark.parametrize(
    ("gate", "found"), [(0.0, {"tree", "umbrella"}), (0.1, {"tree", "umbrella"}), (0.5, {"umbrella"}), (0.9, set())]
)
def test_classes_unlikely_to_be_there_are_passed_over(gate: float, found: set[str]) -> None:
    coarse = coarse_of(replace(PAPER, presence=gate), scene("two classes").image, Doubtful())
    assert {NAMES[k] for k in coarse.class_ids.tolist()} == found
    assert coarse.regions.shape == (len(found), 52, 84)
    assert coarse.boxes.shape == (len(found), 4)


def test_a_joint_score_is_activation_times_presence() -> None:
    image, names = scene("two classes").image, [NAMES.index("umbrella"), NAMES.index("tree")]
    alone, joint = (coarse_of(replace(PAPER, presence=0.1, score=s), image, Doubtful()) for s in ("activation", "joint"))
    assert joint.class_ids.tolist() == names  # strongest first
    activation = dict(zip(alone.class_ids.tolist(), alone.scores.tolist(), strict=True))
    assert_close(joint.scores, [0.8 * activation[names[0]], 0.2 * activation[names[1]]])
    assert all(0.9 < value <= 1 for value in activation.values())


@pytest.mark.parametrize("init", get_args(Init))
def test_every_seeding_cuts_the_picture_into_pieces_and_does_so_again(init: Init) -> None:
    method = zip_of(replace(PAPER, seeding=Seeding(init, seed=3)))
    images = [s.image for s in draw_paper_scenes()]
    for one, again in zip(method.encode(images), method.encode(images), strict=True):
        pieces = one.fragments
        assert set(pieces.labels.flatten().tolist()) == set(range(1, len(pieces) + 1))
        assert pieces.area.sum() == pieces.labels.numel()
        assert torch.equal(pieces.labels, again.fragments.labels)


def test_an_encoding_answers_another_vocabulary_as_a_fresh_call_does() -> None:
    method, image = zip_of("default"), scene("two classes").image
    encoding = method.encode([image])[0]
    assert set(method.instances(encoding, "tree").labels) == {"tree"}
    for classes in ("umbrella", "umbrella, tree", "car", ["boat", "umbrella: brolly"]):
        assert same(method.instances(encoding, classes), zip_of("default").instances(image, classes))


def test_no_images_give_no_encodings() -> None:
    assert zip_of().encode([]) == []


def test_an_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown variant of zip 'offical'; did you mean 'official'\?"):
        zip_of("offical")


def test_encodings_are_shared_by_settings_that_do_not_change_them() -> None:
    other = zip_of(replace(PAPER, most=3, prompting="none", min_activation=0.7, score="joint"))
    assert zip_of().encoding_key == other.encoding_key
    for changed in (replace(PAPER, seeding=Seeding("random")), replace(PAPER, connectivity=4)):
        assert zip_of(changed).encoding_key != zip_of().encoding_key


def test_provenance_holds_settings_and_models() -> None:
    told = zip_of("official").provenance
    assert (told["method"], told["settings"]["min_area"], told["settings"]["seeding"]["init"]) == ("zip", 100, "linspace")
    assert [model["name"] for model in told["models"]] == ["fake-clip", "fake-sam"]
