import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.drawing import drawing
from torch.nn import functional as F

from annofree.datasets.emoji.world import CATEGORIES, Scene, World
from annofree.errors import MissingError
from annofree.features.clip import Clip
from annofree.features.sam import Sam
from annofree.features.tokenizer import Tokenizer, collect_token_ids
from annofree.structures import Image, Vocabulary
from annofree.testing.tolerances import assert_close
from annofree.training.tiny import clip as tiny_clip
from annofree.training.tiny import sam_lessons
from annofree.training.tiny.budget import Budget
from annofree.training.tiny.clip import compute_contrastive_loss, fit_tiny_clip, group_captions
from annofree.training.tiny.evaluate import compute_average_precision
from annofree.training.tiny.pool import Pool
from annofree.training.tiny.sam import fit_tiny_sam


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
        found = compute_contrastive_loss(
            self.image, self.text, self.scale, group_captions(["a dog", "a cat", "a car and a cat", "nothing"])
        )
        assert_close(found, torch.stack(rows + columns).mean())

    def test_pairs_of_the_same_content_do_not_push_each_other_away(self) -> None:
        captions = ["a photo of two dogs and a cat", "there is a cat and dogs here", "a car", "a dog"]
        found = compute_contrastive_loss(self.image, self.text, self.scale, group_captions(captions))
        logits = 5 * self.image @ self.text.T
        expected = []
        for i in range(4):
            others = [j for j in range(4) if j == i or {i, j} != {0, 1}]
            expected += [logits[i, others].logsumexp(0) - logits[i, i], logits[others, i].logsumexp(0) - logits[i, i]]
        assert_close(found, torch.stack(expected).mean())

    def test_a_batch_of_one_content_has_nothing_to_tell_apart(self) -> None:
        captions = ["a dog", "two dogs", "a picture of a dog", "dogs"]
        found = compute_contrastive_loss(self.image, self.text, self.scale, group_captions(captions))
        assert_close(found, 0)


def test_average_precision_is_the_mean_precision_at_each_hit() -> None:
    scores, truth = np.array([0.1, 0.9, 0.5, 0.7]), np.array([True, True, False, True])
    assert_close(compute_average_precision(scores, truth), (1 / 1 + 2 / 2 + 3 / 4) / 3)
    assert np.isnan(compute_average_precision(scores, np.zeros(4, bool)))


@pytest.mark.parametrize("train", [fit_tiny_clip, fit_tiny_sam])
def test_without_a_font_nothing_is_trained(
    train: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annofree.datasets.emoji.world._FONTS", ())
    with pytest.raises(MissingError, match="fonts-noto-color-emoji"):
        train(tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists()


@drawing
class TestWhatIsDrawn:
    def test_pictures_and_scenes_follow_from_their_numbers(self) -> None:
        world = World()
        first, second = tiny_clip.render(world, 0, 64, [3, 5]), tiny_clip.render(world, 0, 64, [5])
        assert np.array_equal(first[1].image, second[0].image) and first[1].caption == second[0].caption
        assert not np.array_equal(first[0].image, first[1].image)
        scenes = sam_lessons.render_scenes(world, 0, range(4))
        assert all(s.objects for s in scenes)
        assert np.array_equal(scenes[2].image, sam_lessons.render_scenes(world, 0, [2])[0].image)

    def test_a_batch_of_captioned_pictures_has_one_size(self) -> None:
        pool = tiny_clip.make_pool(World(), 6, 0, fresh=1)
        draw = tiny_clip._Draw(pool, batch=3, seed=0)
        tokenizer = Tokenizer(24, collect_token_ids(CATEGORIES.values()))
        drawn = [[draw(3 * step + k) for k in range(3)] for step in range(6)]
        batches = [tiny_clip.collate(examples, tokenizer) for examples in drawn]
        assert all(b.images.shape == (3, 128, 128, 3) and b.tokens.shape == (3, 24) for b in batches)
        assert all(b.size in tiny_clip._SIZES for b in batches) and len({b.size for b in batches}) > 1
        assert torch.equal(batches[5].tokens, tokenizer([example.picture.caption for example in drawn[5]]))
        seen = {pool.draw_thing(n).caption for n in pool.find_window(5)}
        assert {example.picture.caption for example in drawn[5]} <= seen

    def test_processes_draw_what_is_drawn_in_turn(self) -> None:
        pools = [tiny_clip.make_pool(World(), 40, 0, fresh=0) for _ in range(2)]
        for pool, workers in zip(pools, (0, 2), strict=True):
            pool.fill(quiet, workers=workers)
        for number in range(40):
            one, other = (pool.draw_thing(number) for pool in pools)
            assert one.caption == other.caption and np.array_equal(one.image, other.image)

    def test_varied_images_differ_and_are_drawn_from_the_generator_alone(self) -> None:
        images = torch.from_numpy(np.stack([c.image for c in tiny_clip.render(World(), 0, 64, range(6))]))
        plain, varied, again = (
            tiny_clip.prepare_images(images, 64, torch.Generator().manual_seed(1), share) for share in (0.0, 1.0, 1.0)
        )
        assert torch.equal(varied, again) and not any(torch.equal(a, b) for a, b in zip(plain, varied, strict=True))

    def test_a_lesson_has_prompts_of_its_steps_kind(self) -> None:
        pool: Pool[Scene] = Pool(lambda numbers: sam_lessons.render_scenes(World(), 0, numbers), 2, fresh=1)
        draw = sam_lessons.LessonDraw(pool, Budget(samples=40, batch=2, lr=1.0), 0)
        lessons = [draw(number) for number in range(8)]
        assert all(a.kind == b.kind for a, b in zip(lessons[::2], lessons[1::2], strict=True))
        assert len({lesson.kind for lesson in lessons}) > 1
        first = lessons[0]
        assert (first.masks.shape, first.boxes.shape, first.points.shape) == ((8, 256, 256), (8, 4), (8, 1, 2))
        assert first.pixels.shape == (3, 256, 256) and first.balance == 1.0 and draw(38).balance == 0.0


@drawing
class TestTargets:
    def test_targets_are_objects_or_their_parts_and_points_lie_in_them(self) -> None:
        rng = np.random.default_rng(0)
        for scene in World().draw_scenes(3, 0, "plain"):
            masks = sam_lessons.draw_targets(rng, scene, 12)
            assert masks.shape == (12, 256, 256) and masks.any((1, 2)).all()
            for mask in masks:
                (owner,) = np.unique(scene.layout[mask])
                assert owner > 0
                whole = np.array_equal(mask, scene.mask(int(owner) - 1))
                assert whole or len(np.unique(scene.parts[mask])) == 1
            points = sam_lessons.draw_points(rng, masks)
            assert points.shape == (12, 1, 2)
            assert all(m[int(y), int(x)] for m, ((x, y),) in zip(masks, points, strict=True))


@drawing
def test_a_few_steps_write_a_clip_that_loads(tmp_path: Path) -> None:
    said: list[str] = []
    figures = fit_tiny_clip(
        tmp_path,
        Budget(samples=24, batch=8, lr=1e-3),
        pool_size=40,
        exam_size=6,
        calibration_size=3,
        say=said.append,
    )
    assert {"zero-shot top-1", "zero-shot top-1, new look", "multi-label mAP over classes"} <= set(figures)
    assert all(0 <= v <= 1 for v in figures.values())
    assert said[0] == "rendered 40 of 40 images" and said[-1].startswith("step 3 of 3: loss ")

    clip = Clip(tmp_path)
    assert clip.card.tier == "S1" and clip.card.world == "emoji"
    assert figures.items() <= clip.card.figures.items() and clip.card.figures["training samples"] == 24
    assert len(clip.settings["presence"]) == 3 and np.isfinite(clip.settings["presence"]).all()
    image = Image(next(World().draw_scenes(1, 0, "plain", 96)).image)
    words = clip.encode_text(Vocabulary.of(list(CATEGORIES.values())))
    assert words.shape == (65, clip.dimension)
    assert clip.remarks(Vocabulary.of(list(CATEGORIES.values()))) == [clip.settings["warning"]]  # all names were read
    presence = clip.score_presence(clip.encode_image([image])[0], clip.encode_dense([image])[0], words)
    assert presence.shape == (65,) and torch.isfinite(presence).all()
    # small enough to come with the package
    assert (tmp_path / "open_clip_model.safetensors").stat().st_size < 16e6
    known = json.loads((tmp_path / "vocabulary.json").read_text())
    assert known == sorted(known) and len(known) + 4 == clip._tokenizer.size  # with padding, unknown, start and end


@drawing
def test_a_few_steps_write_a_sam_that_loads(tmp_path: Path) -> None:
    figures = fit_tiny_sam(tmp_path, Budget(samples=12, batch=4, lr=1e-3), pool_size=10, exam_size=4, say=quiet)
    assert {"box IoU", "box IoU above 32 px", "point IoU, best of 3"} <= set(figures)

    sam = Sam(tmp_path)
    assert sam.card.tier == "S2" and sam.card.figures["training samples"] == 12
    assert figures["box IoU"] == sam.card.figures["box IoU"]
    (embedding,) = sam.embed([Image(next(World().draw_scenes(1, 0, "plain", 96)).image)])
    found = sam.predict_masks(embedding, boxes=np.array([[10, 10, 60, 60]], np.float32), multimask=True)
    assert found.masks.shape == (1, 3, 96, 96) and torch.isfinite(found.quality).all()
    assert (tmp_path / "model.safetensors").stat().st_size < 12e6
