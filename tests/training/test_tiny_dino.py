"""The losses against slow twins, what is read in training against Dino, a training of seconds, and the exam of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.support.drawing import drawing
from torch import Tensor
from torch.nn import functional as F

from annofree.datasets.emoji.world import Scene, SceneObject
from annofree.features.dino import Dino
from annofree.hub.cards import Card
from annofree.structures import FeatureMap, Image
from annofree.testing.tolerances import assert_close
from annofree.training.augment.dino_views import Paster
from annofree.training.augment.photometric import PhotometricChange
from annofree.training.losses.dino_loss import (
    compute_attention_loss,
    compute_ground_cosines,
    compute_ground_loss,
    compute_match_loss,
)
from annofree.training.tiny import dino as tiny_dino
from annofree.training.tiny.dino import BUDGET, build_model, fit_tiny_dino, write_tiny_dino
from annofree.training.tiny.evaluate_saliency import label_patches, measure_purity, write_untrained


def quiet(_: str) -> None:
    """Say nothing."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_ground_cosines(keys: Tensor, ground: Tensor) -> npt.NDArray[np.float64]:
    units = keys.double().numpy() / np.linalg.norm(keys.double().numpy(), axis=2, keepdims=True)
    mean = np.sum([units[b, n] for b, n in np.ndindex(*ground.shape) if ground[b, n] > 0.95], 0)
    return np.array([[unit @ mean / np.linalg.norm(mean) for unit in view] for view in units])


def test_the_ground_is_what_points_as_bare_patches_do() -> None:
    keys, ground = noise(3, 5, 4), torch.tensor([[1.0, 0.97, 0.4, 0.0, 0.9]] * 3)
    cosines = slow_ground_cosines(keys, ground)
    assert_close(compute_ground_cosines(keys, ground), cosines)
    likely = 1 / (1 + np.exp(-8 * cosines))
    expected = -np.mean(ground.numpy() * np.log(likely) + (1 - ground.numpy()) * np.log(1 - likely))
    assert_close(compute_ground_loss(keys, ground), float(expected))


def test_attention_belongs_on_what_was_pasted() -> None:
    attention, ground = noise(3, 2, 4).softmax(2) * 0.8, torch.tensor([[1.0, 0.0, 0.5, 1.0], [0.0] * 4, [1.0, 1.0, 1.0, 0.6]])
    shares = [sum(a * (1 - g) for a, g in zip(row, ground[b], strict=True)) / sum(row) for b in (0, 1) for row in attention[b]]
    expected = -np.mean([np.log(float(share)) for share in shares])  # on the third view too little was pasted
    assert_close(compute_attention_loss(attention, ground), float(expected))
    assert float(compute_attention_loss(torch.tensor([[[0.0, 0.7, 0.0, 0.0]]]), ground[:1])) == 0.0


def test_a_match_is_sought_among_other_pictures_both_ways() -> None:
    here, there, images = noise(5, 4), noise(5, 4, seed=1), [0, 0, 1, 2, 2]
    cosine = [[float(F.cosine_similarity(h, t, dim=0)) / 0.1 for t in there] for h in here]
    losses = []
    for i in range(5):
        rivals = [j for j in range(5) if j == i or images[j] != images[i]]
        both = [cosine[i][j] for j in rivals], [cosine[j][i] for j in rivals]
        losses += [np.log(np.exp(row).sum()) - cosine[i][i] for row in both]
    assert_close(compute_match_loss(here, there, torch.tensor(images)), float(np.mean(losses)))


def written(model: torch.nn.Module, out: Path) -> Dino:
    write_tiny_dino(cast(Any, model), {}, out)
    return Dino(out, side=64)


def test_training_reads_what_methods_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_dino, "evaluate_dino", lambda *_: {})
    model = build_model(1).eval()
    dino = written(model, tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        keys, attention = tiny_dino._Reader(model).read(torch.tensor(pixels).permute(0, 3, 1, 2) / 255)
    for image, own_keys, own_attention in zip(pixels, keys, attention, strict=True):
        [(found, looked)] = dino.extract_keys_and_attention([Image(image)])
        assert_close(own_keys, found.values.flatten(1).T, dtype=torch.bfloat16, depth="network")
        even = 1 / own_attention.shape[1]  # what each patch would get
        assert_close(own_attention / even, looked.values.flatten(1) / even, dtype=torch.bfloat16, depth="network")


def test_patches_of_two_views_are_matched_where_they_are_the_same_spot() -> None:
    ground = torch.zeros(2, 16)
    ground[:, :8] = 1
    keys = noise(2, 16, 6)
    centers = F.affine_grid(torch.eye(2, 3)[None], [1, 1, 4, 4], align_corners=False).reshape(1, -1, 2)
    places = (centers * torch.tensor([-1.0, 1.0])).repeat(2, 1, 1)  # the second view is mirrored, then a row leaves it
    mirrored = keys.view(2, 4, 4, 6).flip(2).reshape(2, 16, 6)
    images = torch.tensor([0] * 8 + [1] * 8)
    expected = compute_match_loss(keys[:, 8:].flatten(0, 1), keys[:, 8:].flatten(0, 1), images)
    assert_close(tiny_dino._matched(keys, mirrored, places, ground), expected)
    places[:, 12:] += 1
    expected = compute_match_loss(keys[:, 8:12].flatten(0, 1), keys[:, 8:12].flatten(0, 1), images[::2])
    assert_close(tiny_dino._matched(keys, mirrored, places, ground), expected)


def test_attention_goes_to_what_is_pasted_after_some_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calm windows are dark and busy ones bright."""
    monkeypatch.setattr(tiny_dino, "MODEL", tiny_dino.MODEL | {"depth": 1})
    generator = torch.Generator().manual_seed(0)
    images = torch.full((8, 3, 128, 128), 20, dtype=torch.uint8)
    images[:, :, :, 64:] = torch.randint(150, 255, (8, 3, 128, 64), generator=generator, dtype=torch.uint8)
    paster, reader = Paster(images, generator), tiny_dino._Reader(build_model(0))
    watched = paster.paste_pairs(8, 64)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3)
    before = tiny_dino._progress(reader, watched, "cpu")
    for _ in range(10):
        optimizer.zero_grad()
        losses = tiny_dino._losses_of(
            reader, [0], views=lambda _: paster.paste_pairs(4, 64), light=PhotometricChange(generator), device="cpu"
        )
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()
    after = tiny_dino._progress(reader, watched, "cpu")
    assert before["attention to pasted"] < 0.3 and after["attention to pasted"] > 0.8
    assert after["told apart"] > 0.95


def test_what_is_written_is_what_was_trained_at_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_dino, "evaluate_dino", lambda *_: {"exam": 0.5})
    model = build_model(1).eval()
    write_tiny_dino(model, {"samples": 3, "minutes": 0.1, "loss": 2.0}, tmp_path)
    card = Card.read(tmp_path)
    assert (card.tier, card.kind, card.figures["training samples"], card.figures["exam"]) == ("S0", "dino", 3, 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    read = Dino(tmp_path, side=96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (tiny_dino.MEAN, tiny_dino.STD))
    with torch.no_grad():
        expected = model.forward_features(((torch.tensor(pixels).permute(2, 0, 1) / 255 - mean) / std)[None])[0, 1:]
    [found] = read.extract_tokens([Image(pixels)])
    assert_close(found.values.flatten(1).T, expected, dtype=torch.float16, depth="network")  # as weights are written


def test_an_untrained_twin_has_the_same_shape_and_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_dino, "evaluate_dino", lambda *_: {})
    write_tiny_dino(build_model(1), {}, tmp_path / "a")
    twin, other = write_untrained(tmp_path / "a", tmp_path / "b"), Dino(tmp_path / "a")
    image = [Image(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))]
    [ours], [theirs] = Dino(twin).extract_keys(image), other.extract_keys(image)
    assert ours.values.shape == theirs.values.shape and not torch.allclose(ours.values, theirs.values, atol=0.05)
    assert Card.read(twin).name == "untrained-dino" and Card.read(twin).figures == {}


@drawing
def test_a_training_of_seconds_writes_a_model_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_dino, "_VIEW", 32)
    said: list[str] = []
    budget = replace(BUDGET, samples=24, batch=8)
    figures = fit_tiny_dino(tmp_path, budget, pool_size=12, exam_size=3, say=said.append)
    assert set(figures) == {"nearest patch of the same class", "nearest patch of the same class, random weights"}
    assert Card.read(tmp_path).figures["training samples"] == 24
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]
    [keys] = Dino(tmp_path).extract_keys([Image(np.zeros((64, 64, 3), np.uint8))])
    assert keys.values.shape == (128, 16, 16)
    projection = "blocks.3.attn.qkv.weight"
    assert not torch.equal(state[f"model.{projection}"][128:256], build_model().state_dict()[projection][128:256])
    assert "told apart" in said[-1]


class OfClasses:
    """Keys that are the class of the pixel in the middle of each patch of 8 px, read from the image's red channel."""

    heads, patch = 1, 8
    provenance: dict[str, Any] = {}  # noqa: RUF012

    def extract_keys(self, images: Sequence[Image]) -> list[FeatureMap]:
        grids = [torch.tensor(i.pixels[4::8, 4::8, 0].astype(np.int64)) for i in images]
        return [FeatureMap(F.one_hot(g, 256).permute(2, 0, 1).float(), i.size) for g, i in zip(grids, images, strict=True)]

    def extract_attention(self, images: Sequence[Image]) -> list[FeatureMap]:
        return self.extract_keys(images)

    def extract_keys_and_attention(self, images: Sequence[Image]) -> list[tuple[FeatureMap, FeatureMap]]:
        return list(zip(self.extract_keys(images), self.extract_attention(images), strict=True))


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
    found = label_patches(scene(layout, (18, 17)), (3, 2)).reshape(3, 2)
    for y, x in np.ndindex(3, 2):
        counts = np.bincount(layout[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].ravel(), minlength=3)
        expected = (0, 18, 17)[counts.argmax()] if counts.max() >= 48 else -1
        assert found[y, x] == expected
    assert -1 in found and 18 in found


def test_objects_of_one_class_share_their_name() -> None:
    layout = np.zeros((8, 8), np.uint8)
    layout[:4], layout[4:] = 1, 2
    assert label_patches(scene(layout, (18, 18)), (1, 1)).tolist() == [18]


def test_purity_of_keys_that_are_the_class_and_of_keys_that_are_not() -> None:
    known = [scene(layout, (18, 17)) for layout in layouts(4, 0)]
    assert measure_purity(OfClasses(), known) == 1.0
    lonely = [scene(layout, (18 + k, 40 + k)) for k, layout in enumerate(layouts(4, 0))]
    assert measure_purity(OfClasses(), lonely) == 0.0, "the same class is in no other scene"
