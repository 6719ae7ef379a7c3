import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file
from tests.support.models import write_random_clip
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.features.clip import Clip
from annofree.features.controls import Control, apply_control
from annofree.features.tokenizer import collect_token_ids
from annofree.features.towers.resnet import project_values
from annofree.features.towers.text import encode_text_tokens
from annofree.hub.cards import Card, find_bundled
from annofree.ops.grids import fit_size
from annofree.protocols import DensePath
from annofree.structures import Image, Vocabulary
from annofree.testing.tolerances import assert_close

SHAPES = {"square": (64, 64), "wide": (60, 200), "tall": (150, 40), "dot": (1, 1), "strip": (3, 20000)}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(find_bundled("tiny-clip"))


@pytest.fixture
def using(tmp_path: Path) -> Callable[..., Clip]:
    """The bundled model with other settings on its card."""

    def make(**use: Any) -> Clip:
        source = find_bundled("tiny-clip")
        card = Card.read(source)
        for name in card.files:
            (tmp_path / name).unlink(missing_ok=True)
            (tmp_path / name).symlink_to(source / name)
        replace(card, use=dict(card.use) | use).write(tmp_path)
        return Clip(tmp_path)

    return make


def picture(size: tuple[int, int], seed: int = 0) -> Image:
    """A smooth, colourful image, so that resizing it is no lottery."""
    coarse = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0]
    return Image((255 * smooth).permute(1, 2, 0).contiguous().numpy().astype(np.uint8), f"picture-{seed}")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters_of(clip: Clip) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in clip._model.state_dict().items()}


def assert_unit(features: Tensor, dim: int) -> None:
    norms = features.norm(dim=dim)
    assert torch.isfinite(features).all()
    assert_close(norms, torch.ones_like(norms))


class TestImages:
    def test_whole_pictures_are_unit_features(self, clip: Clip) -> None:
        features = clip.encode_image([picture(size, seed) for seed, size in enumerate(SHAPES.values())])
        assert features.shape == (len(SHAPES), clip.dimension)
        assert_unit(features, 1)

    def test_many_pictures_are_as_each_alone_and_in_order(self, using: Callable[..., Clip]) -> None:
        clip = using(dense_side=96)
        images = [picture(size, seed) for seed, size in enumerate([(64, 64), (40, 90), (64, 64), (90, 40), (40, 90)])]
        assert_close(clip.encode_image(images), torch.cat([clip.encode_image([i]) for i in images]), depth="network")
        for together, image in zip(clip.encode_dense(images), images, strict=True):
            (alone,) = clip.encode_dense([image])
            assert together.size == alone.size == image.size
            assert_close(together.values, alone.values, depth="network")

    @pytest.mark.parametrize("size", SHAPES.values(), ids=SHAPES.keys())
    def test_the_dense_grid_fits_the_picture(self, clip: Clip, size: tuple[int, int]) -> None:
        (found,) = clip.encode_dense([picture(size)])
        side, factor = clip.settings["dense_side"], clip.settings["shifts"]
        seen = fit_size(size, side, 32)
        assert found.values.shape == (clip.dimension, *(n // 32 * factor for n in seen))
        assert min(found.values.shape[1:]) == side // 32 * factor
        assert found.size == size
        assert_unit(found.values, 0)

    def test_without_shifts_a_cell_is_a_plain_cell_of_the_tower(self, using: Callable[..., Clip]) -> None:
        clip = using(shifts=1, dense_side=64)
        image = picture((64, 96))
        (found,) = clip.encode_dense([image])
        x = (torch.tensor(image.pixels).permute(2, 0, 1)[None] / 255 - clip._mean.view(3, 1, 1)) / clip._std.view(3, 1, 1)
        visual = clip._tower.visual
        with torch.inference_mode():
            layer4 = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(x)))))
            plain = F.normalize(project_values(visual.attnpool, layer4)[0], dim=0)
        assert_close(found.values, plain, depth="network")

    def test_seeing_changes_no_parameter(self, clip: Clip) -> None:
        before = parameters_of(clip)
        image = picture((50, 90))
        clip.encode_image([image]), clip.encode_dense([image])
        clip.encode_crops(image, np.array([[0, 0, 30, 30]], np.float32), pooled=True)
        after = parameters_of(clip)
        assert all(torch.equal(before[k], after[k]) for k in before)


class TestBoundaries:
    @pytest.mark.parametrize("margin", [0, 2])
    def test_the_grid_has_a_stride_of_sixteen_with_and_without_a_margin(self, using: Callable[..., Clip], margin: int) -> None:
        clip = using(boundary_side=128, margin=margin, boundary_shifts=1)
        wide, dot = clip.encode_boundaries([picture((60, 120)), picture((1, 1))])
        assert wide.values.shape[1:] == (8, 16) and wide.size == (60, 120)
        assert dot.values.shape[1:] == (8, 8) and dot.size == (1, 1)
        assert wide.values.shape[0] == dot.values.shape[0] == clip._tower.visual.layer4[0].conv1.in_channels

    @pytest.mark.parametrize("margin", [0, 1])
    def test_shifts_make_it_finer_and_are_the_maps_of_moved_pictures(self, using: Callable[..., Clip], margin: int) -> None:
        image = picture((192, 256))
        plain, finer = (using(boundary_side=192, margin=margin, boundary_shifts=n) for n in (1, 2))
        (found,) = finer.encode_boundaries([image])
        assert found.values.shape[1:] == (24, 32) and plain.encode_boundaries([image])[0].values.shape[1:] == (12, 16)
        padded = Image(np.pad(image.pixels, ((8, 8), (8, 8), (0, 0)), mode="edge"))
        moved = Image(np.ascontiguousarray(padded.pixels[4:196, 4:260]))  # four px up and left of the image
        (one,) = plain.encode_boundaries([moved])
        inner = np.s_[:, 5:-5, 5:-5]  # the border sees zero padding in one, and what lies beyond in the other
        assert_close(found.values[:, ::2, ::2][inner], one.values[inner], depth="network")

    def test_a_margin_keeps_the_zero_padding_away(self, using: Callable[..., Clip]) -> None:
        gray = Image(np.full((50, 80, 3), 90, np.uint8))

        def spread(margin: int) -> tuple[Tensor, Tensor]:
            """The cells of a flat image, which should all be alike, and the middle one."""
            (found,) = using(boundary_side=128, boundary_shifts=1, margin=margin).encode_boundaries([gray])
            _, h, w = found.values.shape
            return found.values, found.values[:, h // 2, w // 2, None, None].expand_as(found.values)

        without, some, ample = (spread(m) for m in (0, 1, 4))  # conv4_x sees less than three cells far
        assert_close(*ample, depth="network")
        apart, less = (float((cells - middle).norm(dim=0).max() / middle[:, 0, 0].norm()) for cells, middle in (without, some))
        assert 0.01 < less < 0.5 * apart

    def test_a_margin_does_not_move_the_cells(self, using: Callable[..., Clip]) -> None:
        image = picture((128, 128))
        (plain,) = using(boundary_side=256, boundary_shifts=2, margin=0).encode_boundaries([image])
        (framed,) = using(boundary_side=256, boundary_shifts=2, margin=1).encode_boundaries([image])
        assert framed.values.shape[1:] == plain.values.shape[1:] == (32, 32)
        far = np.s_[:, 12:20, 12:20]  # from the edges
        assert_close(framed.values[far], plain.values[far], depth="network")


class TestWords:
    def test_words_and_neutral(self, clip: Clip) -> None:
        words = clip.encode_text(Vocabulary.of("dog, cat: kitten | tabby, traffic light"))
        assert words.shape == (3, clip.dimension)
        assert_unit(words, 1)
        assert clip.encode_null_text().shape == (clip.dimension,)
        assert 0 < float(clip.encode_null_text().norm()) < 1  # a mean over unlike directions

    def test_synonyms_are_averaged_and_a_word_is_the_mean_of_its_prompts(self, clip: Clip) -> None:
        dog, cat = clip.encode_text(Vocabulary.of("dog, cat"))
        (both,) = clip.encode_text(Vocabulary.of(["dog: cat"]))
        assert_close(both, F.normalize(dog + cat, dim=0))
        prompts = clip._tokenizer([t.format("dog") for t in clip.settings["templates"]])
        with torch.inference_mode():
            slow = sum((F.normalize(clip._model.encode_text(p[None])[0], dim=0) for p in prompts), torch.zeros(clip.dimension))
        assert_close(dog, F.normalize(slow, dim=0), depth="network")

    def test_a_text_is_encoded_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[int] = []

        def counting(model: Any, tokens: Tensor) -> Tensor:
            calls.append(len(tokens))
            return encode_text_tokens(model, tokens)

        monkeypatch.setattr("annofree.features.clip_network.encode_text_tokens", counting)
        clip = Clip(find_bundled("tiny-clip"))
        first = clip.encode_text(Vocabulary.of("dog, cat"))
        assert calls == [2 * len(clip.settings["templates"])]
        again = clip.encode_text(Vocabulary.of("cat, dog"))
        assert len(calls) == 1
        assert torch.equal(again, first.flip(0))

    def test_remarks_carry_the_warning_and_name_words_never_read(self, clip: Clip) -> None:
        warning = clip.settings["warning"]
        assert clip.remarks(Vocabulary.of("dog, traffic light")) == [warning]
        said = clip.remarks(Vocabulary.of("dog, horse: unicorn | cat, xylophone"))
        assert said == [warning, "tiny-clip has never read: unicorn, xylophone"]

    def test_presence_is_a_probability_a_class(self, clip: Clip) -> None:
        image, words = picture((64, 64)), clip.encode_text(Vocabulary.of("dog, cat, car"))
        whole, (tokens,) = clip.encode_image([image])[0], clip.encode_dense([image])
        evidence, presence = clip.compute_evidence(whole, tokens, words), clip.score_presence(whole, tokens, words)
        assert evidence.shape == (3, 2) and presence.shape == (3,)
        assert ((presence > 0) & (presence < 1)).all()
        first, second, offset = clip.settings["presence"]
        by_hand = [1 / (1 + np.exp(-(first * a + second * b + offset))) for a, b in evidence.tolist()]
        assert_close(presence, by_hand)


class TestCrops:
    @staticmethod
    def boxes(*rows: tuple[float, float, float, float]) -> npt.NDArray[np.float32]:
        return np.array(rows, np.float32).reshape(-1, 4)

    @pytest.mark.parametrize("pooled", [False, True])
    def test_one_unit_feature_a_box(self, clip: Clip, pooled: bool) -> None:
        boxes = self.boxes((0, 0, 20, 20), (3.5, 10.2, 33, 50), (10, 10, 11, 11))
        features = clip.encode_crops(picture((60, 90)), boxes, pooled=pooled)
        assert features.shape == (3, clip.dimension)
        assert_unit(features, 1)
        assert not torch.allclose(features[0], features[1], atol=1e-3)

    @pytest.mark.parametrize("pooled", [False, True])
    def test_no_boxes(self, clip: Clip, pooled: bool) -> None:
        assert clip.encode_crops(picture((60, 90)), self.boxes(), pooled=pooled).shape == (0, clip.dimension)

    @pytest.mark.parametrize("pooled", [False, True])
    def test_boxes_outside_the_picture_are_clipped(self, clip: Clip, pooled: bool) -> None:
        image = picture((60, 90))
        outside = self.boxes((-30, -5, 40, 50), (50, 30, 500, 300), (200, 200, 300, 300), (-9, -9, -2, -2))
        clipped = self.boxes((0, 0, 40, 50), (50, 30, 90, 60), (89, 59, 90, 60), (0, 0, 1, 1))
        assert_close(
            clip.encode_crops(image, outside, pooled=pooled), clip.encode_crops(image, clipped, pooled=pooled), depth="network"
        )

    def test_an_unpooled_crop_is_the_picture_that_is_cut_out(self, clip: Clip) -> None:
        image = picture((60, 90))
        cut = Image(np.ascontiguousarray(image.pixels[10:41, 20:70]))
        (feature,) = clip.encode_crops(image, self.boxes((20, 10, 70, 40.2)), pooled=False)
        assert_close(feature, clip.encode_image([cut])[0], depth="network")

    def test_more_crops_than_go_into_one_batch(self, using: Callable[..., Clip]) -> None:
        clip, image = using(whole_side=32), picture((60, 90))
        boxes = self.boxes(*((x, 5, x + 20, 40) for x in range(70)))
        together = clip.encode_crops(image, boxes, pooled=False)
        assert together.shape == (70, clip.dimension)
        for i in (0, 63, 64, 69):
            assert_close(together[i], clip.encode_crops(image, boxes[[i]], pooled=False)[0], depth="network")


def test_provenance_says_which_weights_and_how_they_are_used(clip: Clip) -> None:
    provenance = clip.provenance
    assert provenance["name"] == "tiny-clip" and provenance["tier"] == "S1"
    assert set(provenance["sha256"]) == {"open_clip_config.json", "vocabulary.json", "open_clip_model.safetensors"}
    assert provenance["use"] == clip.settings and clip.settings.items() >= clip.card.use.items()
    assert clip.settings["dense"] == "value" and provenance["dtype"] == "float32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, known = tmp_path_factory.mktemp("vit"), collect_token_ids(["a photo of a dog.", "cat"])
    text = {"context_length": 9, "vocab_size": len(known) + 4, "width": 32, "heads": 2, "layers": 2}
    vision = {"image_size": 64, "layers": 7, "width": 32, "head_width": 16, "patch_size": 16}
    write_random_clip(folder, 24, vision, text)
    (folder / "vocabulary.json").write_text(json.dumps(known))
    return folder


class TestVit:
    """A ViT of the hub's layout: random weights, a vocabulary of a few words, and a card that comes from elsewhere."""

    @staticmethod
    def load(folder: Path, **use: Any) -> Clip:
        card = Card("vit", "open_clip VisionTransformer", "S1", "MIT", "pairs", "web", files={}, use={"templates": "name"})
        return Clip(folder, card=card, use=use)

    def test_without_settings_the_native_side_and_surgery_are_used(self, folder: Path) -> None:
        clip = self.load(folder)
        assert clip.dimension == 24
        assert (clip.settings["dense"], clip.settings["dense_side"], clip.settings["whole_side"]) == ("surgery", 64, 64)
        assert clip.settings["templates"] == "name" and clip.provenance["name"] == "vit"
        image = picture((60, 121))
        (found,), (surgery,) = clip.encode_dense([image]), clip.encode_dense([image], "surgery")
        assert found.values.shape == (24, 4, 8) and found.size == (60, 121)
        assert torch.equal(found.values, surgery.values)
        assert_unit(found.values, 0)

    def test_the_four_paths_are_four_maps(self, folder: Path) -> None:
        paths: list[DensePath] = ["value", "value+mlp", "surgery", "attention"]
        maps = [self.load(folder).encode_dense([picture((64, 64))], path)[0].values for path in paths]
        assert not any(torch.allclose(a, b, atol=1e-3) for a, b in combinations(maps, 2))
        assert torch.equal(self.load(folder, dense="value+mlp").encode_dense([picture((64, 64))])[0].values, maps[1])

    def test_shifts_refine_by_parts_of_a_patch(self, folder: Path) -> None:
        image = picture((64, 96))
        (fine,) = self.load(folder, shifts=3).encode_dense([image])
        assert fine.values.shape == (24, 12, 18)
        (plain,) = self.load(folder).encode_dense([image])
        assert_close(fine.values[:, 1::3, 1::3], plain.values, depth="network")  # the middle move is none

    def test_keys_are_on_the_grid_of_the_dense_map(self, folder: Path) -> None:
        clip, images = self.load(folder), [picture((64, 130)), picture((90, 64), 1)]
        for keys, dense, image in zip(clip.extract_keys(images), clip.encode_dense(images), images, strict=True):
            assert keys.values.shape == (32, *dense.values.shape[1:]) and keys.size == image.size
            assert keys.values.dtype == torch.float32
            assert_close(keys.values, clip.extract_keys([image])[0].values, depth="network")

    @pytest.mark.parametrize("control", ["rgb", "random-weights"])
    def test_it_has_no_boundaries_and_a_resnet_no_keys(self, folder: Path, clip: Clip, control: Control) -> None:
        for vit in (self.load(folder), apply_control(self.load(folder), control)):
            with pytest.raises(InputError, match="use a CLIP ResNet"):
                vit.encode_boundaries([picture((64, 64))])
        with pytest.raises(InputError, match="use a ViT"):
            clip.extract_keys([picture((64, 64))])
        with pytest.raises(InputError, match=r"value\+mlp"):
            clip.encode_dense([picture((64, 64))], "value+mlp")

    def test_pooled_crops_are_means_of_dense_features(self, folder: Path) -> None:
        clip, image = self.load(folder), picture((64, 64))
        boxes = np.array([[0, 0, 64, 64], [0, 0, 16, 16]], np.float32)
        features = clip.encode_crops(image, boxes, pooled=True)
        assert features.shape == (2, 24)
        assert_unit(features, 1)
        with torch.inference_mode():
            cells = clip._tower.encode_dense(clip._pixels([image], (64, 64)), "surgery")[0]
        assert float(F.cosine_similarity(features[0], cells.mean((1, 2)), dim=0)) > 0.99
        assert float(F.cosine_similarity(features[1], cells[:, 0, 0], dim=0)) > 0.95

    def test_a_cropped_whole_is_the_middle(self, folder: Path) -> None:
        wide = picture((64, 101))
        middle = Image(np.ascontiguousarray(wide.pixels[:, 18:82]))
        crop, squash = self.load(folder, whole="crop"), self.load(folder)
        assert torch.equal(crop.encode_image([wide]), squash.encode_image([middle]))
        assert not torch.allclose(crop.encode_image([wide]), squash.encode_image([wide]), atol=1e-4)

    def test_presence_without_a_fit_is_the_classifier_between_a_name_and_nothing(self, folder: Path) -> None:
        clip, image = self.load(folder), picture((64, 64))
        whole, (tokens,), words = (
            clip.encode_image([image])[0],
            clip.encode_dense([image]),
            clip.encode_text(Vocabulary.of("dog, cat")),
        )
        neutral = clip.encode_null_text()
        found = clip.score_presence(whole, tokens, words)
        for k in range(2):
            logits = torch.stack([words[k] @ whole, neutral @ whole]) / 0.07
            assert_close(found[k], logits.softmax(0)[0])
        assert_close(clip.score_presence(whole, tokens, clip.encode_null_text()[None]), [0.5])

    def test_the_card_says_which_activation_and_the_configuration_is_overruled(self, folder: Path) -> None:
        settings = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
        image, words = picture((64, 64)), Vocabulary.of("dog, cat")
        plain = self.load(folder)
        for quick in (True, False):
            reference = CLIP(**settings, quick_gelu=quick).eval()
            reference.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
            card = replace(plain.card, use={"templates": "name", "quick_gelu": quick})
            clip = Clip(folder, card=card)
            with torch.inference_mode():
                images = reference.encode_image(clip._pixels([image], (64, 64)), normalize=True)
                texts = reference.encode_text(clip._tokenizer(["dog", "cat"]), normalize=True)
            assert_close(clip.encode_image([image]), images, depth="network")
            assert_close(clip.encode_text(words), texts, depth="network")
            alike = (
                torch.allclose(o, p, atol=1e-3)
                for o, p in [(images, plain.encode_image([image])), (texts, plain.encode_text(words))]
            )
            assert list(alike) == [not quick] * 2, "the activation makes a difference to both towers"

    def test_settings_that_are_none(self, folder: Path) -> None:
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"dense_sied": 448}, "did you mean 'dense_side'"),
            ({"whole": "stretch"}, "unknown way to a square 'stretch'"),
            ({"templates": "phto"}, "did you mean 'photo'"),
        ]
        for use, said in wrong:
            with pytest.raises(InputError, match=said):
                self.load(folder, **use)

    def test_a_tokenizer_that_does_not_fit_the_text_tower(self, folder: Path, tmp_path: Path) -> None:
        for name in ("open_clip_config.json", "open_clip_model.safetensors"):
            (tmp_path / name).symlink_to(folder / name)
        with pytest.raises(InputError, match="but CLIP's tokenizer has 49408"):
            self.load(tmp_path)


class TestSquares:
    def test_squares_of_the_native_side_are_whole_pictures(self, clip: Clip) -> None:
        images = [picture((128, 128), seed) for seed in range(3)]
        pixels = torch.stack([torch.from_numpy(i.pixels).permute(2, 0, 1) for i in images]) / 255
        assert_close(clip.encode_squares(pixels), clip.encode_image(images), depth="network")

    @pytest.mark.parametrize("side", [1, 40, 300])
    def test_squares_of_another_side_are_resized_as_pictures_are(self, clip: Clip, side: int) -> None:
        image = picture((side, side))
        pixels = torch.from_numpy(image.pixels).permute(2, 0, 1)[None] / 255
        assert_close(clip.encode_squares(pixels), clip.encode_image([image]), depth="network")
        assert_close(clip.encode_squares(pixels.half()), clip.encode_squares(pixels), dtype=torch.float16, depth="network")

    def test_none_and_more_than_go_into_one_batch(self, using: Callable[..., Clip]) -> None:
        clip, pixels = using(whole_side=32), torch.rand(70, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        together = clip.encode_squares(pixels)
        assert together.shape == (70, clip.dimension) and clip.encode_squares(pixels[:0]).shape == (0, clip.dimension)
        assert_unit(together, 1)
        for i in (0, 63, 64, 69):
            assert_close(together[i], clip.encode_squares(pixels[[i]])[0], depth="network")

    @pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 3, 8, 9)])
    def test_what_is_no_square_is_refused(self, clip: Clip, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match="expected squares"):
            clip.encode_squares(torch.zeros(shape))
        with pytest.raises(InputError, match=r"torch\.uint8"):
            clip.encode_squares(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
