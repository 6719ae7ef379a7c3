"""MaskCLIP, CLIP Surgery and plain patch cosine: on the paper world, and their formulas against slow twins."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from tests.support.painted import assert_apart, assert_best
from torch import Tensor
from torch.nn import functional as F

from annofree.clues.background import Background
from annofree.errors import InputError
from annofree.methods.dense.clip_surgery import VARIANTS as SURGERY_VARIANTS
from annofree.methods.dense.clip_surgery import ClipSurgery, ClipSurgerySettings, score_class_set
from annofree.methods.dense.dense_clip import DenseClip, DenseEncoding, DenseSettings
from annofree.methods.dense.maskclip import VARIANTS as MASKCLIP_VARIANTS
from annofree.methods.dense.maskclip import MaskClip, MaskClipSettings, denoise_maps, smooth_maps
from annofree.methods.dense.patch_cosine import VARIANTS as COSINE_VARIANTS
from annofree.methods.dense.patch_cosine import PatchCosine, PatchCosineSettings
from annofree.ops.grids import resize_maps
from annofree.ops.pamr import refine_maps
from annofree.protocols import DensePath, Segmenter, SemanticSegmenter
from annofree.structures import BoolArray, FeatureMap, Image, Vocabulary
from annofree.testing.conformance import CHECKS
from annofree.testing.fakes import FakeClip
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.semantic_conformance import SEMANTIC_CHECKS, check_known_pixels
from annofree.testing.tolerances import assert_close

METHODS: dict[str, type[DenseClip[Any]]] = {"maskclip": MaskClip, "clip_surgery": ClipSurgery, "patch_cosine": PatchCosine}
each_method = pytest.mark.parametrize("name", METHODS)


def noise(size: tuple[int, int], seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def iou(one: BoolArray, other: BoolArray) -> float:
    return float((one & other).sum() / (one | other).sum())


class WithKeys(FakeClip):
    """A CLIP with keys of one length that tell the cells' classes, and random features where asked."""

    def __init__(self) -> None:
        self.read: list[DensePath | None] = []

    def encode_dense(self, images: Sequence[Image], path: DensePath | None = None) -> list[FeatureMap]:
        self.read.append(path)
        return super().encode_dense(images, path)

    def extract_keys(self, images: Sequence[Image]) -> list[FeatureMap]:
        return [FeatureMap(3 * m.values, m.size) for m in super().encode_dense(images)]


class Random(FakeClip):
    """Features of cells of 4 px at random, the image padded to whole ones; the words' too."""

    def encode_dense(self, images: Sequence[Image], path: DensePath | None = None) -> list[FeatureMap]:
        grids = [(-(-i.size[0] // 4), -(-i.size[1] // 4)) for i in images]
        draws = [F.normalize(torch.randn(64, h, w, generator=torch.Generator().manual_seed(3)), dim=0) for h, w in grids]
        return [FeatureMap(d, i.size, (4 * h, 4 * w)) for d, i, (h, w) in zip(draws, images, grids, strict=True)]

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        seeds = [sum(map(ord, name)) for name in vocabulary.names]
        return torch.stack([F.normalize(torch.randn(64, generator=torch.Generator().manual_seed(s)), dim=0) for s in seeds])


# the paper world


@each_method
@pytest.mark.parametrize("check", SEMANTIC_CHECKS, ids=lambda check: check.__name__)
def test_conforms(name: str, check: Callable[[SemanticSegmenter], None]) -> None:
    method = METHODS[name](FakeClip())
    assert isinstance(method, SemanticSegmenter) and isinstance(method, Segmenter)
    check(method)


@pytest.mark.parametrize("check", CHECKS[2:], ids=lambda check: check.__name__)
def test_instances_conform_where_touching_ones_need_not_be_told_apart(check: Callable[[Segmenter], None]) -> None:
    if check.__name__ not in ("check_absent_classes", "check_no_memory"):  # these look for every object of a scene
        check(MaskClip(FakeClip()))


@pytest.mark.parametrize("variant", ["default", "denoised", "smoothed", "zutis", "pamr"])
def test_each_variant_of_maskclip_names_the_pixels(variant: str) -> None:
    check_known_pixels(MaskClip(WithKeys(), variant), min_iou=0.7 if variant == "pamr" else 0.8)


@pytest.mark.parametrize("variant", ["default", "classes", "pamr"])
def test_each_variant_of_surgery_names_the_pixels(variant: str) -> None:
    check_known_pixels(ClipSurgery(FakeClip(), variant), min_iou=0.7)


def test_the_official_variants_name_every_pixel() -> None:
    for method in (MaskClip(FakeClip(), "official"), ClipSurgery(FakeClip(), "official")):
        found = method.semantic(draw_paper_scenes()[0].image, NAMES)
        assert found.background is None and found.names == NAMES
        assert (found.labels >= 0).all()
    assert (
        MaskClip(FakeClip(), "official").semantic(draw_paper_scenes()[0].image, NAMES).labels[draw_paper_scenes()[0].masks[0]]
        == 0
    ).all()


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda c: MaskClip(c), "value+mlp"),
        (lambda c: MaskClip(c, MaskClipSettings(path="value")), "value"),
        (lambda c: ClipSurgery(c), "surgery"),
        (lambda c: PatchCosine(c), "attention"),
    ],
)
def test_each_reads_its_own_path(make: Callable[[FakeClip], DenseClip[Any]], path: str) -> None:
    clip = WithKeys()
    method = make(clip)
    method.encode([draw_paper_scenes()[0].image])
    assert clip.read == [path] and method.provenance["path"] == path
    assert json.loads(json.dumps(method.provenance))["models"][0]["name"] == "fake-clip"


# MaskCLIP's refinements


def test_denoising_drops_what_is_nowhere_likely() -> None:
    maps = scenes_of_cosines()
    found = denoise_maps(maps, 0.5, torch.zeros(6, dtype=torch.bool))
    powers = np.exp(100 * maps.numpy())
    for k in range(6):
        most = max(powers[k, y, x] / powers[:, y, x].sum() for y in range(4) for x in range(5))
        expected = torch.full((4, 5), -100.0) if most < 0.5 else maps[k]
        assert torch.equal(found[k], expected)
    assert (found == -100).any() and (found != -100).any()
    assert torch.equal(denoise_maps(maps, 0.5, torch.ones(6, dtype=torch.bool)), maps)
    even = torch.full((3, 2, 2), 0.2)
    assert torch.equal(denoise_maps(even, 0.5, torch.zeros(3, dtype=torch.bool)), even)


def scenes_of_cosines() -> Tensor:
    """Cosines (6, 4, 5) as doubles: three names far below the rest."""
    maps = 0.03 * torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
    return maps - torch.tensor([0, 0, 0, 0.2, 0.2, 0.2]).view(6, 1, 1)


@pytest.mark.parametrize("along", ["tokens", "channels"])
@pytest.mark.parametrize("below", [0.6, 1.0])
def test_smoothing_is_that_of_the_slow_twin(along: Any, below: float) -> None:
    maps = scenes_of_cosines()
    keys = torch.randn(8, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shares = np.exp(100 * maps.flatten(1).numpy())
    shares /= shares.sum(0)
    flat = keys.flatten(1).numpy()
    units = flat / np.linalg.norm(flat, axis=1 if along == "tokens" else 0, keepdims=True)
    expected = shares.copy()
    for i in range(20):
        if shares[:, i].max() < below:
            expected[:, i] = sum((units[:, i] @ units[:, j]) * shares[:, j] for j in range(20))
    found = smooth_maps(maps, keys, below, along)
    assert_close(found.flatten(1), expected)
    assert below == 1 or (shares.max(0) >= below).any()


def test_smoothing_needs_keys() -> None:
    with pytest.raises(InputError, match="needs a CLIP that gives its last keys"):
        MaskClip(FakeClip(), "smoothed").encode([draw_paper_scenes()[0].image])
    with pytest.raises(InputError, match="holds the keys, got one made with other settings"):
        MaskClip(WithKeys(), "smoothed").semantic(MaskClip(FakeClip()).encode([draw_paper_scenes()[0].image])[0], NAMES)
    with pytest.raises(InputError, match="keys on the grid"):
        smooth_maps(torch.zeros(2, 3, 3), torch.zeros(4, 3, 2), 1.0, "tokens")


def test_smoothing_is_what_the_method_does() -> None:
    settings = MaskClipSettings(smooth="channels", background=Background("none"))
    method, image = MaskClip(WithKeys(), settings), draw_paper_scenes()[0].image
    encoding = method.encode([image])[0]
    assert encoding.keys is not None
    plain = MaskClip(WithKeys()).encode([image])[0].tokens.values
    cosines = torch.einsum("dhw,kd->khw", plain, FakeClip().encode_text(Vocabulary.of(NAMES)))
    asked = settings.background.list_rows(NAMES)
    expected = smooth_maps(cosines, encoding.keys.values, 1.0, "channels")
    assert_close(method.compute_scores(encoding, asked), expected)
    assert not torch.allclose(expected, cosines, atol=0.1)


# CLIP Surgery's correction


def test_what_names_share_is_that_of_the_large_array() -> None:
    """The released form: features x words (cells, R, D), weighed, less their mean over the names, summed over D."""
    generator = torch.Generator().manual_seed(0)
    # as doubles, for great numbers cancel
    tokens, words, whole = (torch.randn(*s, 16, generator=generator, dtype=torch.float64) for s in ((12,), (5,), ()))
    weight = (2 * (words @ whole)).softmax(0)
    weight = weight / weight.mean()
    feats = tokens[:, None] * words[None] * weight[None, :, None]
    expected = (feats - feats.mean(1, keepdim=True)).sum(-1).T
    found = score_class_set((words @ tokens.T).view(5, 3, 4), words @ whole)
    assert_close(found.flatten(1), expected)


def test_surgery_s_modes() -> None:
    image, clip = noise((12, 16)), Random()
    rows = Background().list_rows("cat, dog")
    words, tokens = clip.encode_text(rows.rows), clip.encode_dense([image])[0].values
    cosines = torch.einsum("dhw,kd->khw", tokens, words)
    modes: dict[str, Tensor] = {
        "none": cosines,
        "empty": torch.einsum("dhw,kd->khw", tokens, words - clip.encode_null_text()),
        "classes": score_class_set(cosines, words @ clip.encode_image([image])[0]),
    }
    for mode, expected in modes.items():
        for stretch in (False, True):
            method = ClipSurgery(clip, ClipSurgerySettings(redundant=mode, stretch=stretch))  # type: ignore[arg-type]
            found = method.compute_scores(method.encode([image])[0], rows)
            assert_close(found.amin((1, 2)) if stretch else found, torch.zeros(3) if stretch else expected)
            assert not stretch or found.amax((1, 2)).tolist() == [1.0] * 3


def test_one_name_shares_all_with_itself() -> None:
    image = draw_paper_scenes()[0].image
    with pytest.raises(InputError, match="two or more, got one name"):
        ClipSurgery(FakeClip(), "official").semantic(image, "apple")
    assert ClipSurgery(FakeClip(), "classes").semantic(image, "apple").compute_shares()["apple"] > 0.1
    with pytest.raises(InputError, match="whole image's feature, got one made with other settings"):
        ClipSurgery(FakeClip(), "classes").semantic(ClipSurgery(FakeClip()).encode([image])[0], NAMES)


# painting, refinement, instances


@each_method
def test_500_names_are_the_best_at_each_pixel(name: str) -> None:
    names, image = [f"thing {i}" for i in range(500)], noise((22, 37))
    method = METHODS[name](Random())
    encoding = method.encode([image])[0]
    maps = method.compute_scores(encoding, method.settings.background.list_rows(names))
    full = resize_maps(maps, (24, 40))[:, :22, :37]
    found = method.semantic(encoding, names)
    assert len(found.names) == 501
    assert_best(found.labels, full)


@each_method
def test_endless_and_tiny_pictures(name: str) -> None:
    for size in ((1, 1), (20000, 3)):
        for settings in ("default", "pamr"):
            if size == (20000, 3) and settings == "pamr" and name != "maskclip":
                continue  # the same code as MaskCLIP's
            method = METHODS[name](Random(), settings if settings in METHODS[name].variants else "default")
            assert method.semantic(noise(size), "cat, dog").size == size


def test_pamr_runs_on_cells_of_the_size_asked_for() -> None:
    image, settings = noise((30, 45)), PatchCosineSettings(refine="pamr", refine_cell=2, background=Background("none"))
    method = PatchCosine(Random(), settings)
    encoding = method.encode([image])[0]
    maps = method.compute_scores(encoding, settings.background.list_rows("cat, dog"))
    finer = refine_maps(image.pixels, resize_maps(maps, (16, 24))[:, :15, :23])
    found = method.semantic(encoding, "cat, dog").labels
    assert_best(found, resize_maps(finer, (30, 45)))
    assert not np.array_equal(found, PatchCosine(Random(), replace(settings, refine="none")).semantic(image, "cat, dog").labels)
    bare = DenseEncoding(encoding.size, encoding.tokens)
    with pytest.raises(InputError, match="holds the image"):
        method.semantic(bare, "cat, dog")


def test_components_and_classes_as_instances() -> None:
    scene = next(s for s in draw_paper_scenes() if s.image.id == "apart")
    one_each = MaskClip(FakeClip()).instances(scene.image, NAMES)
    together = MaskClip(FakeClip(), "zutis").instances(scene.image, NAMES)
    assert one_each.labels.tolist() == ["banana", "banana"] and together.labels.tolist() == ["banana"]
    assert one_each.names == together.names == NAMES
    assert sorted(max(iou(m, t) for t in scene.masks) > 0.9 for m in one_each.masks) == [True, True]
    assert (
        np.array_equal(one_each.masks.any(0), together.masks[0]) and iou(together.masks[0], np.any(scene.masks, axis=0)) > 0.9
    )
    assert len(MaskClip(FakeClip(), MaskClipSettings(most=1)).instances(scene.image, NAMES)) == 1
    assert len(MaskClip(FakeClip(), MaskClipSettings(min_area=10**6)).instances(scene.image, NAMES)) == 0


@pytest.mark.parametrize("names", [NAMES, (*NAMES, "background"), ("background", *NAMES)])
def test_class_ids_are_those_of_the_names_asked_for(names: tuple[str, ...]) -> None:
    found = MaskClip(FakeClip()).instances(next(s for s in draw_paper_scenes() if s.image.id == "two classes").image, names)
    assert sorted(found.labels) == ["tree", "umbrella"] and found.names == names


def test_instances_are_scored_by_zutis_s_rule() -> None:
    image, settings = noise((12, 16)), MaskClipSettings(instances="classes", background=Background("none"), logit_scale=10.0)
    method = MaskClip(Random(), settings)
    encoding = method.encode([image])[0]
    maps = method.compute_scores(encoding, settings.background.list_rows("cat, dog, kite"))
    full = F.interpolate(maps[None], size=(12, 16), mode="bilinear", align_corners=False)[0]
    confidence, best = (10 * full).softmax(0).max(0)
    assert_apart(full)
    found = method.instances(encoding, "cat, dog, kite")
    for k, mask, score in zip(found.class_ids, found.masks, found.scores, strict=True):
        assert np.array_equal(mask, (best == int(k)).numpy())
        likely = 1 / (1 + np.exp(-5 * full[int(k)].numpy()[mask].mean()))
        assert_close(score, confidence.numpy()[mask].mean() * likely, dtype=torch.float32)
    assert len(found) == 3


def test_scores_below_a_threshold_are_background() -> None:
    settings = PatchCosineSettings(background=Background("threshold", threshold=0.05))
    image, method = noise((12, 16)), PatchCosine(Random(), settings)
    maps = method.compute_scores(method.encode([image])[0], settings.background.list_rows("cat, dog"))
    full = F.interpolate(maps[None], size=(12, 16), mode="bilinear", align_corners=False)[0]
    assert_apart(torch.cat([full, torch.full((1, 12, 16), 0.05)]))
    expected = np.where(full.amax(0) < 0.05, 0, full.argmax(0) + 1)
    assert np.array_equal(method.semantic(image, "cat, dog").labels, expected) and {0, 1, 2} == {*expected.ravel().tolist()}


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown variant of maskclip 'denoisd'; did you mean 'denoised'"):
        MaskClip(FakeClip(), "denoisd")
    with pytest.raises(InputError, match="objectness source, which this method has not"):
        DenseSettings(background=Background("objectness"))
    with pytest.raises(InputError, match="refine_cell of at least 1"):
        DenseSettings(refine_cell=0)


def test_encodings_are_shared_only_where_they_hold_the_same() -> None:
    assert MaskClip(FakeClip()).encoding_key == MaskClip(FakeClip(), "denoised").encoding_key
    methods: list[DenseClip[Any]] = [MaskClip(FakeClip(), v) for v in ("default", "smoothed", "pamr")]
    methods += [ClipSurgery(FakeClip(), v) for v in ("default", "classes")] + [PatchCosine(FakeClip())]
    assert len({m.encoding_key for m in methods}) == len(methods)
    assert {*MASKCLIP_VARIANTS} >= {"default", "official"} and "official" in SURGERY_VARIANTS and "pamr" in COSINE_VARIANTS


class Raw(FakeClip):
    """Cells of any length, and a class token that is not the image's feature."""

    def encode_raw(self, images: Any, path: Any = None) -> Any:
        generator = torch.Generator().manual_seed(3)
        return [
            (
                FeatureMap(m.values + torch.rand(m.values.shape, generator=generator), m.size),
                torch.rand(1, len(m.values), generator=generator),
            )
            for m in self.encode_dense(images, path)
        ]


def test_official_surgery_weighs_names_by_the_class_token_of_the_same_pass() -> None:
    image, names = draw_paper_scenes()[0].image, Vocabulary.of(NAMES)
    method = ClipSurgery(Raw(), "official")
    (encoding,) = method.encode([image])
    found = method.compute_scores(encoding, method.settings.background.list_rows(names))
    ((cells, tokens),) = Raw().encode_raw([image])
    words = Raw().encode_text(names)
    # as released: features of cells times each name's, an array of cells x names x D, less its mean over names
    units, first = F.normalize(cells.values.flatten(1), dim=0).T, F.normalize(tokens[0], dim=0)
    share = (2 * first @ words.T).softmax(0)
    features = units[:, None] * words[None] * (share / share.mean())[None, :, None]
    expected = (features - features.mean(1, keepdim=True)).sum(2).T
    low, high = expected.amin(1, keepdim=True), expected.amax(1, keepdim=True)
    assert_close(found.flatten(1), (expected - low) / (high - low))
    ours = ClipSurgery(Raw(), replace(SURGERY_VARIANTS["official"], weigh_by="image"))
    assert ours.encoding_key != method.encoding_key


def test_official_maskclip_enlarges_in_two_steps() -> None:
    image, clip = draw_paper_scenes()[0].image, FakeClip()
    method = MaskClip(clip, "official")
    asked = method.settings.background.list_rows(Vocabulary.of(NAMES))
    (encoding,) = method.encode([image])
    short = 512 / min(image.size)
    middle = [int(n * short + 0.5) for n in image.size]
    maps = torch.einsum("dhw,kd->khw", encoding.tokens.values, clip.encode_text(asked.rows))
    maps = F.interpolate(maps[None], size=middle, mode="bilinear", align_corners=False)
    maps = F.interpolate(maps, size=image.size, mode="bilinear", align_corners=False)[0]
    labels = torch.from_numpy(method.semantic(encoding, NAMES).labels.astype(np.int64))
    assert (labels != maps.argmax(0)).float().mean() <= 0.001


def test_official_settings_need_a_clip_that_can() -> None:
    class Closed:
        paths = ("value",)

    with pytest.raises(InputError, match="read as MaskCLIP was released"):
        MaskClip(cast(Any, Closed()), "official")
    with pytest.raises(InputError, match="class token of its dense pass"):
        ClipSurgery(cast(Any, Closed()), "official").encode([draw_paper_scenes()[0].image])
