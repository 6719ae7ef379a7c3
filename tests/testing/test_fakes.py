from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from skimage.measure import label

from annofree.errors import InputError
from annofree.protocols import Masker, Objectness, SelfSupervised, VisionLanguage
from annofree.structures import Image, Vocabulary
from annofree.testing.fakes import FakeClip, FakeDino, FakeObjectness, FakeSam
from annofree.testing.paper_world import NAMES, PaperScene, draw_paper_scenes
from annofree.testing.tolerances import assert_close

CLIP: VisionLanguage = FakeClip()
SAM: Masker = FakeSam()
DINO: SelfSupervised = FakeDino()
OBJECTNESS: Objectness = FakeObjectness()
ODD_SIZES = [(1, 1), (3, 200), (200, 3), (7, 9), (90, 150)]
each_scene = pytest.mark.parametrize("scene", draw_paper_scenes(), ids=lambda scene: scene.image.id)


def noise(size: tuple[int, int]) -> Image:
    return Image(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))


def scene_of(id_: str) -> PaperScene:
    return next(scene for scene in draw_paper_scenes() if scene.image.id == id_)


def boxes_of(scene: PaperScene) -> np.ndarray[Any, np.dtype[np.float32]]:
    spans = [(np.flatnonzero(m.any(0)), np.flatnonzero(m.any(1))) for m in scene.masks]
    return np.array([[x[0], y[0], x[-1] + 1, y[-1] + 1] for x, y in spans], np.float32).reshape(-1, 4)


def shares(mask: np.ndarray[Any, np.dtype[np.bool_]], h: int, w: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How much of each cell (h, w) is in a mask (H, W); a pixel is in the cell that its upper left corner is in."""
    owners = [np.floor(np.arange(side) * n / side) for side, n in zip(mask.shape, (h, w), strict=True)]
    return np.array([[mask[owners[0] == y][:, owners[1] == x].mean() for x in range(w)] for y in range(h)])


def test_words_are_unit_vectors_and_known_names_are_axes() -> None:
    words = CLIP.encode_text(Vocabulary.of(", ".join([*NAMES, "Background", "zeppelin", "car: automobile"][:-1])))
    assert words.shape == (len(NAMES) + 2, CLIP.dimension) and words.dtype == torch.float32
    assert torch.equal(words[: len(NAMES) + 1], torch.eye(CLIP.dimension)[: len(NAMES) + 1])
    assert words[-1, : len(NAMES) + 1].sum() == 0 and words[-1].norm() == 1


def test_synonyms_are_averaged_to_a_unit_vector() -> None:
    both, car, boat = CLIP.encode_text(Vocabulary.of("vehicle: car | boat, car, boat"))
    assert_close(both @ car, both @ boat)
    assert_close(both.norm(), torch.tensor(1.0))


def test_unknown_words_are_the_same_each_time() -> None:
    names = Vocabulary.of("zeppelin, accordion")
    assert torch.equal(CLIP.encode_text(names), FakeClip().encode_text(names))


@each_scene
def test_dense_names_the_cells(scene: PaperScene) -> None:
    (dense,) = CLIP.encode_dense([scene.image])
    h, w = (round(side / 8) for side in scene.image.size)
    assert dense.values.shape == (CLIP.dimension, h, w) and dense.size == scene.image.size
    clue = torch.einsum("kd,dhw->khw", CLIP.encode_text(Vocabulary.of(NAMES)), dense.values)
    for k, name in enumerate(NAMES):
        masks = [m for m, n in zip(scene.masks, scene.names, strict=True) if n == name]
        expected = shares(np.any(masks, axis=0), h, w) >= 0.5 if masks else np.zeros((h, w), bool)
        assert np.array_equal(clue[k].numpy() > 0.5, expected), name


@pytest.mark.parametrize("size", ODD_SIZES)
def test_any_size_gives_unit_features(size: tuple[int, int]) -> None:
    image = noise(size)
    dense, edges = CLIP.encode_dense([image])[0], CLIP.encode_boundaries([image])[0]
    assert min(dense.values.shape) >= 1 and edges.values.shape[1] >= dense.values.shape[1]
    assert dense.values.dtype == edges.values.dtype == torch.float32
    assert_close(dense.values.norm(dim=0), torch.ones(dense.values.shape[1:]))
    assert_close(CLIP.encode_image([image]).norm(dim=1), torch.ones(1))
    assert edges.values.min() >= 0 and edges.values.max() <= 1
    assert CLIP.encode_crops(image, np.array([[0, 0, 1, 1], [-5, -5, 999, 999]], np.float32), pooled=True).shape == (
        2,
        CLIP.dimension,
    )


def test_boundaries_tell_touching_instances_apart_where_dense_does_not() -> None:
    scene = scene_of("touching")
    dense, edges = CLIP.encode_dense([scene.image])[0].values, CLIP.encode_boundaries([scene.image])[0].values
    assert edges.shape == (3, 80, 48)
    one, other, between, paper = (26, 16), (54, 16), (40, 16), (0, 0)  # cells of 2 px; the two meet at row 80 px
    assert torch.equal(dense[:, one[0] // 4, one[1] // 4], dense[:, other[0] // 4, other[1] // 4])
    assert (edges[:, *one] - edges[:, *other]).norm() > 0.1
    assert torch.equal(edges[:, *between], edges[:, *paper]) and torch.equal(edges[:, 39, 16], edges[:, *paper])
    assert_close(edges[:, *one], torch.tensor(scene.image.pixels[52, 32] / 255, dtype=torch.float32))


@each_scene
def test_pieces_of_the_boundary_map_are_the_objects(scene: PaperScene) -> None:
    edges = CLIP.encode_boundaries([scene.image])[0].values.numpy()
    pieces = label(np.abs(edges - edges[:, :1, :1]).max(0) > 0.01, connectivity=2)
    assert pieces.max() == len(scene.names)


def test_neutral_is_equally_like_every_cell() -> None:
    values = torch.einsum("d,dhw->hw", CLIP.encode_null_text(), CLIP.encode_dense([scene_of("two classes").image])[0].values)
    assert values.min() == values.max() > 0


def test_remarks_name_the_strangers() -> None:
    assert CLIP.remarks(Vocabulary.of("apple, background")) == []
    assert "zeppelin, airship" in CLIP.remarks(Vocabulary.of("apple, zeppelin: airship"))[0]
    assert {"name", "licence", "tier"} <= CLIP.provenance.keys() & SAM.provenance.keys()


def test_whole_weighs_by_area() -> None:
    scene = scene_of("two classes")
    feature = CLIP.encode_image([scene.image, draw_paper_scenes()[-1].image])
    shares = [scene.masks[i].mean() for i in (0, 1)] + [1 - scene.masks.mean((1, 2)).sum()]
    axes = [NAMES.index(n) for n in scene.names] + [len(NAMES)]
    assert_close(feature[0, axes], torch.tensor(np.array(shares) / np.linalg.norm(shares), dtype=torch.float32))
    words = CLIP.encode_text(Vocabulary.of([*NAMES, "zeppelin"]))
    there = [float(name in scene.names) for name in (*NAMES, "zeppelin")]
    assert CLIP.score_presence(feature[0], CLIP.encode_dense([scene.image])[0], words).tolist() == there
    assert_close(feature[1, len(NAMES)], 1.0)


@each_scene
@pytest.mark.parametrize("pooled", [False, True])
def test_crops_name_the_objects(scene: PaperScene, pooled: bool) -> None:
    crops = CLIP.encode_crops(scene.image, boxes_of(scene), pooled=pooled)
    assert crops.shape == (len(scene.names), CLIP.dimension)
    assert crops.argmax(1).tolist() == [NAMES.index(name) for name in scene.names]


@each_scene
def test_boxes_draw_the_objects(scene: PaperScene) -> None:
    boxes = boxes_of(scene) + np.array([-3, 2, 4, -2], np.float32)  # a prompt is seldom exact
    drawn = SAM.predict_masks(SAM.embed([scene.image])[0], boxes=boxes)
    assert drawn.masks.dtype == torch.bool and drawn.quality.dtype == torch.float32
    assert drawn.masks.shape == (len(scene.names), 1, *scene.image.size) and drawn.quality.shape == (len(scene.names), 1)
    assert np.array_equal(drawn.masks[:, 0].numpy(), scene.masks)


@each_scene
def test_points_draw_the_objects(scene: PaperScene) -> None:
    inside = [np.argwhere(mask)[0] for mask in scene.masks]
    points = np.array([[x, y] for y, x in inside], np.float32).reshape(-1, 2)
    drawn = SAM.predict_masks(SAM.embed([scene.image])[0], points=points + 0.9)
    assert np.array_equal(drawn.masks[:, 0].numpy(), scene.masks)


def test_many_gives_the_region_its_group_and_the_box() -> None:
    scene = scene_of("touching")
    (embedding,) = SAM.embed([scene.image])
    box = np.array([[10, 20, 70, 81]], np.float32)
    drawn = SAM.predict_masks(embedding, boxes=box, multimask=True)
    region, group, filled = drawn.masks[0].numpy()
    assert drawn.masks.shape[:2] == drawn.quality.shape == (1, 3) and drawn.quality[0].argmax() == 0
    assert np.array_equal(region, scene.masks[0]) and np.array_equal(group, scene.masks.any(0))
    assert filled.sum() == 60 * 61 and filled[20:81, 10:70].all()
    on_paper = SAM.predict_masks(embedding, points=np.array([[0, 0]], np.float32), multimask=True).masks[0].numpy()
    assert np.array_equal(on_paper[1], ~scene.masks.any(0)) and on_paper[2].all()


def test_a_point_counts_only_in_its_box() -> None:
    scene = scene_of("two classes")
    boxes = boxes_of(scene)[[0, 0]]
    tree, umbrella = ([x0 + 1, y0 + 1] for x0, y0, _, _ in boxes_of(scene))
    drawn = SAM.predict_masks(SAM.embed([scene.image])[0], boxes=boxes, points=np.array([tree, umbrella], np.float32))
    assert np.array_equal(drawn.masks[:, 0].numpy(), scene.masks[[0, 0]])


@pytest.mark.parametrize("size", ODD_SIZES)
def test_prompts_outside_the_picture_draw_something(size: tuple[int, int]) -> None:
    (embedding,) = SAM.embed([noise(size)])
    for prompt in (-50, 0, 500):
        assert (
            SAM.predict_masks(embedding, boxes=np.full((1, 4), prompt, np.float32), multimask=True).masks[0].any((1, 2)).all()
        )
        assert SAM.predict_masks(embedding, points=np.full((1, 2), prompt, np.float32)).masks.any()


@pytest.mark.parametrize("many", [False, True])
def test_no_prompts_draw_nothing(many: bool) -> None:
    (embedding,) = SAM.embed([noise((5, 6))])
    drawn = SAM.predict_masks(embedding, boxes=np.zeros((0, 4), np.float32), multimask=many)
    assert drawn.masks.shape == (0, 3 if many else 1, 5, 6) and drawn.quality.shape == (0, 3 if many else 1)
    assert SAM.embed([]) == [] and CLIP.encode_dense([]) == [] and CLIP.encode_image([]).shape == (0, CLIP.dimension)


@pytest.mark.parametrize(
    "prompts",
    [
        {},
        {"boxes": np.zeros((2, 3), np.float32)},
        {"points": np.zeros(2, np.float32)},
        {"boxes": np.zeros((2, 4), np.float32), "points": np.zeros((1, 2), np.float32)},
        {"boxes": np.full((1, 4), np.nan, np.float32)},
    ],
)
def test_unfit_prompts_are_refused(prompts: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected boxes"):
        SAM.predict_masks(SAM.embed([noise((5, 6))])[0], **prompts)


def test_squares_are_whole_pictures() -> None:
    image = noise((8, 8))
    squares = torch.tensor(image.pixels).permute(2, 0, 1)[None].float() / 255
    assert torch.equal(CLIP.encode_squares(squares), CLIP.encode_image([image]))
    assert CLIP.encode_squares(squares[:0]).shape == (0, CLIP.dimension)


@each_scene
def test_keys_and_attention_tell_paint_from_paper(scene: PaperScene) -> None:
    keys, attention = DINO.extract_keys([scene.image])[0], DINO.extract_attention([scene.image])[0]
    h, w = (-(-side // DINO.patch) for side in scene.image.size)
    assert keys.values.shape == (7 * DINO.heads, h, w) and attention.values.shape == (DINO.heads, h, w)
    assert keys.size == attention.size == scene.image.size
    assert keys.window == attention.window == (h * DINO.patch, w * DINO.patch)
    padded = np.zeros(keys.window, bool)
    padded[: scene.image.size[0], : scene.image.size[1]] = scene.masks.any(0)
    paint = torch.from_numpy(shares(padded, h, w) > 0.5)
    assert torch.equal(keys.values[6] == 0, paint)  # the axis of paper in the first head
    assert attention.values.sum((1, 2)).max() < 1 and attention.values.min() > 0
    if paint.any():
        assert attention.values[:, paint].min() > attention.values[:, ~paint].max()


@pytest.mark.parametrize("size", ODD_SIZES)
def test_keys_are_not_unit_and_any_size_has_some(size: tuple[int, int]) -> None:
    (keys,) = DINO.extract_keys([noise(size)])
    norms = keys.values.norm(dim=0)
    assert norms.numel() >= 1
    assert_close(norms, torch.full_like(norms, 13.0**0.5))


@each_scene
def test_objectness_is_paint(scene: PaperScene) -> None:
    (found,) = OBJECTNESS.predict_maps([scene.image])
    assert found.dtype == torch.float32 and np.array_equal(found.numpy() == 1, scene.masks.any(0))
    assert set(np.unique(found.numpy()).tolist()) <= {0.0, 1.0}
    assert {"name", "licence", "tier"} <= OBJECTNESS.provenance.keys() & DINO.provenance.keys()
