"""ProxyCLIP and attention within regions: on the paper world, and their formulas against slow twins."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.painted import assert_best
from torch import Tensor
from torch.nn import functional as F

from annofree.clues.background import Background
from annofree.clues.windows import Windows, cut_windows, merge_windows, resize_to_image
from annofree.errors import InputError
from annofree.methods.components import Models
from annofree.methods.dense.dense_clip import DenseEncoding
from annofree.methods.dense.mixed_clip import MixedClip, group_cells
from annofree.methods.dense.proxy_clip import ProxyClip, ProxyClipSettings
from annofree.methods.dense.region_clip import (
    RegionClip,
    RegionClipSettings,
    average_in_regions,
    number_regions,
    vote_in_regions,
)
from annofree.ops.grids import resize_maps
from annofree.ops.proxy_attention import average_by_likeness
from annofree.protocols import Segmenter, SemanticSegmenter
from annofree.structures import Detections, FeatureMap, Image, LabelMap, Vocabulary
from annofree.testing.conformance import CHECKS
from annofree.testing.fakes import FakeClip, FakeDino, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.semantic_conformance import SEMANTIC_CHECKS
from annofree.testing.tolerances import assert_close

Make = Callable[[], MixedClip[Any]]
METHODS: dict[str, Make] = {
    "proxy": lambda: ProxyClip(FakeClip(), FakeDino()),
    "proxy of keys": lambda: ProxyClip(FakeClip(), FakeDino(), "keys"),
    "regions": lambda: RegionClip(FakeClip(), FakeSam(), FakeDino(), RegionClipSettings(candidates="fast")),
    "regions, no DINO": lambda: RegionClip(FakeClip(), FakeSam(), None, RegionClipSettings(candidates="fast", smooth="mean")),
}
each_method = pytest.mark.parametrize("name", METHODS)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(size: tuple[int, int], seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


class Random(FakeClip):
    """Values of 5 channels on cells of 8 px at random, aligned by a matrix; words at random, too."""

    matrix = draw(64, 5, seed=9).float()

    def extract_values(self, images: Sequence[Image]) -> list[FeatureMap]:
        return [FeatureMap(draw(5, *(max(1, n // 8) for n in i.size), seed=3).float(), i.size) for i in images]

    def align_values(self, cells: Tensor) -> Tensor:
        return F.normalize(torch.einsum("dc,chw->dhw", self.matrix, cells), dim=0)

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        return F.normalize(torch.stack([draw(64, seed=sum(map(ord, name))) for name in vocabulary.names]), dim=1).float()


class RandomDino(FakeDino):
    """Tokens of 7 channels on cells of 4 px at random, an image padded to whole ones."""

    def extract_tokens(self, images: Sequence[Image]) -> list[FeatureMap]:
        grids = [(-(-i.size[0] // 4), -(-i.size[1] // 4)) for i in images]
        return [
            FeatureMap(draw(7, *g, seed=5).float(), i.size, (4 * g[0], 4 * g[1])) for i, g in zip(images, grids, strict=True)
        ]


class Keyed:
    """A DINO that gives keys alone, at one size."""

    heads, patch, provenance = 2, 8, FakeDino().provenance

    def extract_keys(self, images: Sequence[Image]) -> list[FeatureMap]:
        return FakeDino().extract_keys(images)

    extract_attention = extract_keys

    def extract_keys_and_attention(self, images: Sequence[Image]) -> list[tuple[FeatureMap, FeatureMap]]:
        return FakeDino().extract_keys_and_attention(images)


# the paper world


@each_method
@pytest.mark.parametrize("check", SEMANTIC_CHECKS, ids=lambda check: check.__name__)
def test_conforms(name: str, check: Callable[[SemanticSegmenter], None]) -> None:
    method = METHODS[name]()
    assert isinstance(method, SemanticSegmenter) and isinstance(method, Segmenter)
    check(method)


@pytest.mark.parametrize("name", ["proxy", "regions"])
@pytest.mark.parametrize("check", CHECKS[2:], ids=lambda check: check.__name__)
def test_instances_conform_where_touching_ones_need_not_be_told_apart(name: str, check: Callable[[Segmenter], None]) -> None:
    if check.__name__ not in ("check_absent_classes", "check_no_memory"):  # these look for every object of a scene
        check(METHODS[name]())


def test_windows_name_the_pixels_too() -> None:
    scene, windows = draw_paper_scenes()[0], Windows(64, 32, 16)
    for method in (
        ProxyClip(FakeClip(), FakeDino(), ProxyClipSettings(windows=windows)),
        RegionClip(FakeClip(), FakeSam(), FakeDino(), RegionClipSettings(candidates="fast", windows=windows)),
    ):
        found = method.semantic(scene.image, NAMES)
        for mask, name in zip(scene.masks, scene.names, strict=True):
            assert (found.labels[mask] == found.names.index(name)).mean() > 0.7


def test_regions_give_the_edges_of_things() -> None:
    """A map of cells is coarse; with one name a region it is SAM's."""
    scene = draw_paper_scenes()[0]
    found = METHODS["regions"]().semantic(scene.image, NAMES)
    for mask, name in zip(scene.masks, scene.names, strict=True):
        assert (found.labels[mask] == found.names.index(name)).mean() > 0.99


# the attention


def mix_slowly(values: Tensor, features: Tensor, shift: float, scale: float, groups: list[int] | None) -> Tensor:
    """Pair by pair, as the formula reads."""
    count = values.shape[1]
    cosine = [[float(F.cosine_similarity(features[:, i], features[:, j], dim=0)) for j in range(count)] for i in range(count)]
    mean, out = sum(map(sum, cosine)) / count**2, torch.zeros_like(values)
    for i in range(count):
        weights = []
        for j in range(count):
            a = scale * (cosine[i][j] - shift * mean)
            seen = a >= 0 and (groups is None or groups[i] == groups[j])
            weights.append(np.exp(a) if seen or i == j else 0.0)
        for j in range(count):
            out[:, i] += weights[j] / sum(weights) * values[:, j]
    return out


@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 1, 2, 0, 2, 0, 1, 0]])
@pytest.mark.parametrize(("shift", "scale"), [(1.2, 3.0), (0.0, 3.0), (0.0, 0.0), (4.0, 10.0)])
def test_the_attention_is_that_of_the_slow_twin(groups: list[int] | None, shift: float, scale: float) -> None:
    values, features = draw(3, 11), draw(4, 11, seed=1) + 0.5
    expected = mix_slowly(values, features, shift, scale, groups)
    for at_once in (1, 25, 10**6):
        numbers = None if groups is None else torch.tensor(groups)
        found = average_by_likeness(values, features, shift, scale, numbers, at_once=at_once)
        assert_close(found, expected)


def test_a_cell_that_nothing_is_like_sees_itself() -> None:
    values, alike = draw(2, 5), torch.ones(3, 5, dtype=torch.float64)
    assert_close(average_by_likeness(values, alike, 2.0, 3.0), values)  # shifted, all are negative


def test_the_whole_of_proxy_clip_is_that_of_its_steps() -> None:
    image, clip = noise((30, 44)), Random()
    method = ProxyClip(clip, RandomDino(), ProxyClipSettings(shift=0.7, scale=5.0))
    (encoding,) = method.encode([image])
    tokens = RandomDino().extract_tokens([image])[0].values
    # 8 x 11 cells of 32 x 44 px: where each center of 30 px' cells lies among them, by hand
    rows = [max(0.0, (i + 0.5) / 8 * 30 / 4 - 0.5) for i in range(8)]
    alike = torch.stack([tokens[:, int(r)] * (1 - r % 1) + tokens[:, min(7, int(r) + 1)] * (r % 1) for r in rows], 1)
    cells = F.interpolate(clip.extract_values([image])[0].values[None], size=(8, 11), mode="bilinear", align_corners=False)[0]
    mixed = mix_slowly(cells.flatten(1).double(), alike.flatten(1).double(), 0.7, 5.0, None).float()
    assert_close(encoding.tokens.values, clip.align_values(mixed.view(5, 8, 11)), dtype=torch.float32)


# regions


def test_the_surest_mask_takes_a_pixel() -> None:
    generator = np.random.default_rng(0)
    masks = generator.random((7, 5, 6)) < 0.4
    scores = np.array([0.5, 0.9, 0.1, 0.8, 0.5, 0.7, 0.3], np.float32)
    for visible, least in ((0.0, 0), (0.5, 0), (0.3, 4), (1.0, 0)):
        expected, count = np.zeros((5, 6), int), 0
        for k in (1, 3, 5, 0, 4, 6, 2):
            free = [(y, x) for y in range(5) for x in range(6) if masks[k, y, x] and not expected[y, x]]
            if free and len(free) >= least and len(free) >= visible * masks[k].sum():
                count += 1
                for place in free:
                    expected[place] = count
        order = np.argsort(-scores, kind="stable")
        found = Detections.from_masks(masks[order], [0] * 7, scores[order], ["object"])
        assert np.array_equal(number_regions(found, visible, least).numpy(), expected)
    assert not number_regions(Detections.none((3, 4), ("object",))).any()


def test_means_and_votes_in_regions_are_those_of_loops() -> None:
    numbers = torch.from_numpy(np.random.default_rng(1).integers(0, 4, (6, 9)).astype(np.int32))
    maps = draw(3, 2, 3)
    found = average_in_regions(maps, numbers)
    labels = np.random.default_rng(2).integers(0, 3, (6, 9)).astype(np.int32)
    voted = vote_in_regions(LabelMap(labels, ("a", "b", "c")), numbers).labels
    for n in range(4):
        places = [(y, x) for y in range(6) for x in range(9) if numbers[y, x] == n]
        mean = sum(maps[:, y // 3, x // 3] for y, x in places) / len(places)
        assert_close(found[:, n], mean)
        votes = [sum(labels[p] == k for p in places) for k in range(3)]
        for place in places:
            assert voted[place] == (labels[place] if n == 0 else votes.index(max(votes)))


def test_what_no_mask_holds_may_be_a_region() -> None:
    labels, numbers = np.array([[1, 1, 0, 0, 2]], np.int32), torch.tensor([[1, 1, 0, 0, 0]], dtype=torch.int32)
    encoding, asked = (
        DenseEncoding((1, 5), FeatureMap(torch.zeros(64, 1, 5), (1, 5)), regions=numbers),
        Background().list_rows("a, b"),
    )
    for rest, expected in (("free", [[1, 1, 0, 0, 2]]), ("region", [[1, 1, 0, 0, 0]])):
        settings = RegionClipSettings(rest=rest)  # type: ignore[arg-type]
        method = RegionClip(FakeClip(), FakeSam(), None, settings)
        found = method._labeled(encoding, asked, torch.from_numpy(labels.astype(np.int64)), torch.zeros(1, 5))
        assert found.labels.tolist() == expected


def test_cells_take_the_number_of_most_of_their_pixels() -> None:
    numbers = torch.tensor([[1, 1, 2, 2, 2, 0], [1, 2, 2, 0, 0, 0]], dtype=torch.int32)
    assert group_cells(numbers, (1, 3)).tolist() == [[1, 2, 0]]
    assert group_cells(numbers, (4, 6))[::2].tolist() == [[1, 1, 2, 2, 2, 0], [1, 2, 2, 0, 0, 0]]


def test_restricted_cells_see_their_region_alone() -> None:
    scene = draw_paper_scenes()[0]
    open_, closed = (
        RegionClip(FakeClip(), FakeSam(), None, RegionClipSettings(candidates="fast", restrict=r)) for r in (False, True)
    )
    all_alike = open_.encode([scene.image])[0].tokens.values.flatten(1)
    assert_close(all_alike, all_alike[:, :1].expand_as(all_alike), dtype=torch.float32)  # no DINO: all cells are alike
    assert closed.encode([scene.image])[0].tokens.values.flatten(1).std(1).max() > 0.1


# windows and padding


def test_windows_cover_an_image() -> None:
    for size in ((336, 448), (500, 375), (31, 900), (1, 1), (3, 2)):
        boxes = cut_windows(size, Windows(336, 224, 112))
        seen = np.zeros(size, int)
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0] and x1 - x0 == y1 - y0
            seen[y0:y1, x0:x1] += 1
        assert seen.all() and len(set(boxes)) == len(boxes)
    assert len(cut_windows((336, 448), Windows(336, 224, 112))) == 6
    assert cut_windows((30, 30), Windows(16, 224, 112)) == [(0, 0, 30, 30)]  # a window larger than the image


def test_merged_windows_are_their_mean() -> None:
    boxes = [(0, 0, 8, 8), (4, 0, 12, 8)]
    left, right = (FeatureMap(torch.full((1, 2, 2), value), (8, 8)) for value in (1.0, 4.0))
    assert merge_windows([left, right], boxes, (8, 12)).tolist() == [[[1.0, 2.5, 4.0], [1.0, 2.5, 4.0]]]
    plane = torch.arange(12.0).expand(1, 8, 12)
    parts = [FeatureMap(plane[:, y0:y1, x0:x1], (8, 8)) for x0, y0, x1, y1 in boxes]
    assert torch.equal(merge_windows(parts, boxes, (8, 12)), plane)


def test_padding_is_no_part_of_an_image() -> None:
    plane = (torch.arange(8.0) + 0.5).expand(1, 5, 8)
    found = resize_to_image(FeatureMap(plane, (5, 6), (5, 8)))
    assert found.window is None
    assert_close(found.values[0, 0, 1:-1], (torch.arange(8.0)[1:-1] + 0.5) * 0.75, dtype=torch.float32)


# bad and odd input


@each_method
def test_one_name_500_names_and_odd_images(name: str) -> None:
    method = METHODS[name]()
    image = draw_paper_scenes()[0].image
    assert method.semantic(image, "apple").names == ("background", "apple")
    assert len(method.semantic(image, [f"thing {i}" for i in range(500)]).names) == 501
    for size in ((1, 1), (3, 400), (7, 7)):
        assert method.semantic(noise(size), "cat, dog").size == size
    assert len(method.encode([])) == 0


def test_500_names_are_the_best_at_each_pixel() -> None:
    names, image = [f"thing {i}" for i in range(500)], noise((22, 37))
    method = ProxyClip(Random(), RandomDino())
    (encoding,) = method.encode([image])
    maps = method.compute_scores(encoding, method.settings.background.list_rows(names))
    assert_best(method.semantic(encoding, names).labels, resize_maps(maps, (22, 37)))


def test_an_image_smaller_than_a_window_is_one() -> None:
    settings = ProxyClipSettings(windows=Windows(16, 224, 112), background=Background("none"))
    image = draw_paper_scenes()[0].image
    whole = ProxyClip(FakeClip(), FakeDino(), ProxyClipSettings(background=Background("none"))).semantic(image, NAMES)
    small = Image(np.ascontiguousarray(image.pixels[:20, :20]))
    assert ProxyClip(FakeClip(), FakeDino(), settings).semantic(small, NAMES).size == (20, 20)
    assert ProxyClip(FakeClip(), FakeDino(), settings).semantic(image, NAMES).size == whole.size


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="a step from 1 to the window's side"):
        Windows(336, 224, 225)
    with pytest.raises(InputError, match="a scale from 0 and a dino_side"):
        ProxyClipSettings(scale=-1)
    with pytest.raises(InputError, match="visible from 0 to 1"):
        RegionClipSettings(visible=2)
    with pytest.raises(InputError, match="gives the values of its last attention"):
        ProxyClip(object(), FakeDino())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="set them to 'keys'"):
        ProxyClip(FakeClip(), Keyed()).encode([noise((8, 8))])
    with pytest.raises(InputError, match="dino_side needs a DINO"):
        ProxyClip(FakeClip(), Keyed(), ProxyClipSettings(dino_side=224))
    encoding = ProxyClip(FakeClip(), FakeDino()).encode([noise((8, 8))])[0]
    with pytest.raises(InputError, match="holds the regions, got one made with other settings"):
        METHODS["regions"]().semantic(encoding, "cat")


def test_what_is_told() -> None:
    proxy, regions = METHODS["proxy"](), METHODS["regions"]()
    assert [m["name"] for m in json.loads(json.dumps(proxy.provenance))["models"]] == ["fake-clip", "fake-dino"]
    told = json.loads(json.dumps(regions.provenance))
    assert [m["name"] for m in told["models"]] == ["fake-clip", "fake-dino", "fake-sam"] and told["everything"]["points"] == 16
    keys = [METHODS[name]().encoding_key for name in METHODS]
    assert len(set(keys)) == len(keys)
    smooth = RegionClip(FakeClip(), FakeSam(), FakeDino(), RegionClipSettings(candidates="fast", smooth="mean"))
    assert smooth.encoding_key == regions.encoding_key  # regions only smooth the answer


# the real towers


@pytest.mark.parametrize("card", ["tiny-clip", "tiny-clip-vit"])
def test_values_that_are_not_mixed_are_those_of_the_value_path(card: str) -> None:
    clip: Any = Models(f"{card}+tiny-sam", "cpu").clip
    images = [noise((64, 96)), noise((50, 50))]
    for raw, dense in zip(clip.extract_values(images), clip.encode_dense(images, "value"), strict=True):
        assert_close(clip.align_values(raw.values), dense.values, dtype=torch.float32)


def test_a_mean_of_values_is_that_before_the_last_norm() -> None:
    clip: Any = Models("tiny-clip-vit+tiny-sam", "cpu").clip
    (raw,) = clip.extract_values([noise((64, 64))])
    visual = clip._model.visual
    expected = F.normalize(visual.ln_post(raw.values.mean((1, 2))) @ visual.proj, dim=0)
    assert_close(clip.align_values(raw.values.mean((1, 2), keepdim=True))[:, 0, 0], expected, dtype=torch.float32)
