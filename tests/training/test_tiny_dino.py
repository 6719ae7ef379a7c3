"""The DINO and iBOT losses against slow twins, the augmentation, a training of seconds, and the exam of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.datasets.emoji_world import Scene, SceneObject, find_font
from annofree.errors import MissingError
from annofree.features.dino import Dino
from annofree.features.weights import Card
from annofree.structures import FeatureMap, Image
from annofree.training import tiny_dino
from annofree.training.dino_loss import STUDENT_TEMPERATURE, Head, across_views, cross_entropy, moved, targets
from annofree.training.exams_saliency import patch_names, purity, write_untrained
from annofree.training.tiny_dino import BUDGET, MODEL, new_model, train_tiny_dino, write_tiny_dino


def has_font() -> bool:
    try:
        find_font()
    except MissingError:
        return False
    return True


drawing = pytest.mark.skipif(not has_font(), reason="draws scenes: needs the Noto Color Emoji font")


def quiet(_: str) -> None:
    """Say nothing."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax(row: list[float]) -> list[float]:
    high = max(row)
    powers = [np.exp(v - high) for v in row]
    return [float(p / sum(powers)) for p in powers]


def slow_entropy(student: Tensor, teacher: Tensor) -> float:
    guess = softmax([v / STUDENT_TEMPERATURE for v in student.tolist()])
    return float(-sum(t * np.log(g) for t, g in zip(teacher.tolist(), guess, strict=True)))


def test_the_loss_across_views_is_a_mean_over_pairs_of_different_views() -> None:
    student, teacher = noise(5, 3, 7) * 0.3, noise(2, 3, 7, seed=1).softmax(-1)
    expected = [slow_entropy(student[v, b], teacher[g, b]) for g in range(2) for v in range(5) if v != g for b in range(3)]
    assert float(across_views(student, teacher)) == pytest.approx(float(np.mean(expected)), rel=1e-5)


def test_the_loss_of_patches_is_a_cross_entropy_each() -> None:
    student, teacher = noise(4, 7) * 0.3, noise(4, 7, seed=1).softmax(-1)
    expected = [slow_entropy(s, t) for s, t in zip(student, teacher, strict=True)]
    np.testing.assert_allclose(cross_entropy(student, teacher).numpy(), expected, rtol=1e-5)


def test_targets_are_balanced_by_turns() -> None:
    logits = noise(6, 5) * 0.1
    shares = [[float(np.exp(v / 0.05)) for v in row] for row in logits.tolist()]
    for _ in range(3):
        columns = [sum(row[k] for row in shares) for k in range(5)]
        shares = [[v / c / 5 for v, c in zip(row, columns, strict=True)] for row in shares]
        shares = [[v / sum(row) / 6 for v in row] for row in shares]
    found = targets(logits, 0.05)
    np.testing.assert_allclose(found.numpy(), 6 * np.array(shares), rtol=1e-4)
    np.testing.assert_allclose(found.sum(1).numpy(), 1, rtol=1e-5)


def test_no_prototype_takes_all() -> None:
    logits = noise(8, 4) * 0.05
    logits[:, 2] += 0.9
    assert (targets(logits, 0.04, rounds=50).sum(0) - 2).abs().max() < 0.2
    assert targets(logits, 0.04, rounds=0).div(targets(logits, 0.04, rounds=0).sum(1, keepdim=True))[:, 2].min() > 0.99


def test_targets_survive_logits_at_their_limits() -> None:
    logits = torch.eye(4) * 2 - 1
    found = targets(logits, 0.01)
    torch.testing.assert_close(found, torch.eye(4), atol=1e-4, rtol=0)


def test_a_head_gives_cosines_with_prototypes_which_may_be_frozen() -> None:
    torch.manual_seed(0)
    head = Head(6, 9, hidden=8, bottleneck=4)
    x = noise(5, 6)
    inner, prototypes = head.mlp(x).detach(), head.prototypes.detach()
    np.testing.assert_allclose([inner.mean(0), inner.var(0, correction=0)], [[0] * 4, [1] * 4], atol=1e-5)
    expected = [[float(F.cosine_similarity(i, p, dim=0)) for p in prototypes] for i in inner]
    np.testing.assert_allclose(head(x).detach().numpy(), expected, atol=1e-6)
    torch.autograd.backward(head(x, frozen=True).square().sum())
    assert head.prototypes.grad is None and all(p.grad is not None for p in head.mlp.parameters())
    torch.autograd.backward(head(x).square().sum())
    assert head.prototypes.grad is not None and head.prototypes.grad.abs().sum() > 0


def test_a_teacher_moves_towards_its_student() -> None:
    teacher, student = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = [0.9 * t + 0.1 * s for t, s in zip(teacher.parameters(), student.parameters(), strict=True)]
    moved(teacher, student, 0.9)
    for found, wanted in zip(teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_colours_turn_about_grey() -> None:
    one, zero = torch.ones(1), torch.zeros(1)
    torch.testing.assert_close(tiny_dino._colour_matrices(one, zero)[0], torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(tiny_dino._colour_matrices(zero, one)[0], torch.full((3, 3), 1 / 3))
    turned = tiny_dino._colour_matrices(one * 1.3, one * 0.7)[0]
    torch.testing.assert_close(turned @ torch.ones(3), torch.ones(3))
    third = tiny_dino._colour_matrices(one, one * 2 * np.pi / 3)[0]  # red to green to blue
    torch.testing.assert_close(third, torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), atol=1e-6, rtol=0)


def test_views_come_from_their_picture_and_from_the_generator() -> None:
    augment = tiny_dino._Augment(torch.Generator().manual_seed(3))
    ramp = torch.linspace(0, 1, 32).expand(64, 3, 32, 32)
    crops = augment.cropped(ramp, 16, (0.2, 1.0))
    assert crops.shape == (64, 3, 16, 16) and crops.min() >= 0 and crops.max() <= 1
    slope = (crops[:, 0, 0, -1] - crops[:, 0, 0, 0]).numpy()
    assert 0.3 < (slope < 0).mean() < 0.7, "half of the crops are flipped"
    assert np.ptp(np.abs(slope)) > 0.3, "crops are of several sizes"
    assert (crops[:, :, :, 3] - crops[:, :, :1, 3]).abs().max() < 1e-4, "a crop is upright"
    views = [tiny_dino._Augment(torch.Generator().manual_seed(3)).lit(ramp) for _ in range(2)]
    assert torch.equal(*views) and not torch.equal(augment.lit(ramp), views[0])


def test_clouds_are_added_alike_to_whatever_is_in_a_view() -> None:
    plain = torch.full((40, 3, 32, 32), 0.5)
    shaped = plain.clone()
    shaped[:, :, 8:20, 8:20] += 0.05
    clouded, other = (tiny_dino._Augment(torch.Generator().manual_seed(0)).clouded(x * 0.1 + 0.45) for x in (plain, shaped))
    inside = (clouded > 0) & (clouded < 1) & (other > 0) & (other < 1)
    torch.testing.assert_close((other - clouded)[inside], 0.1 * (shaped - plain)[inside], atol=1e-5, rtol=0)
    reach = (clouded - 0.5).abs().amax((1, 2, 3))
    assert float(reach.max()) <= 0.6 and float(reach.min()) < 0.15 < 0.3 < float(reach.max()), "some are thick, some thin"


def test_half_of_the_views_hide_some_of_their_patches() -> None:
    masks = tiny_dino._Augment(torch.Generator().manual_seed(0)).masks(200, 12)
    share = masks.float().mean((1, 2))
    assert 0.4 < float((share == 0).float().mean()) < 0.6
    assert float(share.max()) <= 0.5 and float(share[share > 0].min()) > 0.08
    pixels = noise(200, 3, 96, 96)
    hidden = tiny_dino._hidden(pixels, masks)
    assert torch.equal((hidden == 0).all(1)[:, ::8, ::8], masks)
    assert torch.equal(hidden[~masks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand_as(hidden)],
                       pixels[~masks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand_as(pixels)])  # fmt: skip


def test_a_step_teaches_the_student_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_dino, "MODEL", MODEL | {"depth": 1})
    pair, augment = tiny_dino._Pair(0), tiny_dino._Augment(torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in pair.teacher.state_dict().items()}
    loss = tiny_dino._step(pair, torch.rand(6, 3, 64, 64), 32, augment, 0.5, "cpu")
    torch.autograd.backward(loss)
    assert float(loss.detach()) == pytest.approx(2 * np.log(512), rel=0.5)
    assert all(p.grad is not None for p in pair.student.parameters())
    assert all(p.grad is None for p in pair.teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in pair.teacher.state_dict().items())
    pair.student.get_parameter("0.norm.weight").data += 1
    tiny_dino._step(pair, torch.rand(6, 3, 64, 64), 32, augment, 0.5, "cpu")
    keep = 1 - (1 - tiny_dino._MOMENTUM) / 2
    torch.testing.assert_close(pair.teacher.get_parameter("0.norm.weight").data, torch.full((128,), 2 - keep))


def test_what_is_written_is_what_was_trained_at_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_dino, "examine_dino", lambda *_: {"exam": 0.5})
    model = new_model(1).eval()
    write_tiny_dino(model, {"samples": 3, "minutes": 0.1, "loss": 2.0}, tmp_path)
    card = Card.read(tmp_path)
    assert (card.tier, card.kind, card.figures["training samples"], card.figures["exam"]) == ("S0", "dino", 3, 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    read = Dino(tmp_path, side=96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (tiny_dino.MEAN, tiny_dino.STD))
    with torch.no_grad():
        expected = model.forward_features(((torch.tensor(pixels).permute(2, 0, 1) / 255 - mean) / std)[None])[0, 1:]
    [found] = read.tokens([Image(pixels)])
    torch.testing.assert_close(found.values.flatten(1).T, expected, atol=2e-2, rtol=0)


def test_an_untrained_twin_has_the_same_shape_and_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_dino, "examine_dino", lambda *_: {})
    write_tiny_dino(new_model(1), {}, tmp_path / "a")
    twin, other = write_untrained(tmp_path / "a", tmp_path / "b"), Dino(tmp_path / "a")
    picture = [Image(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))]
    [ours], [theirs] = Dino(twin).keys(picture), other.keys(picture)
    assert ours.values.shape == theirs.values.shape and not torch.allclose(ours.values, theirs.values, atol=0.05)
    assert Card.read(twin).name == "untrained-dino" and Card.read(twin).figures == {}


@drawing
def test_a_training_of_seconds_writes_a_model_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_dino, "_SIZES", (32, 48))
    said: list[str] = []
    budget = replace(BUDGET, samples=24, batch=8)
    figures = train_tiny_dino(tmp_path, budget, pool_size=12, exam_size=3, say=said.append)
    assert set(figures) == {"nearest patch of the same class", "nearest patch of the same class, random weights"}
    assert Card.read(tmp_path).figures["training samples"] == 24
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]
    [keys] = Dino(tmp_path).keys([Image(np.zeros((64, 64, 3), np.uint8))])
    assert keys.values.shape == (128, 16, 16)
    assert any(not torch.equal(value, state[name.replace("student", "teacher")]) for name, value in state.items())
    assert "undecided" in said[-1]


class OfClasses:
    """Keys that are the class of the pixel in the middle of each patch of 8 px, read from the picture's red channel."""

    heads, patch = 1, 8
    provenance: dict[str, Any] = {}  # noqa: RUF012

    def keys(self, images: Sequence[Image]) -> list[FeatureMap]:
        grids = [torch.tensor(i.pixels[4::8, 4::8, 0].astype(np.int64)) for i in images]
        return [FeatureMap(F.one_hot(g, 256).permute(2, 0, 1).float(), i.size) for g, i in zip(grids, images, strict=True)]

    def attention(self, images: Sequence[Image]) -> list[FeatureMap]:
        return self.keys(images)

    def keys_and_attention(self, images: Sequence[Image]) -> list[tuple[FeatureMap, FeatureMap]]:
        return list(zip(self.keys(images), self.attention(images), strict=True))


def scene(layout: npt.NDArray[np.uint8], ids: tuple[int, ...]) -> Scene:
    image = np.repeat(np.array([0, *ids], np.uint8)[layout][..., None], 3, 2)
    return Scene(image, layout, layout, tuple(SceneObject(i, "", False) for i in ids), "", "plain", "plain")


def layouts(count: int, seed: int) -> list[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [np.kron(rng.integers(0, 3, (4, 4)), np.ones((8, 8))).astype(np.uint8) for _ in range(count)]


def test_patches_are_named_by_their_majority() -> None:
    rng = np.random.default_rng(5)
    layout = rng.choice(3, (24, 16), p=[0.1, 0.8, 0.1]).astype(np.uint8)
    layout[:8] = 0
    layout[8:16, :8][rng.random((8, 8)) < 0.5] = 2
    found = patch_names(scene(layout, (18, 17)), (3, 2)).reshape(3, 2)
    for y, x in np.ndindex(3, 2):
        counts = np.bincount(layout[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].ravel(), minlength=3)
        expected = (0, 18, 17)[counts.argmax()] if counts.max() >= 48 else -1
        assert found[y, x] == expected
    assert -1 in found and 18 in found


def test_objects_of_one_class_share_their_name() -> None:
    layout = np.zeros((8, 8), np.uint8)
    layout[:4], layout[4:] = 1, 2
    assert patch_names(scene(layout, (18, 18)), (1, 1)).tolist() == [18]


def test_purity_of_keys_that_are_the_class_and_of_keys_that_are_not() -> None:
    known = [scene(layout, (18, 17)) for layout in layouts(4, 0)]
    assert purity(OfClasses(), known) == 1.0
    lonely = [scene(layout, (18 + k, 40 + k)) for k, layout in enumerate(layouts(4, 0))]
    assert purity(OfClasses(), lonely) == 0.0, "the same class is in no other scene"
