"""ZUTIS: on the paper world, its score and its label map against slow twins, and how its models are found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.models import empty_hub
from tests.support.painted import assert_best
from torch import Tensor
from torch.nn import functional as F

from annofree.detections.painting import find_strongest
from annofree.errors import InputError, MissingError
from annofree.features.zutis_network import ZutisConfig, ZutisNetwork
from annofree.features.zutis_weights import save_zutis
from annofree.hub.cards import Card, hash_file
from annofree.hub.store import add_folder
from annofree.methods import zutis as zutis_module
from annofree.methods.build import build_method, load
from annofree.methods.components import Models
from annofree.methods.zutis import VARIANTS, Named, Zutis, ZutisEncoding, ZutisSettings, add_pieces, draw_inside
from annofree.ops.rle import compute_rle_ious
from annofree.protocols import Segmenter, SemanticSegmenter
from annofree.structures import Image, Vocabulary
from annofree.testing.conformance import CHECKS
from annofree.testing.fakes import FakeClip, FakeZutis
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.semantic_conformance import SEMANTIC_CHECKS
from annofree.testing.tolerances import assert_close, assert_same_masks

EVERY = replace(VARIANTS["official"], nms=1.0, min_score=0.0)


class Words(FakeClip):
    """A CLIP of 20 numbers whose every word is a direction of its own; remembers the prompts it was asked for."""

    dimension = 20

    def __init__(self, templates: str = "own") -> None:
        self.templates = templates

    def with_prompts(self, templates: str) -> Words:
        return Words(templates)

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        return F.normalize(torch.stack([direction(words[0]) for words in vocabulary.synonyms]), dim=1)


def direction(word: str) -> Tensor:
    return torch.randn(20, generator=torch.Generator().manual_seed(sum(map(ord, word))))


class Random:
    """A network of 20 numbers that proposes random smooth masks; remembers at which size it was asked."""

    dimension = 20
    side = 48
    provenance = {"name": "random", "licence": "MIT", "tier": "S1"}  # noqa: RUF012

    def __init__(self, queries: int = 12) -> None:
        self.queries = queries
        self.asked: list[tuple[int, int]] = []

    def propose(self, images: Sequence[Image], side: int = 0, longest: int = 0) -> list[tuple[Tensor, Tensor, Tensor]]:
        self.asked.append((side, longest))
        generator = torch.Generator().manual_seed(0)
        features = F.normalize(torch.randn(20, 8, 10, generator=generator), dim=0)
        coarse = torch.rand(self.queries, 3, 3, generator=generator)
        masks = F.interpolate(coarse[None], size=(8, 10), mode="bilinear")[0]
        lengths = torch.rand(8, 10, generator=generator) + 0.1
        return [(features, lengths, masks.clone()) for _ in images]


def blank(size: tuple[int, int] = (30, 41)) -> Image:
    return Image(np.zeros((*size, 3), np.uint8))


# the paper world


@pytest.mark.parametrize("check", SEMANTIC_CHECKS, ids=lambda check: check.__name__)
def test_names_pixels(check: Callable[[SemanticSegmenter], None]) -> None:
    check(Zutis(FakeZutis(), FakeClip()))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_finds_things(check: Callable[[Segmenter], None]) -> None:
    check(Zutis(FakeZutis(), FakeClip()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_finds_the_objects(variant: str) -> None:
    method = Zutis(FakeZutis(), FakeClip(), variant)
    for scene in draw_paper_scenes():
        found = method.instances(scene.image, NAMES)
        truth = {(name, mask.tobytes()) for name, mask in zip(scene.names, scene.masks, strict=True)}
        assert {(name, mask.tobytes()) for name, mask in zip(found.labels, found.masks, strict=True)} == truth


def test_without_suppression_each_query_counts() -> None:
    for scene in draw_paper_scenes():
        one = Zutis(FakeZutis(), FakeClip(), "official").instances(scene.image, NAMES)
        two = Zutis(FakeZutis(), FakeClip(), EVERY).instances(scene.image, NAMES)
        assert len(two) == 2 * len(one) == 2 * len(scene.names)


# the score


def by_hand(encoding: ZutisEncoding, words: Tensor, settings: ZutisSettings) -> list[tuple[int, float]]:
    """Row and score of each proposal, cell by cell."""
    answers = []
    for mask in encoding.masks:
        cells = [(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x] > 0.5]
        weights = encoding.lengths if settings.pooled == "projected" else torch.ones_like(encoding.lengths)
        total = sum((encoding.features[:, y, x] * weights[y, x] for y, x in cells), torch.zeros(20))
        cosines = [float(total @ word / max(float(total.norm()), 1e-9)) for word in words]
        if settings.score == "sigmoid":
            chances = [1 / (1 + math.exp(-settings.logit_scale * c)) for c in cosines]
        else:
            powers = [math.exp(settings.logit_scale * c) for c in cosines]
            chances = [p / sum(powers) for p in powers]
        sure = sum(float(mask[y, x]) for y, x in cells) / max(1, len(cells))
        row = max(range(len(words)), key=lambda i: chances[i])
        answers.append((row, sure * chances[row]))
    return answers


@pytest.mark.parametrize("pooled", ["unit", "projected"])
@pytest.mark.parametrize(("score", "logit_scale"), [("sigmoid", 5.0), ("softmax", 1.0), ("softmax", 20.0)])
def test_the_score_of_a_proposal(pooled: Any, score: Any, logit_scale: float) -> None:
    settings, names = replace(EVERY, pooled=pooled, score=score, logit_scale=logit_scale), ("dog", "cat", "bird")
    method = Zutis(Random(), Words(), settings)
    encoding = method.encode([blank()])[0]
    expected = by_hand(encoding, Words().encode_text(Vocabulary.of(["background", *names])), settings)
    kept = sorted(((score, row - 1) for row, score in expected if row > 0 and score > 0), reverse=True)
    assert all(one - other > 1e-5 for (one, _), (other, _) in pairwise(kept))  # far enough apart to come in one order
    found = method.instances(encoding, names)
    assert found.class_ids.tolist() == [k for _, k in kept]
    assert_close(found.scores, [s for s, _ in kept])
    assert 0 < len(found) < 12  # some are background


def test_masks_are_drawn_at_full_size_before_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = Random().propose([blank()])[0][2]
    drawn = F.interpolate(masks[None], size=(30, 41), mode="bilinear", align_corners=False)[0] > 0.5
    assert_same_masks(draw_inside(masks, (30, 41)), drawn)
    monkeypatch.setattr(zutis_module, "_AT_ONCE", 3 * 30 * 41)
    assert_same_masks(draw_inside(masks, (30, 41)), drawn)
    assert draw_inside(masks[:0], (30, 41)).shape == (0, 30, 41)


def test_the_label_map_is_the_best_cosine_of_each_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["dog", "cat", "bird", "cow", "bus"]
    method = Zutis(Random(), Words())
    encoding = method.encode([blank()])[0]
    words = Words().encode_text(Vocabulary.of(["background", *names]))
    cosines = torch.einsum("dhw,kd->khw", encoding.features, words)
    drawn = F.interpolate(cosines[None], size=(30, 41), mode="bilinear", align_corners=False)[0]
    for at_once in (2**25, 30 * 41):  # all names at once, and one by one
        monkeypatch.setattr(zutis_module, "find_strongest", partial(find_strongest, at_once=at_once))
        found = method.semantic(encoding, names)
        assert_best(found.labels, drawn)
        assert found.names == ("background", *names) and found.background == 0


# what may be chosen


def test_small_weak_and_many_instances_go() -> None:
    encoding = Zutis(Random(), Words(), EVERY).encode([blank()])[0]

    def found(**changes: Any) -> Any:
        return Zutis(Random(), Words(), replace(EVERY, **changes)).instances(encoding, ["dog", "cat"])

    everything = found()
    middle = float(np.median(everything.scores))
    assert found(min_score=middle).scores.tolist() == [s for s in everything.scores.tolist() if s > middle]
    area = int(np.median(everything.areas))
    assert found(min_area=area).areas.tolist() == [a for a in everything.areas.tolist() if a >= area]
    assert found(most=2).scores.tolist() == everything.scores.tolist()[:2]
    agnostic, by_class = found(nms=0.2, per_class=False), found(nms=0.2)
    assert len(agnostic) < len(by_class) < len(everything)
    assert len(set(by_class.class_ids)) == 2


def test_words_for_the_background() -> None:
    image = draw_paper_scenes()[2].image  # a tree and an umbrella
    named = {scene: Zutis(FakeZutis(), FakeClip(), replace(EVERY, nms=0.3, background=scene)) for scene in ((), ("tree",))}
    assert sorted(named[("tree",)].instances(image, ["apple", "umbrella"]).labels) == ["umbrella"]
    assert named[("tree",)].semantic(image, ["umbrella"]).names == ("background", "umbrella")
    everywhere = named[()].semantic(image, ["tree", "umbrella"])
    assert everywhere.background is None and everywhere.names == ("tree", "umbrella")
    assert len(named[()].instances(image, ["tree", "umbrella"])) == 3  # the paper is one of them, too


def test_a_listed_background_is_no_instance() -> None:
    method = Zutis(FakeZutis(), FakeClip())
    found = method.instances(draw_paper_scenes()[2].image, ["tree", "background", "umbrella"])
    assert sorted(found.labels) == ["tree", "umbrella"] and found.names == ("tree", "background", "umbrella")


@pytest.mark.parametrize(("templates", "asked"), [("name", "name"), ("ensemble", "ensemble"), (None, "own")])
def test_prompts_are_those_of_the_settings(templates: str | None, asked: str) -> None:
    method = Zutis(Random(), Words(), replace(EVERY, templates=templates))
    assert isinstance(method.clip, Words) and method.clip.templates == asked


@pytest.mark.parametrize(
    ("settings", "asked"),
    [("official", (0, 0)), ("default", (48, 1024)), (replace(EVERY, side=100), (100, 0))],
)
def test_pictures_are_read_at_the_size_of_the_settings(settings: Any, asked: tuple[int, int]) -> None:
    network = Random()
    method = Zutis(network, Words(), settings)
    method.encode([blank()])
    assert network.asked == [asked] and method.encoding_key == ("zutis", *asked)
    assert method.encode([]) == []


def test_what_cannot_be_chosen() -> None:
    with pytest.raises(InputError, match=r"unknown variant of zutis 'ofical'; did you mean 'official'\?"):
        Zutis(Random(), Words(), "ofical")
    with pytest.raises(InputError, match="expected longest in px, 0 for none, got -1"):
        replace(EVERY, longest=-1)
    with pytest.raises(InputError, match=r"expected neck in 0 \.\. 1, 0 to cut nothing, got 1\.5"):
        replace(EVERY, neck=1.5)
    with pytest.raises(InputError, match="expected roundness as a power of at least 0, 0 for none, got nan"):
        replace(EVERY, roundness=math.nan)
    with pytest.raises(InputError, match="whose text the network was trained with, of length 20, got fake-clip of length 64"):
        Zutis(Random(), FakeClip())


def test_names_never_seen_in_training_are_asked_alike() -> None:
    method = Zutis(Random(), Words(), EVERY)
    encoding = method.encode([blank()])[0]
    one, other = method.instances(encoding, ["dog", "cat"]), method.instances(encoding, ["zeppelin", "cat"])
    assert one.names != other.names and one.scores.tolist() != other.scores.tolist()
    assert method.provenance["models"][0]["name"] == "random"


# the models


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty Hugging Face cache and store, and no network."""
    empty_hub(monkeypatch, tmp_path)


def test_published_weights_that_are_not_here_are_named_with_what_to_do() -> None:
    parts = Models("openai-vit-b-16+sam-b+zutis-coco-vit-b-16", "cpu")
    message = (
        r"^the method zutis needs zutis-coco-vit-b-16, which is on no hub: take coco_vit_b_16\.pt from https://\S+ and add it "
        r"with `annofree models add --from coco_vit_b_16\.pt --name zutis-coco-vit-b-16`, or train one with `annofree train z"
    )
    with pytest.raises(MissingError, match=message) as refusal:
        parts.with_parts(clip=FakeClip()).fetch(("clip", "zutis"))
    assert "\n" not in str(refusal.value)
    for preset in ("fast", "paper", "best"):
        with pytest.raises(MissingError, match="the method zutis needs zutis-coco-vit-b-16"):
            load("zutis", models=preset, device="cpu")


def test_models_without_a_network_are_refused() -> None:
    with pytest.raises(InputError, match="expected models with a trained segmenter, such as the preset fast, got tiny-clip"):
        build_method("zutis", Models("tiny-clip+tiny-sam", "cpu"))


def test_a_network_of_ones_own_is_added_and_used(tmp_path: Path) -> None:
    config = ZutisConfig(
        width=64, layers=1, heads=2, patch=16, image_size=32, embed_dim=20, queries=6, decoder_layers=1, decoder_ffn=16
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ZutisNetwork(config)
    save_zutis(network, tmp_path / "mine")
    files: dict[str, str | None] = {p.name: hash_file(p) for p in (tmp_path / "mine").iterdir()}
    Card("mine", "annofree ZUTIS", "S1", "MIT", "emoji", "emoji", files=files, kind="segmenter").write(tmp_path / "mine")
    add_folder(tmp_path / "mine")

    models = Models("tiny-clip+tiny-sam+mine", "cpu")
    assert models.preset.zutis == "mine" and models.zutis is models.zutis
    method = build_method("zutis", models.with_parts(clip=Words()), changes={"nms": 0.5, "min_score": 0.0})
    assert method.settings == replace(VARIANTS["default"], nms=0.5, min_score=0.0)
    assert method.provenance["models"][0]["sha256"] == files
    image = Image(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    first, again = method.instances(image, NAMES), method.instances(method.encode([image])[0], NAMES)
    assert first.size == (50, 70) and first.scores.tolist() == again.scores.tolist()
    assert method.semantic(image, NAMES).size == (50, 70)


# what the label map adds


def find_parts_slowly(named: np.ndarray[Any, Any]) -> list[tuple[int, set[tuple[int, int]]]]:
    """Name and pixels of each part of equal names, neighbors by their sides."""
    left, found = {(int(y), int(x)) for y, x in np.ndindex(named.shape)}, []
    while left:
        waiting, part = [min(left)], set[tuple[int, int]]()
        while waiting:
            y, x = waiting.pop()
            if (y, x) in left and (not part or named[y, x] == named[next(iter(part))]):
                left.remove((y, x))
                part.add((y, x))
                waiting += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        found.append((int(named[next(iter(part))]), part))
    return found


def list_pixels(mask: Any) -> set[tuple[int, int]]:
    return {(int(y), int(x)) for y, x in zip(*np.nonzero(np.asarray(mask)), strict=True)}


def test_parts_of_the_label_map_are_proposals() -> None:
    names = ["cat", "dog", "cow"]
    method = Zutis(Random(queries=1), Words(), replace(EVERY, parts=True, sharpness=7.0, min_area=3, most=1000))
    encoding = method.encode([blank()])[0]
    labels = method.semantic(encoding, names)
    asked = method.background.list_rows(Vocabulary.of(names))
    drawn = F.interpolate(method.compute_cosines(encoding, asked)[None], size=(30, 41), mode="bilinear", align_corners=False)[0]
    sure = (7.0 * drawn).softmax(0).max(0).values
    cosine = drawn.max(0).values

    def rate(part: set[tuple[int, int]]) -> float:
        s, c = (float(np.mean([values[y, x] for y, x in part])) for values in (sure, cosine))
        return s / (1 + math.exp(-5 * c))

    expected = {
        frozenset(part): (labels.names[name], rate(part))
        for name, part in find_parts_slowly(labels.labels)
        if labels.names[name] != "background" and len(part) >= 3
    }
    found = method.instances(encoding, names)
    got = {frozenset(list_pixels(m)): (n, s) for m, n, s in zip(found.masks, found.labels, found.scores, strict=True)}
    shared = expected.keys() & got.keys()
    assert len(expected) > 5 and len(shared) >= len(expected) and len(got) <= len(expected) + 1  # and the one query
    for part in shared:
        assert got[part][0] == expected[part][0]
        assert got[part][1] == pytest.approx(expected[part][1], abs=1e-5)


class TwoDiscs(Random):
    """A network with one proposal: two discs of 20 cells that touch, all of one look."""

    def propose(self, images: Sequence[Image], side: int = 0, longest: int = 0) -> list[tuple[Tensor, Tensor, Tensor]]:
        y, x = np.mgrid[:24, :44]
        inside = ((y - 12) ** 2 + (x - 12) ** 2 <= 100) | ((y - 12) ** 2 + (x - 31) ** 2 <= 100)
        features = direction("dog")[:, None, None].expand(20, 24, 44) / direction("dog").norm()
        return [(features, torch.ones(24, 44), torch.from_numpy(inside)[None].float()) for _ in images]


def test_what_necks_join_is_proposed_in_pieces_too() -> None:
    whole, cut = (Zutis(TwoDiscs(), Words(), replace(EVERY, background=(), neck=n)) for n in (0.0, 0.1))
    image = blank((24, 44))
    (one,), found = whole.instances(image, ["dog"]).masks, cut.instances(image, ["dog"])
    assert found.labels.tolist() == ["dog"] * 3 and len({round(float(s), 6) for s in found.scores}) == 1
    first, *pieces = found.masks
    assert (first == one).all() and (pieces[0] ^ pieces[1] == one).all()
    assert all(abs(int(piece.sum()) - int(one.sum()) // 2) < 15 for piece in pieces)
    assert len(Zutis(TwoDiscs(), Words(), replace(EVERY, background=(), neck=0.9)).instances(image, ["dog"])) == 1
    assert len(Zutis(TwoDiscs(), Words(), replace(EVERY, background=(), neck=0.1, most=1)).instances(image, ["dog"])) == 1
    rounder = replace(EVERY, background=(), neck=0.1, roundness=1.5, share=0.5, nms=0.4)
    assert len(Zutis(TwoDiscs(), Words(), rounder).instances(image, ["dog"])) == 2  # each disc, and no longer both as one


def test_large_images_are_told_apart_at_the_size_that_is_read() -> None:
    names, image = ["cat", "dog", "cow"], blank((600, 820))
    settings = replace(VARIANTS["default"], side=0, longest=0, min_area=400)
    whole, small = (Zutis(Random(), Words(), replace(settings, longest=longest)) for longest in (0, 205))
    one, other = whole.instances(image, names), small.instances(image, names)
    assert other.size == one.size == image.size and (other.areas >= 380).all()
    sure = [k for k, s in enumerate(one.scores.tolist()) if s > float(np.median(one.scores))]
    ious = compute_rle_ious([one.rles[k] for k in sure], other.rles)
    assert len(sure) > 5 and float(np.mean(ious.max(1) > 0.9)) > 0.8
    for box, mask in zip(other.boxes, other.masks, strict=True):
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_pieces_are_as_many_and_as_large_as_is_asked() -> None:
    masks = torch.zeros(3, 20, 40, dtype=torch.bool)
    masks[:, 4:12, 2:10], masks[:, 4:12, 14:22], masks[:, 7:9, 10:14], masks[2, 7:9, 22:30], masks[2, 5:11, 28:34] = (True,) * 5
    found = Named(masks, torch.tensor([4, 5, 6]), torch.tensor([0.2, 0.3, 0.9]))
    many = add_pieces(found, 0.1, 0, 100)
    assert many.owners.tolist() == [4, 5, 6, 6, 6, 6, 5, 5, 4, 4]
    assert many.scores.tolist() == pytest.approx([0.2, 0.3, 0.9, 0.9, 0.9, 0.9, 0.3, 0.3, 0.2, 0.2])
    assert add_pieces(found, 0.1, 0, 4).owners.tolist() == [4, 5, 6, 6, 6, 6, 5]
    areas = many.masks[3:].sum((1, 2))
    least = int(areas.min()) + 1
    assert len(add_pieces(found, 0.1, least, 100).masks) == 3 + int((areas >= least).sum()) < len(many.masks)
    assert add_pieces(found, 1.0, 0, 100) is found


def count_edges(mask: Any) -> int:
    """How many sides of pixels of a mask touch none of it, pixel by pixel."""
    inside = list_pixels(mask)
    return sum((y + dy, x + dx) not in inside for y, x in inside for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)))


@pytest.mark.parametrize(("roundness", "share"), [(1.0, 0.0), (0.0, 0.5), (1.5, 0.5)])
def test_ragged_and_small_masks_score_less(roundness: float, share: float) -> None:
    names = ["cat", "dog", "cow"]
    method, plain = (
        Zutis(Random(), Words(), replace(EVERY, roundness=r, share=s)) for r, s in ((roundness, share), (0.0, 0.0))
    )
    encoding = method.encode([blank()])[0]
    whole, found = plain.instances(encoding, names), method.instances(encoding, names)
    expected = {}
    for mask, name, score in zip(whole.masks, whole.class_ids.tolist(), whole.scores.tolist(), strict=True):
        area = int(mask.sum())
        expected[name, mask.tobytes()] = score * (16 * area / count_edges(mask) ** 2) ** roundness * (area / mask.size) ** share
    got = {(n, m.tobytes()): s for m, n, s in zip(found.masks, found.class_ids.tolist(), found.scores.tolist(), strict=True)}
    assert got == pytest.approx(expected, rel=1e-5)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_neither_paper_nor_released_code_asks_the_map_or_minds_shapes() -> None:
    assert [v for v, s in VARIANTS.items() if s.parts or s.neck or s.roundness or s.share] == ["default"]
