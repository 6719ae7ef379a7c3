"""The tiny CLIP ViT: its losses, its frozen text tower, what the teacher's answers belong to, and a training of seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file
from tests.drawing import drawing
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from annofree.apps.cli.commands.train_tiny_clip_vit import tiny_clip_vit as command
from annofree.datasets.emoji.world import CATEGORIES, World
from annofree.errors import MissingError
from annofree.features.clip import Clip
from annofree.features.clip_network import WEIGHTS
from annofree.features.tokenizer import Tokenizer
from annofree.hub.cards import bundled
from annofree.structures import Image, Vocabulary
from annofree.testing.tolerances import assert_close
from annofree.training.tiny import clip_vit as tiny_clip_vit
from annofree.training.tiny.clip import Pool, prepared
from annofree.training.tiny.clip_vit import (
    BUDGET,
    MODEL,
    TEACHER,
    best_path,
    distillation_loss,
    encode_image,
    new_model,
    train_tiny_clip_vit,
    write_tiny_clip_vit,
)
from annofree.training.tiny.evaluate import ModelRecipe, dense_iou
from annofree.training.tiny.loop import Budget


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
        assert_close(distillation_loss(student, teacher), float(np.mean(expected)))

    def test_it_is_nothing_for_the_same_and_two_for_the_opposite(self) -> None:
        student = unit(5, 8, seed=0)
        assert_close(distillation_loss(student, student), 0)
        assert_close(distillation_loss(student, -student), 2)

    def test_it_pulls_towards_the_teacher(self) -> None:
        raw, teacher = unit(1, 8, seed=0).requires_grad_(), unit(1, 8, seed=1)
        before = distillation_loss(F.normalize(raw, dim=-1), teacher)
        before.backward()  # type: ignore[no-untyped-call]
        assert raw.grad is not None
        after = distillation_loss(F.normalize(raw.detach() - 0.1 * raw.grad, dim=-1), teacher)
        assert float(after) < float(before.detach())


class TestNewModel:
    def test_all_but_the_image_tower_is_the_teachers_and_frozen(self) -> None:
        model, tokenizer = new_model(bundled(TEACHER))
        frozen = text_weights(bundled(TEACHER))
        state = model.state_dict()
        assert all(torch.equal(state[k], v.float()) for k, v in frozen.items())
        assert {k for k in state if not k.startswith("visual.")} == frozen.keys()
        assert all(p.requires_grad == name.startswith("visual.") for name, p in model.named_parameters())
        assert list(tokenizer.vocabulary or ()) == json.loads((bundled(TEACHER) / "vocabulary.json").read_text())

    def test_the_pooled_feature_is_open_clips(self) -> None:
        model, _ = new_model(bundled(TEACHER))
        x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model.eval().encode_image(x, normalize=True)
            assert_close(encode_image(model, x), expected, depth="network")
        assert expected.shape == (2, MODEL["embed_dim"])

    def test_another_teachers_text_tower_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        other = MODEL | {"text_cfg": MODEL["text_cfg"] | {"layers": 1}}
        monkeypatch.setattr(tiny_clip_vit, "MODEL", other)
        with pytest.raises(RuntimeError, match=r"resblocks\.1"):
            new_model(bundled(TEACHER))


def test_without_a_font_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annofree.datasets.emoji.world._FONTS", ())
    with pytest.raises(MissingError, match="fonts-noto-color-emoji"):
        train_tiny_clip_vit(tmp_path / "out", say=quiet)
    assert not (tmp_path / "out").exists()


@drawing
class TestLessons:
    def test_answers_stay_with_their_pictures_while_the_oldest_are_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tiny_clip_vit, "_AT_ONCE", 4)

        def teach(images: Tensor, captions: list[str]) -> Tensor:
            """Something that tells pictures and captions apart."""
            seen, read = (
                images.float().mean((1, 2)),
                torch.tensor([[float(len(c)), float(hash(c) % 97), 0.0] for c in captions]),
            )
            return torch.stack([read, seen], 1)

        lessons = tiny_clip_vit._Lessons.prepare(Pool.render(World(), 10, 0, quiet, side=32), teach)
        before = lessons.pool.images.copy()
        for count in (3, 3, 3, 3):  # the second and the fourth fill a batch of at least four: twelve pictures, past the end
            lessons.refresh(count)
        changed = [not np.array_equal(a, b) for a, b in zip(lessons.pool.images, before, strict=True)]
        assert all(changed) and lessons.pool.next == 2
        assert_close(lessons.answers, teach(*lessons.pool.at(np.arange(10))))
        images, captions, text, teacher = lessons.draw(7)
        assert_close(torch.stack([text, teacher], 1), teach(images, captions))

    def test_the_teacher_is_asked_for_whole_pictures_and_the_frozen_text_tower_for_captions(self) -> None:
        model, tokenizer = new_model(bundled(TEACHER))
        clip = Clip(bundled(TEACHER))
        images, captions = Pool.render(World(), 3, 0, quiet).at(np.arange(3))
        text, teacher = tiny_clip_vit._teach(clip, model, tokenizer, images, captions).unbind(1)
        assert_close(teacher, clip.whole([Image(i.numpy()) for i in images]), depth="network")
        assert_close(text, F.normalize(clip._encoded(captions), dim=-1), depth="network")
        assert not text.requires_grad and not teacher.is_inference()


@drawing
def test_a_few_steps_write_a_clip_that_shares_the_teachers_text_space(tmp_path: Path) -> None:
    figures = train_tiny_clip_vit(
        tmp_path,
        Budget(samples=24, minutes=600, batch=8, lr=1e-3),
        pool_size=20,
        exam_size=5,
        calibration_size=2,
        say=quiet,
    )
    assert {"zero-shot top-1", "multi-label mAP over scenes", "dense mIoU, present classes"} <= set(figures)
    assert all(0 <= v <= 1 for v in figures.values())

    clip, teacher = Clip(tmp_path), Clip(bundled(TEACHER))
    assert clip.card.tier == "S1" and TEACHER in clip.card.trained_on and clip.card.kind == "clip"
    assert figures.items() <= clip.card.figures.items() and clip.card.figures["training samples"] == 24
    assert clip.settings["dense"] in clip.paths and clip.settings["dense_side"] == 256 and clip.side == 128
    names = Vocabulary.of(list(CATEGORIES.values()))
    assert torch.equal(clip.words(names), teacher.words(names)) and clip.dimension == teacher.dimension
    theirs, ours = text_weights(bundled(TEACHER)), text_weights(tmp_path)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert (tmp_path / WEIGHTS).stat().st_size < 8e6
    scene = next(World().scenes(1, 0, "plain", 256))
    [cells] = clip.dense([Image(scene.image)])
    assert cells.values.shape == (128, 16, 16)
    presence = clip.presence(clip.whole([Image(scene.image)])[0], cells, clip.words(names))
    assert presence.shape == (65,) and torch.isfinite(presence).all()


@drawing
def test_steps_lower_the_loss_and_leave_the_text_tower_alone(tmp_path: Path) -> None:
    model, tokenizer = new_model(bundled(TEACHER))
    frozen = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("visual.")}
    teach = tiny_clip_vit._teach
    images, captions = Pool.render(World(), 8, 0, quiet).at(np.arange(8))
    _, answer = teach(Clip(bundled(TEACHER)), model, tokenizer, images, captions).unbind(1)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(4):
        loss = distillation_loss(encode_image(model, prepared(images, 96)), answer)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in frozen.items())


@drawing
def test_the_card_names_the_path_that_reads_scenes_best(tmp_path: Path) -> None:
    model, tokenizer = new_model(bundled(TEACHER))
    scenes = list(World().scenes(2, 3, "mixed"))
    write_tiny_clip_vit(model, tokenizer, {}, tmp_path, scenes, exam_size=2)
    clip = Clip(tmp_path)
    scores = {path: dense_iou(Clip(tmp_path, use={"dense": path}), scenes) for path in clip.paths}
    assert scores[clip.settings["dense"]] == max(scores.values())
    assert clip.settings["dense"] == best_path(tmp_path, scenes)


def test_the_command_passes_on_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def train(out: Path, budget: Budget, **others: Any) -> dict[str, float]:
        asked.update(out=out, budget=budget, **others)
        return {"zero-shot top-1": 0.5}

    monkeypatch.setattr(tiny_clip_vit, "train_tiny_clip_vit", train)
    app = typer.Typer()
    app.command()(command)
    arguments = ["--out", str(tmp_path), "--minutes", "0.5", "--pool", "40", "--seed", "3"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert asked["out"] == tmp_path and asked["seed"] == 3 and asked["pool_size"] == 40 and asked["device"] == "cpu"
    assert asked["budget"] == Budget(BUDGET.samples, 0.5, BUDGET.batch, BUDGET.lr)
    assert "zero-shot top-1 0.5" in done.output


def test_tokens_of_all_names_are_known_to_the_shared_vocabulary() -> None:
    _, tokenizer = new_model(bundled(TEACHER))
    assert isinstance(tokenizer, Tokenizer) and not any(map(tokenizer.unknown, [*CATEGORIES.values(), "background"]))


def test_the_bundled_model_holds_what_its_recipe_expects_and_shares_the_teachers_words() -> None:
    folder = bundled("tiny-clip-vit")
    clip, teacher = Clip(folder), Clip(bundled(TEACHER))
    recipe = ModelRecipe.read(Path(__file__).parents[2] / "recipes" / "emoji" / "tiny-clip-vit.toml")
    measured = {name: 100 * clip.card.figures[name] for name in recipe.expected}
    assert measured == pytest.approx(dict(recipe.expected), abs=0.06)  # written with one digit after the point
    names = Vocabulary.of(list(CATEGORIES.values()))
    assert torch.equal(clip.words(names), teacher.words(names))


@drawing
def test_the_bundled_model_names_single_objects() -> None:
    clip = Clip(bundled("tiny-clip-vit"))
    scenes = [s for s in World().scenes(24, 31, "single", 128) if s.objects]
    found = (clip.whole([Image(s.image) for s in scenes]) @ clip.words(Vocabulary.of(list(CATEGORIES.values()))).T).argmax(1)
    truth = torch.tensor([list(CATEGORIES).index(s.objects[0].category_id) for s in scenes])
    assert float((found == truth).float().mean()) > 0.7
