"""TCL's masks against a slow twin written from the description, the order of its steps, and its two ways to a background."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.clues.background import Background
from annofree.errors import InputError
from annofree.methods.dense.tcl import VARIANTS, Tcl, TclEncoding, keep_knowledge
from annofree.ops.pamr import apply_pamr
from annofree.structures import Image, Vocabulary
from annofree.testing.fake_text_supervised import FakeTcl
from annofree.testing.fakes import FakeClip
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.tolerances import assert_close, assert_same_pixels

SMALL: dict[str, Any] = {"short": 48, "window": 32, "stride": 16}
WORDS = Vocabulary.of("apple, car, tree")


class Random(FakeTcl):
    """Features at random, which hang on the pixels."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kinds = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
        seen = [F.normalize(torch.einsum("dc,bchw->bdhw", kinds, F.avg_pool2d(x, cell)), dim=1) for cell in (4, 16)]
        return seen[0], seen[1]


class Axes(FakeClip):
    """Names that all look like something in random features."""

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        seeds = [sum(map(ord, name)) for name in vocabulary.names]
        return torch.stack([F.normalize(torch.randn(64, generator=torch.Generator().manual_seed(s)), dim=0) for s in seeds])


def noise(size: tuple[int, int], seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def build(variant: str = "default", **changes: Any) -> Tcl:
    return Tcl(Random(), Axes(), replace(VARIANTS[variant], **{**SMALL, **changes}))


def slow_pamr(image: Tensor, masks: Tensor) -> Tensor:
    """PAMR one pixel at a time, in doubles."""
    _, height, width = image.shape
    around = [(d * y, d * x) for d in (1, 2, 4, 8, 12, 24) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]

    def at(y: int, x: int) -> tuple[int, int]:
        return min(max(y, 0), height - 1), min(max(x, 0), width - 1)

    shares = {}
    for y in range(height):
        for x in range(width):
            near = torch.stack([image[(slice(None), *at(y + dy, x + dx))] for dy, dx in around])
            spread = torch.cat([near, image[:, y, x].expand(6, -1)]).std(0)
            shares[y, x] = (-(near - image[:, y, x]).abs() / (1e-8 + 0.1 * spread)).mean(1).softmax(0)
    for _ in range(10):
        new = torch.zeros_like(masks)
        for (y, x), share in shares.items():
            new[:, y, x] = torch.stack([masks[(slice(None), *at(y + dy, x + dx))] for dy, dx in around], 1) @ share
        masks = new
    return masks


def slow_masks(method: Tcl, image: Image, words: Tensor) -> Tensor:
    """What the released code makes of an image that is one window, (K, H, W): each step by itself, in doubles."""
    x = (torch.tensor(image.pixels).permute(2, 0, 1).double() / 255 - _column((0.485, 0.456, 0.406))) / _column(
        (0.229, 0.224, 0.225)
    )
    height, width = image.size
    down, across = -height % 16, -width % 16
    padded = torch.zeros(3, height + down, width + across, dtype=torch.float64)
    padded[:, down // 2 : down // 2 + height, across // 2 : across // 2 + width] = x
    fine, known = method.network.encode(padded[None].float())
    weight, offset = method.network.line
    masks = torch.zeros(len(words), *fine.shape[2:], dtype=torch.float64)
    for k, word in enumerate(words):
        for i in range(fine.shape[2]):
            for j in range(fine.shape[3]):
                masks[k, i, j] = 1 / (1 + math.exp(-(weight * float(fine[0, :, i, j] @ word) + offset)))
    if method.settings.pamr:
        small = F.interpolate(padded[None], size=masks.shape[1:], mode="bilinear", align_corners=True)[0]
        masks = slow_pamr(small, masks)
    before = torch.einsum("dhw,kd->khw", known[0].double(), words.double())
    kept = F.interpolate((1 / (1 + (-10 * (before - 0.25)).exp()))[None], size=masks.shape[1:], mode="bilinear")[0]
    masks = 0.3 * kept + 0.7 * masks
    full = F.interpolate(masks[None], size=padded.shape[1:], mode="bilinear", align_corners=False)[0]
    return full[:, down // 2 : down // 2 + height, across // 2 : across // 2 + width]


def _column(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(3, 1, 1)


@pytest.mark.parametrize("variant", ["official", "plain"])
def test_an_image_of_one_window_is_the_slow_twin(variant: str) -> None:
    image, words = noise((25, 30)), Axes().encode_text(WORDS)
    method = build(variant, short=25)
    expected = slow_masks(method, image, words)
    encoding = method.encode([image])[0]
    assert encoding.boxes == ((0, 25, 0, 30),)
    asked = method.list_rows(WORDS)
    drawn = method._drawing(encoding, asked)(slice(0, 4))
    assert_close(drawn[:3], expected, dtype=torch.float32, depth="network")
    assert torch.equal(drawn[3], torch.full((25, 30), method.settings.background.threshold))
    above = expected.max(0).values > method.settings.background.threshold
    labels = torch.where(above, 1 + expected.argmax(0), 0)
    assert_same_pixels(method.semantic(image, WORDS).labels, labels.numpy(), share=0.004)


def test_windows_are_averaged_where_they_overlap() -> None:
    image, method = noise((48, 60)), build("plain")
    encoding = method.encode([image])[0]
    assert encoding.boxes == tuple((y, y + 32, x, x + 32) for y in (0, 16) for x in (0, 16, 28))
    draw = method.draw_windows(encoding, method.list_rows(WORDS))
    total, times = torch.zeros(3, 48, 60), torch.zeros(48, 60)
    for n, (y0, y1, x0, x1) in enumerate(encoding.boxes):
        total[:, y0:y1, x0:x1] += draw(n, slice(0, 3))
        times[y0:y1, x0:x1] += 1
    assert_close(method._drawing(encoding, method.list_rows(WORDS))(slice(0, 3)), total / times)


def test_pamr_comes_before_what_clip_knew() -> None:
    """The other order would also draw CLIP's own cells towards the edges."""
    method, image = build(), noise((32, 32))
    encoding: TclEncoding = method.encode([image])[0]
    words = Axes().encode_text(WORDS)
    weight, offset = method.network.line
    raw = torch.sigmoid(weight * torch.einsum("dhw,kd->khw", encoding.fine[0], words) + offset)
    cosines = torch.einsum("dhw,kd->khw", encoding.known[0], words)
    right = keep_knowledge(apply_pamr(encoding.small[0], raw), cosines, 0.3)
    wrong = apply_pamr(encoding.small[0], keep_knowledge(raw, cosines, 0.3))
    assert_close(method.compute_masks(encoding, 0, words), right)
    assert float((right - wrong).abs().max()) > 0.01


def test_the_image_that_pamr_compares_has_aligned_corners() -> None:
    encoding: TclEncoding = build(short=32).encode([noise((32, 32))])[0]
    x = build(short=32)._cut(noise((32, 32)))[1][0]
    assert_close(encoding.small[0, :, 0, 0], x[0, :, 0, 0])
    assert_close(encoding.small[0, :, -1, -1], x[0, :, -1, -1])


def test_both_ways_to_a_background() -> None:
    scene = draw_paper_scenes()[0]
    told, named = (Tcl(FakeTcl(), FakeClip(), replace(VARIANTS[v], short=96)) for v in ("default", "all-named"))
    assert told.semantic(scene.image, NAMES).names == ("background", *NAMES)
    found = named.semantic(scene.image, NAMES)
    assert found.names == NAMES and found.background is None and (found.labels[scene.masks[0]] == 0).mean() > 0.95
    empty = draw_paper_scenes()[-1].image
    assert (told.semantic(empty, NAMES).labels == 0).all()
    assert [VARIANTS[v].background.threshold for v in ("official", "plain")] == [0.4, 0.5]


@pytest.mark.parametrize("count", [1, 500])
def test_one_name_and_500_names(count: int) -> None:
    method, scene = Tcl(FakeTcl(), FakeClip(), replace(VARIANTS["plain"], **SMALL)), draw_paper_scenes()[0]
    names = ["apple", *(f"thing {k}" for k in range(count - 1))]
    found = method.semantic(scene.image, names)
    assert found.names == ("background", *names) and set(np.unique(found.labels)) == {0, 1}
    assert found.labels[scene.masks[0]].mean() > 0.8
    instances = method.instances(scene.image, names)
    assert instances.labels.tolist() == ["apple"] and 0.4 < float(instances.scores[0]) <= 1


def test_a_listed_background_alone() -> None:
    method = build("plain")
    assert method.semantic(noise((20, 20)), "background").names == ("background",)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 15), (3, 400), (400, 3)])
def test_images_smaller_than_a_window(size: tuple[int, int]) -> None:
    assert build("plain", longest=200).semantic(noise(size), WORDS).size == size


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"known": 1.5}, "expected a share known of 0 to 1, got 1.5"),
        ({"stride": 64}, "expected windows of 1 px or more, a stride of 1 px up to a window apart, got 32 and 64"),
        ({"stride": 0}, "expected windows of 1 px or more"),
        ({"short": 0}, "expected sides of at least 1 px, got short 0"),
        ({"background": Background("objectness")}, "needs an objectness source, which this method has not"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(VARIANTS["default"], **{**SMALL, **changes})


def test_a_clip_of_another_length_is_refused() -> None:
    network = FakeTcl()
    network.dimension = 512
    with pytest.raises(InputError, match="with text of length 512, got fake-clip with 64"):
        Tcl(network, FakeClip())


def test_an_encoding_is_shared_by_settings_that_ask_alone() -> None:
    assert build().encoding_key == build("plain").encoding_key != build(stride=8).encoding_key
