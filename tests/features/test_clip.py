import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from annofree.features.clip import Clip, attention_pool, value_path
from annofree.features.weights import Card, bundled
from annofree.ops.grids import fitted_size
from annofree.structures import Image, Vocabulary

SHAPES = {"square": (64, 64), "wide": (60, 200), "tall": (150, 40), "dot": (1, 1), "strip": (3, 20000)}


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(bundled("tiny-clip"))


@pytest.fixture
def using(tmp_path: Path) -> Callable[..., Clip]:
    """The bundled model with other settings on its card."""

    def make(**use: Any) -> Clip:
        source = bundled("tiny-clip")
        card = Card.read(source)
        for name in card.files:
            (tmp_path / name).unlink(missing_ok=True)
            (tmp_path / name).symlink_to(source / name)
        replace(card, use=dict(card.use) | use).write(tmp_path)
        return Clip(tmp_path)

    return make


def picture(size: tuple[int, int], seed: int = 0) -> Image:
    """A smooth, colourful picture, so that resizing it is no lottery."""
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
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-4, rtol=0)


class TestAttentionPool:
    def test_at_the_native_size_the_tower_is_as_open_clip_runs_it(self, clip: Clip) -> None:
        visual = clip._visual
        x = random(3, 3, 128, 128)
        with torch.inference_mode():
            ours, theirs = attention_pool(visual.attnpool, visual.layer4(clip._conv4(x))), visual(x)
        assert ours.shape == (3, clip.dimension)
        torch.testing.assert_close(F.normalize(ours, dim=1), F.normalize(theirs, dim=1), atol=1e-5, rtol=1e-5)

    def test_at_the_native_size_it_is_the_pool_itself(self, clip: Clip) -> None:
        pool = copy.deepcopy(clip._visual.attnpool).double()  # so that nothing is left to rounding
        x = random(3, pool.v_proj.in_features, 4, 4).double()
        with torch.inference_mode():
            torch.testing.assert_close(attention_pool(pool, x), pool(x), atol=1e-9, rtol=1e-9)

    @pytest.mark.parametrize(("height", "width"), [(2, 2), (7, 7), (3, 9), (8, 5), (1, 6), (1, 1)])
    def test_at_another_size_it_is_the_pool_with_resized_positions(self, clip: Clip, height: int, width: int) -> None:
        pool = clip._visual.attnpool
        x = random(2, pool.v_proj.in_features, height, width)
        before = parameters_of(clip)
        with torch.inference_mode():
            attention_pool(pool, x)
        after = parameters_of(clip)
        assert all(torch.equal(before[k], after[k]) for k in before)

        pool, x = copy.deepcopy(pool).double(), x.double()
        first, *cells = pool.positional_embedding.detach()
        side = int(len(cells) ** 0.5)
        grid = torch.zeros(1, len(first), side, side, dtype=torch.double)
        for row in range(side):
            for column in range(side):
                grid[0, :, row, column] = cells[row * side + column]
        if (height, width) != (side, side):
            grid = F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        other = copy.deepcopy(pool)
        listed = [first, *(grid[0, :, row, column] for row in range(height) for column in range(width))]
        other.positional_embedding = nn.Parameter(torch.stack(listed))
        with torch.inference_mode():
            torch.testing.assert_close(attention_pool(pool, x), other(x), atol=1e-9, rtol=1e-9)

    def test_what_was_seen_before_changes_nothing(self, clip: Clip) -> None:
        pool = clip._visual.attnpool
        native = random(1, pool.v_proj.in_features, 4, 4)
        with torch.inference_mode():
            alone = attention_pool(pool, native)
            attention_pool(pool, random(1, pool.v_proj.in_features, 9, 2))
            assert torch.equal(attention_pool(pool, native), alone)


class TestValuePath:
    def test_it_is_the_two_linear_layers_on_each_cell(self, clip: Clip) -> None:
        pool = clip._visual.attnpool
        x = random(2, pool.v_proj.in_features, 3, 5)
        with torch.inference_mode():
            dense = value_path(pool, x)
            assert dense.shape == (2, clip.dimension, 3, 5)
            for b, i, j in np.ndindex(2, 3, 5):
                torch.testing.assert_close(dense[b, :, i, j], pool.c_proj(pool.v_proj(x[b, :, i, j])), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("size", [(1, 1), (3, 2)])
    def test_where_all_cells_are_alike_it_is_what_the_pool_gives_without_positions(
        self, clip: Clip, size: tuple[int, int]
    ) -> None:
        pool = copy.deepcopy(clip._visual.attnpool)
        pool.positional_embedding.data.zero_()
        x = random(1, pool.v_proj.in_features, 1, 1).expand(-1, -1, *size)
        with torch.inference_mode():
            torch.testing.assert_close(value_path(pool, x)[..., 0, 0], attention_pool(pool, x), atol=1e-5, rtol=1e-5)


class TestPictures:
    def test_whole_pictures_are_unit_features(self, clip: Clip) -> None:
        features = clip.whole([picture(size, seed) for seed, size in enumerate(SHAPES.values())])
        assert features.shape == (len(SHAPES), clip.dimension)
        assert_unit(features, 1)

    def test_many_pictures_are_as_each_alone_and_in_order(self, clip: Clip) -> None:
        images = [picture(size, seed) for seed, size in enumerate([(64, 64), (40, 90), (64, 64), (90, 40), (40, 90)])]
        torch.testing.assert_close(clip.whole(images), torch.cat([clip.whole([i]) for i in images]), atol=1e-4, rtol=1e-4)
        for together, image in zip(clip.dense(images), images, strict=True):
            (alone,) = clip.dense([image])
            assert together.size == alone.size == image.size
            torch.testing.assert_close(together.values, alone.values, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("size", SHAPES.values(), ids=SHAPES.keys())
    def test_the_dense_grid_fits_the_picture(self, clip: Clip, size: tuple[int, int]) -> None:
        (found,) = clip.dense([picture(size)])
        side, factor = clip.settings["dense_side"], clip.settings["shifts"]
        seen = fitted_size(size, side, 32)
        assert found.values.shape == (clip.dimension, *(n // 32 * factor for n in seen))
        assert min(found.values.shape[1:]) == side // 32 * factor
        assert found.size == size
        assert_unit(found.values, 0)

    def test_without_shifts_a_cell_is_a_plain_cell_of_the_tower(self, using: Callable[..., Clip]) -> None:
        clip = using(shifts=1, dense_side=64)
        image = picture((64, 96))
        (found,) = clip.dense([image])
        x = (torch.tensor(image.pixels).permute(2, 0, 1)[None] / 255 - clip._mean.view(3, 1, 1)) / clip._std.view(3, 1, 1)
        visual = clip._visual
        with torch.inference_mode():
            layer4 = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(x)))))
            plain = F.normalize(value_path(visual.attnpool, layer4)[0], dim=0)
        torch.testing.assert_close(found.values, plain, atol=1e-5, rtol=1e-5)

    def test_seeing_changes_no_parameter(self, clip: Clip) -> None:
        before = parameters_of(clip)
        image = picture((50, 90))
        clip.whole([image]), clip.dense([image])
        clip.crops(image, np.array([[0, 0, 30, 30]], np.float32), pooled=True)
        after = parameters_of(clip)
        assert all(torch.equal(before[k], after[k]) for k in before)


class TestBoundaries:
    @pytest.mark.parametrize("margin", [0, 2])
    def test_the_grid_has_a_stride_of_sixteen_with_and_without_a_margin(self, using: Callable[..., Clip], margin: int) -> None:
        clip = using(boundary_side=128, margin=margin)
        wide, dot = clip.boundaries([picture((60, 120)), picture((1, 1))])
        assert wide.values.shape[1:] == (8, 16) and wide.size == (60, 120)
        assert dot.values.shape[1:] == (8, 8) and dot.size == (1, 1)
        assert wide.values.shape[0] == dot.values.shape[0] == clip._visual.layer4[0].conv1.in_channels

    def test_a_margin_keeps_the_zero_padding_away(self, using: Callable[..., Clip]) -> None:
        grey = Image(np.full((50, 80, 3), 90, np.uint8))

        def spread(margin: int) -> float:
            """How far cells of a flat picture, which should all be alike, are from the middle one."""
            (found,) = using(boundary_side=128, margin=margin).boundaries([grey])
            _, h, w = found.values.shape
            middle = found.values[:, h // 2, w // 2]
            return float((found.values - middle[:, None, None]).norm(dim=0).max() / middle.norm())

        without, some, ample = (spread(m) for m in (0, 2, 12))
        assert ample < 1e-4 < some < without

    def test_a_margin_does_not_move_the_cells(self, using: Callable[..., Clip]) -> None:
        image = picture((256, 256))
        (plain,) = using(boundary_side=512, margin=0).boundaries([image])
        (framed,) = using(boundary_side=512, margin=1).boundaries([image])
        torch.testing.assert_close(framed.values[:, 14:18, 14:18], plain.values[:, 14:18, 14:18], atol=1e-4, rtol=1e-3)


class TestWords:
    def test_words_and_neutral(self, clip: Clip) -> None:
        words = clip.words(Vocabulary.of("dog, cat: kitten | tabby, traffic light"))
        assert words.shape == (3, clip.dimension)
        assert_unit(words, 1)
        assert clip.neutral().shape == (clip.dimension,)
        assert 0 < float(clip.neutral().norm()) < 1  # a mean over unlike directions

    def test_synonyms_are_averaged_and_a_word_is_the_mean_of_its_prompts(self, clip: Clip) -> None:
        dog, cat = clip.words(Vocabulary.of("dog, cat"))
        (both,) = clip.words(Vocabulary.of(["dog: cat"]))
        torch.testing.assert_close(both, F.normalize(dog + cat, dim=0), atol=1e-5, rtol=1e-5)
        prompts = clip._tokenizer([t.format("dog") for t in clip.settings["templates"]])
        with torch.inference_mode():
            slow = sum((F.normalize(clip._model.encode_text(p[None])[0], dim=0) for p in prompts), torch.zeros(clip.dimension))
        torch.testing.assert_close(dog, F.normalize(slow, dim=0), atol=1e-5, rtol=1e-5)

    def test_a_text_is_encoded_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clip, calls = Clip(bundled("tiny-clip")), []
        encode = clip._model.encode_text

        def counting(tokens: Tensor) -> Tensor:
            calls.append(len(tokens))
            result: Tensor = encode(tokens)
            return result

        monkeypatch.setattr(clip._model, "encode_text", counting)
        first = clip.words(Vocabulary.of("dog, cat"))
        assert calls == [len(clip.settings["templates"])] * 2
        again = clip.words(Vocabulary.of("cat, dog"))
        assert len(calls) == 2
        assert torch.equal(again, first.flip(0))

    def test_remarks_carry_the_warning_and_name_words_never_read(self, clip: Clip) -> None:
        warning = clip.settings["warning"]
        assert clip.remarks(Vocabulary.of("dog, traffic light")) == [warning]
        said = clip.remarks(Vocabulary.of("dog, horse: unicorn | cat, xylophone"))
        assert said == [warning, "tiny-clip has never read: unicorn, xylophone"]

    def test_presence_is_a_probability_a_class(self, clip: Clip) -> None:
        image, words = picture((64, 64)), clip.words(Vocabulary.of("dog, cat, car"))
        whole, (tokens,) = clip.whole([image])[0], clip.dense([image])
        evidence, presence = clip.evidence(whole, tokens, words), clip.presence(whole, tokens, words)
        assert evidence.shape == (3, 2) and presence.shape == (3,)
        assert ((presence > 0) & (presence < 1)).all()
        first, second, offset = clip.settings["presence"]
        by_hand = [1 / (1 + np.exp(-(first * a + second * b + offset))) for a, b in evidence.tolist()]
        assert presence.tolist() == pytest.approx(by_hand, rel=1e-4)


class TestCrops:
    @staticmethod
    def boxes(*rows: tuple[float, float, float, float]) -> npt.NDArray[np.float32]:
        return np.array(rows, np.float32).reshape(-1, 4)

    @pytest.mark.parametrize("pooled", [False, True])
    def test_one_unit_feature_a_box(self, clip: Clip, pooled: bool) -> None:
        boxes = self.boxes((0, 0, 20, 20), (3.5, 10.2, 33, 50), (10, 10, 11, 11))
        features = clip.crops(picture((60, 90)), boxes, pooled=pooled)
        assert features.shape == (3, clip.dimension)
        assert_unit(features, 1)
        assert not torch.allclose(features[0], features[1], atol=1e-3)

    @pytest.mark.parametrize("pooled", [False, True])
    def test_no_boxes(self, clip: Clip, pooled: bool) -> None:
        assert clip.crops(picture((60, 90)), self.boxes(), pooled=pooled).shape == (0, clip.dimension)

    @pytest.mark.parametrize("pooled", [False, True])
    def test_boxes_outside_the_picture_are_clipped(self, clip: Clip, pooled: bool) -> None:
        image = picture((60, 90))
        outside = self.boxes((-30, -5, 40, 50), (50, 30, 500, 300), (200, 200, 300, 300), (-9, -9, -2, -2))
        clipped = self.boxes((0, 0, 40, 50), (50, 30, 90, 60), (89, 59, 90, 60), (0, 0, 1, 1))
        torch.testing.assert_close(
            clip.crops(image, outside, pooled=pooled), clip.crops(image, clipped, pooled=pooled), atol=1e-5, rtol=1e-5
        )

    def test_an_unpooled_crop_is_the_picture_that_is_cut_out(self, clip: Clip) -> None:
        image = picture((60, 90))
        cut = Image(np.ascontiguousarray(image.pixels[10:41, 20:70]))
        (feature,) = clip.crops(image, self.boxes((20, 10, 70, 40.2)), pooled=False)
        torch.testing.assert_close(feature, clip.whole([cut])[0], atol=1e-5, rtol=1e-5)

    def test_more_crops_than_go_into_one_batch(self, using: Callable[..., Clip]) -> None:
        clip, image = using(whole_side=32), picture((60, 90))
        boxes = self.boxes(*((x, 5, x + 20, 40) for x in range(70)))
        together = clip.crops(image, boxes, pooled=False)
        assert together.shape == (70, clip.dimension)
        for i in (0, 63, 64, 69):
            torch.testing.assert_close(together[i], clip.crops(image, boxes[[i]], pooled=False)[0], atol=1e-4, rtol=1e-4)


def test_provenance_says_which_weights_and_how_they_are_used(clip: Clip) -> None:
    provenance = clip.provenance
    assert provenance["name"] == "tiny-clip" and provenance["tier"] == "S1"
    assert set(provenance["sha256"]) == {"open_clip_config.json", "vocabulary.json", "open_clip_model.safetensors"}
    assert provenance["use"] == clip.settings == dict(clip.card.use)
