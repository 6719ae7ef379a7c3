"""The tiny CLIP ViT: its losses, its frozen text tower, what the teacher's answers belong to, and a training of seconds."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.support.drawing import drawing
from torch import Tensor
from torch.nn import functional as F

from annofree.datasets.emoji.world import CATEGORIES, World
from annofree.errors import MissingError
from annofree.experiments.models import ModelRecipe
from annofree.features.clip import Clip
from annofree.features.clip_network import WEIGHTS
from annofree.features.tokenizer import Tokenizer
from annofree.hub.cards import find_bundled
from annofree.structures import Image, Vocabulary
from annofree.testing.tolerances import assert_close
from annofree.training.tiny import clip_vit as tiny_clip_vit
from annofree.training.tiny.budget import Budget, make_rng
from annofree.training.tiny.clip import prepare_images, render
from annofree.training.tiny.clip_vit import (
    MODEL,
    TEACHER,
    build_model,
    compute_distillation_loss,
    encode_image,
    find_best_path,
    fit_tiny_clip_vit,
    write_tiny_clip_vit,
)
from annofree.training.tiny.evaluate import measure_dense_iou
from annofree.training.tiny.pool import Pool


def quiet(_: str) -> None:
    """Say nothing."""


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def text_weights(folder: Path) -> dict[str, Tensor]:
    return {k: v for k, v in load_file(folder / WEIGHTS).items() if not k.startswith("visual.")}


class TestDistillationLoss:
    def test_it_is_the_mean_of_one_minus_the_cosine(self) -> None:
        student, teacher = unit(5, 8, seed=0), unit(5, 8, seed=1)
        expected = [1 - float(np.dot(s, t)) for s, t in zip(student.numpy(), teacher.numpy(), strict=True)]
        assert_close(compute_distillation_loss(student, teacher), float(np.mean(expected)))

    def test_it_is_nothing_for_the_same_and_two_for_the_opposite(self) -> None:
        student = unit(5, 8, seed=0)
        assert_close(compute_distillation_loss(student, student), 0)
        assert_close(compute_distillation_loss(student, -student), 2)

    def test_it_pulls_towards_the_teacher(self) -> None:
        raw, teacher = unit(1, 8, seed=0).requires_grad_(), unit(1, 8, seed=1)
        before = compute_distillation_loss(F.normalize(raw, dim=-1), teacher)
        before.backward()  # type: ignore[no-untyped-call]
        assert raw.grad is not None
        after = compute_distillation_loss(F.normalize(raw.detach() - 0.1 * raw.grad, dim=-1), teacher)
        assert float(after) < float(before.detach())


class TestNewModel:
    def test_all_but_the_image_tower_is_the_teachers_and_frozen(self) -> None:
        model, tokenizer = build_model(find_bundled(TEACHER))
        frozen = text_weights(find_bundled(TEACHER))
        state = model.state_dict()
        assert all(torch.equal(state[k], v.float()) for k, v in frozen.items())
        assert {k for k in state if not k.startswith("visual.")} == frozen.keys()
        assert all(p.requires_grad == name.startswith("visual.") for name, p in model.named_parameters())
        assert list(tokenizer.vocabulary or ()) == json.loads((find_bundled(TEACHER) / "vocabulary.json").read_text())

    def test_the_pooled_feature_is_open_clips(self) -> None:
        model, _ = build_model(find_bundled(TEACHER))
        x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model.eval().encode_image(x, normalize=True)
            assert_close(encode_image(model, x), expected, depth="network")
        assert expected.shape == (2, MODEL["embed_dim"])

    def test_another_teachers_text_tower_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        other = MODEL | {"text_cfg": MODEL["text_cfg"] | {"layers": 1}}
        monkeypatch.setattr(tiny_clip_vit, "MODEL", other)
        with pytest.raises(RuntimeError, match=r"resblocks\.1"):
            build_model(find_bundled(TEACHER))


def test_without_a_font_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annofree.datasets.emoji.world._FONTS", ())
    with pytest.raises(MissingError, match="fonts-noto-color-emoji"):
        fit_tiny_clip_vit(tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists()


def captioned(count: int) -> tuple[Tensor, list[str]]:
    drawn = render(World(), 0, 128, range(count))
    return torch.from_numpy(np.stack([d.image for d in drawn])), [d.caption for d in drawn]


def repeat_side(side: int, numbers: range) -> list[int]:
    return [side for _ in numbers]


@drawing
class TestLessons:
    def test_answers_stay_with_their_pictures_while_the_oldest_are_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tiny_clip_vit, "_AT_ONCE", 4)
        asked: list[int] = []

        def teach(images: Tensor, captions: list[str]) -> Tensor:
            """Something that tells images and captions apart."""
            asked.append(len(images))
            read = torch.tensor([[float(len(c)), float(sum(map(ord, c))), 0.0] for c in captions])
            return torch.stack([read, images.float().mean((1, 2))], 1)

        small, large = tiny_clip_vit._pools(World(), 10, 0, Budget(samples=64, batch=32, lr=1.0), teach)
        assert (small.size, small.fresh, large.size, large.fresh) == (10, 2, 2, 1)
        draw = tiny_clip_vit._Draw(small, large, batch=32, seed=0)
        for step in range(2):
            drawn = [draw(32 * step + k) for k in range(32)]
            batch, captions = tiny_clip_vit.collate(drawn), [taught.caption for taught, _ in drawn]
            assert set(asked) <= {4, 2}, "the teacher sees whole groups"
            assert_close(torch.stack([batch.text, batch.teacher], 1), teach(batch.images, captions))
            asked.clear()

    def test_large_sizes_are_seen_in_large_pictures(self) -> None:
        pools: list[Pool[Any]] = [Pool(partial(repeat_side, side), 3, fresh=1) for side in (128, 256)]
        draw = tiny_clip_vit._Draw(pools[0], pools[1], batch=1, seed=0)
        drawn: list[Any] = [draw(number) for number in range(200)]
        assert {size for _, size in drawn} == set(tiny_clip_vit._SIZES)
        assert all(side == (256 if size > 160 else 128) for side, size in drawn)
        assert drawn[3][1] == int(make_rng("step", 0, 3).choice(tiny_clip_vit._SIZES, p=tiny_clip_vit._SIZE_ODDS))

    def test_the_teacher_is_asked_for_whole_pictures_and_the_frozen_text_tower_for_captions(self) -> None:
        model, tokenizer = build_model(find_bundled(TEACHER))
        clip = Clip(find_bundled(TEACHER))
        images, captions = captioned(3)
        text, teacher = tiny_clip_vit._teach(clip, model, tokenizer, images, captions).unbind(1)
        assert_close(teacher, clip.encode_image([Image(i.numpy()) for i in images]), depth="network")
        assert_close(text, F.normalize(clip._encoded(captions), dim=-1), depth="network")
        assert not text.requires_grad and not teacher.is_inference()


@drawing
def test_a_few_steps_write_a_clip_that_shares_the_teachers_text_space(tmp_path: Path) -> None:
    figures = fit_tiny_clip_vit(
        tmp_path,
        Budget(samples=24, batch=8, lr=1e-3),
        pool_size=20,
        exam_size=5,
        calibration_size=2,
        say=quiet,
    )
    assert {"zero-shot top-1", "multi-label mAP over scenes", "dense mIoU, present classes"} <= set(figures)
    assert all(0 <= v <= 1 for v in figures.values())

    clip, teacher = Clip(tmp_path), Clip(find_bundled(TEACHER))
    assert clip.card.tier == "S1" and TEACHER in clip.card.trained_on and clip.card.kind == "clip"
    assert figures.items() <= clip.card.figures.items() and clip.card.figures["training samples"] == 24
    assert clip.settings["dense"] in clip.paths and clip.settings["dense_side"] == 256 and clip.side == 128
    names = Vocabulary.of(list(CATEGORIES.values()))
    assert torch.equal(clip.encode_text(names), teacher.encode_text(names)) and clip.dimension == teacher.dimension
    theirs, ours = text_weights(find_bundled(TEACHER)), text_weights(tmp_path)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert (tmp_path / WEIGHTS).stat().st_size < 8e6
    scene = next(World().draw_scenes(1, 0, "plain", 256))
    [cells] = clip.encode_dense([Image(scene.image)])
    assert cells.values.shape == (128, 16, 16)
    presence = clip.score_presence(clip.encode_image([Image(scene.image)])[0], cells, clip.encode_text(names))
    assert presence.shape == (65,) and torch.isfinite(presence).all()


@drawing
def test_steps_lower_the_loss_and_leave_the_text_tower_alone(tmp_path: Path) -> None:
    model, tokenizer = build_model(find_bundled(TEACHER))
    frozen = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("visual.")}
    teach = tiny_clip_vit._teach
    images, captions = captioned(8)
    _, answer = teach(Clip(find_bundled(TEACHER)), model, tokenizer, images, captions).unbind(1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(4):
        loss = compute_distillation_loss(encode_image(model, prepare_images(images, 96)), answer)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in frozen.items())


@drawing
def test_the_card_names_the_path_that_reads_scenes_best(tmp_path: Path) -> None:
    model, tokenizer = build_model(find_bundled(TEACHER))
    scenes = list(World().draw_scenes(2, 3, "mixed"))
    write_tiny_clip_vit(model, tokenizer, {}, tmp_path, scenes, exam_size=2)
    clip = Clip(tmp_path)
    scores = {path: measure_dense_iou(Clip(tmp_path, use={"dense": path}), scenes) for path in clip.paths}
    assert scores[clip.settings["dense"]] == max(scores.values())
    assert clip.settings["dense"] == find_best_path(tmp_path, scenes)


def test_tokens_of_all_names_are_known_to_the_shared_vocabulary() -> None:
    _, tokenizer = build_model(find_bundled(TEACHER))
    assert isinstance(tokenizer, Tokenizer) and not any(map(tokenizer.is_unknown, [*CATEGORIES.values(), "background"]))


def test_the_bundled_model_holds_what_its_recipe_expects_and_shares_the_teachers_words() -> None:
    folder = find_bundled("tiny-clip-vit")
    clip, teacher = Clip(folder), Clip(find_bundled(TEACHER))
    recipe = ModelRecipe.read(Path(__file__).parents[2] / "recipes" / "emoji" / "tiny-clip-vit.toml")
    measured = {name: 100 * clip.card.figures[name] for name in recipe.expected}
    assert measured == pytest.approx(dict(recipe.expected), abs=0.06)  # written with one digit after the point
    names = Vocabulary.of(list(CATEGORIES.values()))
    assert torch.equal(clip.encode_text(names), teacher.encode_text(names))


@drawing
def test_the_bundled_model_names_single_objects() -> None:
    clip = Clip(find_bundled("tiny-clip-vit"))
    scenes = [s for s in World().draw_scenes(24, 31, "single", 128) if s.objects]
    found = (
        clip.encode_image([Image(s.image) for s in scenes]) @ clip.encode_text(Vocabulary.of(list(CATEGORIES.values()))).T
    ).argmax(1)
    truth = torch.tensor([list(CATEGORIES).index(s.objects[0].category_id) for s in scenes])
    assert float((found == truth).float().mean()) > 0.7
