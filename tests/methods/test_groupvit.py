"""GroupViT's naming of groups against a slow twin written from the description, and its ways to a background."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.methods.dense.groupvit import VARIANTS, GroupVitMethod, score_groups
from annofree.structures import Image, Vocabulary
from annofree.testing.fake_text_supervised import FakeGroupVit
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.tolerances import assert_close, assert_same_pixels

SMALL: dict[str, Any] = {"short": 48, "window": 32, "stride": 16}
WORDS = Vocabulary.of("ant, bee, cow, dog, eel, fox, gnu, hen")


class Random(FakeGroupVit):
    """Groups, places and words at random; places hang on the pixels."""

    patch, scale = 16, 30.0

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        seeds = [sum(map(ord, name)) for name in vocabulary.names]
        return torch.stack([F.normalize(torch.randn(6, generator=torch.Generator().manual_seed(s)), dim=0) for s in seeds])

    def group(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        draw = torch.Generator().manual_seed(0)
        groups = F.normalize(torch.randn(len(x), 8, 6, generator=draw), dim=2)
        kinds = torch.randn(8, 3, generator=draw)
        shares = torch.einsum("gc,bchw->bghw", kinds, F.avg_pool2d(x, 16)).softmax(1)
        return groups, F.normalize(groups.mean(1), dim=1), shares


def noise(size: tuple[int, int], seed: int = 0) -> Image:
    """Squares of 8 px, each of a color at random."""
    colors = np.random.default_rng(seed).integers(0, 256, (-(-size[0] // 8), -(-size[1] // 8), 3), dtype=np.uint8)
    return Image(np.ascontiguousarray(colors.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]))


def build(variant: str = "default", **changes: Any) -> GroupVitMethod:
    return GroupVitMethod(Random(), replace(VARIANTS[variant], **{**SMALL, **changes}))


def slow_table(groups: Tensor, whole: Tensor, words: Tensor, scale: float) -> Tensor:
    """How much each group is each word, one number after another."""
    cosine = [float(whole @ word) for word in words]
    likely = sorted(range(len(words)), key=lambda k: -cosine[k])[:5]
    table = torch.zeros(len(groups), len(words))
    for g, group in enumerate(groups):
        powers = [math.exp(scale * float(group @ word)) for word in words]
        for k in likely:
            table[g, k] = powers[k] / sum(powers) * powers[k] / sum(powers[j] for j in likely)
    return table


def test_groups_are_scored_as_the_slow_twin_does() -> None:
    draw = torch.Generator().manual_seed(0)
    groups, whole, words = (F.normalize(torch.randn(n, 6, generator=draw), dim=1) for n in (8, 1, 9))
    found = score_groups(groups, whole[0], words, 10.0, 5)
    assert_close(found, slow_table(groups, whole[0], words, 10.0))
    assert int((found == 0).all(0).sum()) == 4  # the names that are not among the five likeliest
    assert score_groups(groups, whole[0], words[:3], 10.0, 5).shape == (8, 3)


def test_an_image_of_one_window_is_the_slow_twin() -> None:
    image, method = noise((32, 32)), build("official", short=32)
    encoding = method.encode([image])[0]
    words = method.network.encode_text(WORDS)
    table = slow_table(encoding.groups[0], encoding.whole[0], words, 30.0)
    place = F.interpolate(encoding.shares, size=(32, 32), mode="bilinear", align_corners=False)[0].argmax(0)
    bar = min(0.95, float(table.max()))
    expected = np.zeros((32, 32), np.int32)
    for y in range(32):
        for x in range(32):
            row = table[place[y, x]]
            expected[y, x] = 0 if float(row.max()) < bar else 1 + int(row.argmax())
    assert len(np.unique(expected)) > 1
    assert_same_pixels(method.semantic(image, WORDS).labels, expected)


def test_the_surest_group_is_no_background_as_released_and_may_be_else() -> None:
    official, strict = build("official"), build("official", spare_best=False)
    for method in (official, strict):
        cast(Random, method.network).scale = 5.0  # nothing is sure
    image = noise((48, 60))
    for method, count in ((official, 1), (strict, 0)):
        tables = method.score_windows(method.encode([image])[0], method.list_rows(WORDS))
        assert all(int((table[:, -1] == 0).sum()) == count for table in tables)
    assert (strict.semantic(image, WORDS).labels == 0).all()


def test_overlapping_windows_vote() -> None:
    method, image = build("official"), noise((48, 60))
    encoding = method.encode([image])[0]
    tables = method.score_windows(encoding, method.list_rows(WORDS))
    assert len(tables) == len(encoding.boxes) == 6 and tables[0].shape == (8, 9)
    total, times = torch.zeros(9, 48, 60), torch.zeros(48, 60)
    for n, (y0, y1, x0, x1) in enumerate(encoding.boxes):
        total[:, y0:y1, x0:x1] += tables[n][method.find_groups(encoding, n)].permute(2, 0, 1)
        times[y0:y1, x0:x1] += 1
    expected = torch.cat([(total / times)[8:], (total / times)[:8]]).argmax(0)  # the background first
    assert_same_pixels(method.semantic(image, WORDS).labels, expected.numpy(), share=0.01)


def test_a_name_alone_is_not_all_there_is() -> None:
    """A softmax over one name is 1 everywhere: as released all of an image is it, here the word background competes."""
    scene = draw_paper_scenes()[0]
    ours, released = (GroupVitMethod(FakeGroupVit(), replace(VARIANTS[v], **SMALL)) for v in ("default", "official"))
    found = ours.semantic(scene.image, "apple")
    assert (found.labels[scene.masks[0]] == 1).mean() > 0.8 and (found.labels[~scene.masks[0]] == 0).mean() > 0.9
    assert (released.semantic(scene.image, "apple").labels == 1).all()
    assert (ours.semantic(draw_paper_scenes()[-1].image, "apple, car").labels == 0).all()


@pytest.mark.parametrize("variant", ["default", "official"])
def test_500_names(variant: str) -> None:
    scene = draw_paper_scenes()[0]
    method = GroupVitMethod(FakeGroupVit(), replace(VARIANTS[variant], **SMALL))
    names = ["apple", *(f"thing {k}" for k in range(499))]
    found = method.semantic(scene.image, names)
    assert len(found.names) == 501 and (found.labels[scene.masks[0]] == 1).mean() > 0.8
    assert method.instances(scene.image, names).labels.tolist() == ["apple"]


def test_every_pixel_may_have_a_name() -> None:
    found = GroupVitMethod(FakeGroupVit(), replace(VARIANTS["all-named"], **SMALL)).semantic(noise((20, 30)), NAMES)
    assert found.names == NAMES and found.background is None


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 15), (3, 400), (400, 3)])
def test_images_smaller_than_a_window(size: tuple[int, int]) -> None:
    assert build(longest=200).semantic(noise(size), WORDS).size == size


def test_settings_that_cannot_be() -> None:
    with pytest.raises(InputError, match="expected at least one name that a window may have, got 0"):
        replace(VARIANTS["default"], names=0)
