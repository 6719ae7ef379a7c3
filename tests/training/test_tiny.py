import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.drawing import drawing
from torch.nn import functional as F

from annofree.datasets.emoji.world import CATEGORIES, World
from annofree.errors import MissingError
from annofree.features.clip import Clip
from annofree.features.sam import Sam
from annofree.structures import Image, Vocabulary
from annofree.testing.tolerances import assert_close
from annofree.training.tiny import clip as tiny_clip
from annofree.training.tiny import sam as tiny_sam
from annofree.training.tiny.clip import contrastive_loss, train_tiny_clip
from annofree.training.tiny.evaluate import average_precision
from annofree.training.tiny.loop import Budget
from annofree.training.tiny.sam import train_tiny_sam


def quiet(_: str) -> None:
    """Say nothing."""


def unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


class TestContrastiveLoss:
    image, text = unit(4, 8, seed=0), unit(4, 8, seed=1)
    scale = torch.tensor(5.0)

    def test_for_unlike_captions_it_is_plain_infonce(self) -> None:
        logits = 5 * self.image @ self.text.T
        rows = [-logits[i, i] + logits[i].logsumexp(0) for i in range(4)]
        columns = [-logits[i, i] + logits[:, i].logsumexp(0) for i in range(4)]
        found = contrastive_loss(self.image, self.text, self.scale, ["a dog", "a cat", "a car and a cat", "nothing"])
        assert_close(found, torch.stack(rows + columns).mean())

    def test_pairs_of_the_same_content_do_not_push_each_other_away(self) -> None:
        captions = ["a photo of two dogs and a cat", "there is a cat and dogs here", "a car", "a dog"]
        found = contrastive_loss(self.image, self.text, self.scale, captions)
        logits = 5 * self.image @ self.text.T
        expected = []
        for i in range(4):
            others = [j for j in range(4) if j == i or {i, j} != {0, 1}]
            expected += [logits[i, others].logsumexp(0) - logits[i, i], logits[others, i].logsumexp(0) - logits[i, i]]
        assert_close(found, torch.stack(expected).mean())

    def test_a_batch_of_one_content_has_nothing_to_tell_apart(self) -> None:
        found = contrastive_loss(self.image, self.text, self.scale, ["a dog", "two dogs", "a picture of a dog", "dogs"])
        assert_close(found, 0)


def test_average_precision_is_the_mean_precision_at_each_hit() -> None:
    scores, truth = np.array([0.1, 0.9, 0.5, 0.7]), np.array([True, True, False, True])
    assert_close(average_precision(scores, truth), (1 / 1 + 2 / 2 + 3 / 4) / 3)
    assert np.isnan(average_precision(scores, np.zeros(4, bool)))


@pytest.mark.parametrize("train", [train_tiny_clip, train_tiny_sam])
def test_without_a_font_nothing_is_trained(
    train: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annofree.datasets.emoji.world._FONTS", ())
    with pytest.raises(MissingError, match="fonts-noto-color-emoji"):
        train(tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists()


@drawing
class TestPools:
    def test_the_pool_of_scenes_keeps_its_size_and_replaces_the_oldest(self) -> None:
        pool = tiny_sam._Pool(World(), np.random.default_rng(0), [], 4)
        pool.refresh(4)
        before = list(pool.scenes)
        assert len(before) == 4 and all(s.objects for s in before)
        pool.refresh(1)
        assert len(pool.scenes) == 4
        assert pool.scenes[0] is not before[0] and all(a is b for a, b in zip(pool.scenes[1:], before[1:], strict=True))
        pool.refresh(4)
        assert len(pool.scenes) == 4
        assert not any(s is b for s in pool.scenes for b in before)

    def test_the_pool_of_captions_keeps_its_size_and_replaces_the_oldest(self) -> None:
        pool = tiny_clip.Pool.render(World(), 6, 0, quiet)
        before = pool.images.copy()
        assert all(pool.captions)
        pool.refresh(2)
        changed = [not np.array_equal(a, b) for a, b in zip(pool.images, before, strict=True)]
        assert changed == [True, True, False, False, False, False]
        images, captions = pool.draw(9)
        assert images.shape == (9, 128, 128, 3) and len(captions) == 9
        by_caption = {c: i for i, c in zip(images, captions, strict=True)}
        for caption, image in by_caption.items():
            at = [k for k, c in enumerate(pool.captions) if c == caption]
            assert any(np.array_equal(pool.images[k], image) for k in at)


@drawing
class TestTargets:
    def test_targets_are_objects_or_their_parts_and_points_lie_in_them(self) -> None:
        rng = np.random.default_rng(0)
        for scene in World().scenes(3, 0, "plain"):
            masks = tiny_sam._targets(rng, scene, 12)
            assert masks.shape == (12, 256, 256) and masks.any((1, 2)).all()
            for mask in masks:
                (owner,) = np.unique(scene.layout[mask])
                assert owner > 0
                whole = np.array_equal(mask, scene.mask(int(owner) - 1))
                assert whole or len(np.unique(scene.parts[mask])) == 1
            points = tiny_sam._inner_points(rng, masks)
            assert points.shape == (12, 1, 2)
            assert all(m[int(y), int(x)] for m, ((x, y),) in zip(masks, points, strict=True))


@drawing
def test_a_few_steps_write_a_clip_that_loads(tmp_path: Path) -> None:
    said: list[str] = []
    figures = train_tiny_clip(
        tmp_path,
        Budget(samples=24, minutes=600, batch=8, lr=1e-3),
        pool_size=40,
        exam_size=6,
        calibration_size=3,
        say=said.append,
    )
    assert {"zero-shot top-1", "zero-shot top-1, new look", "multi-label mAP over classes"} <= set(figures)
    assert all(0 <= v <= 1 for v in figures.values())
    assert said[0] == "rendered 40 of 40 pictures" and said[-1].startswith("100%")

    clip = Clip(tmp_path)
    assert clip.card.tier == "S1" and clip.card.world == "emoji"
    assert figures.items() <= clip.card.figures.items() and clip.card.figures["training samples"] == 24
    assert len(clip.settings["presence"]) == 3 and np.isfinite(clip.settings["presence"]).all()
    image = Image(next(World().scenes(1, 0, "plain", 96)).image)
    words = clip.words(Vocabulary.of(list(CATEGORIES.values())))
    assert words.shape == (65, clip.dimension)
    assert clip.remarks(Vocabulary.of(list(CATEGORIES.values()))) == [clip.settings["warning"]]  # all names were read
    presence = clip.presence(clip.whole([image])[0], clip.dense([image])[0], words)
    assert presence.shape == (65,) and torch.isfinite(presence).all()
    # small enough to come with the package
    assert (tmp_path / "open_clip_model.safetensors").stat().st_size < 16e6
    assert json.loads((tmp_path / "vocabulary.json").read_text()) == sorted(clip._tokenizer.vocabulary or ())


@drawing
def test_a_few_steps_write_a_sam_that_loads(tmp_path: Path) -> None:
    figures = train_tiny_sam(tmp_path, Budget(samples=12, minutes=600, batch=4, lr=1e-3), pool_size=10, exam_size=4, say=quiet)
    assert {"box IoU", "box IoU above 32 px", "point IoU, best of 3"} <= set(figures)

    sam = Sam(tmp_path)
    assert sam.card.tier == "S2" and sam.card.figures["training samples"] == 12
    assert figures["box IoU"] == sam.card.figures["box IoU"]
    (embedding,) = sam.embed([Image(next(World().scenes(1, 0, "plain", 96)).image)])
    found = sam.draw(embedding, boxes=np.array([[10, 10, 60, 60]], np.float32), many=True)
    assert found.masks.shape == (1, 3, 96, 96) and torch.isfinite(found.quality).all()
    assert (tmp_path / "model.safetensors").stat().st_size < 12e6
