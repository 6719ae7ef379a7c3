"""FOUND, its untrained seed and TokenCut's map, against slow twins on made-up keys and on the paper world."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError, MissingError
from annofree.features.saliency import FoundBackground, FoundObjectness, TokenCutMap, find_background_patches, read_found_head
from annofree.protocols import Objectness, SelfSupervised
from annofree.structures import FeatureMap, FloatArray, Image
from annofree.testing.fakes import FakeDino
from annofree.testing.paper_world import draw_paper_scenes
from annofree.testing.tolerances import assert_close


class Noise:
    """Keys (12, h, w) and attention (3, h, w) of patches of 4 px at random, the image padded to whole ones."""

    heads, patch = 3, 4
    provenance: dict[str, Any] = {"name": "noise"}  # noqa: RUF012

    def extract_keys(self, images: Sequence[Image]) -> list[FeatureMap]:
        return [self._map(i, 12, 0) for i in images]

    def extract_attention(self, images: Sequence[Image]) -> list[FeatureMap]:
        maps = [self._map(i, 3, 1) for i in images]
        return [FeatureMap(m.values.flatten(1).softmax(1).view(m.values.shape), m.size, m.window) for m in maps]

    def extract_keys_and_attention(self, images: Sequence[Image]) -> list[tuple[FeatureMap, FeatureMap]]:
        return list(zip(self.extract_keys(images), self.extract_attention(images), strict=True))

    def _map(self, image: Image, channels: int, seed: int) -> FeatureMap:
        h, w = (-(-n // 4) for n in image.size)
        values = torch.randn(channels, h, w, generator=torch.Generator().manual_seed(seed))
        return FeatureMap(values, image.size, (4 * h, 4 * w))


IMAGE = Image(np.zeros((18, 27, 3), np.uint8))


def slowly(patches: FloatArray, patch: int, size: tuple[int, int]) -> FloatArray:
    """Enlarge a map by ``patch``, bilinear, one pixel at a time, and crop it."""
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = (max((v + 0.5) / patch - 0.5, 0) for v in (i, j))
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, patches.shape[0] - 1), min(x0 + 1, patches.shape[1] - 1)
            top = patches[y0, x0] * (1 - x + x0) + patches[y0, x1] * (x - x0)
            low = patches[y1, x0] * (1 - x + x0) + patches[y1, x1] * (x - x0)
            out[i, j] = top * (1 - y + y0) + low * (y - y0)
    return np.asarray(out, np.float32)


def head(folder: Path, channels: int = 12) -> Path:
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(1, channels, 1, 1, generator=generator)
    save_file({"decoder.weight": weight, "decoder.bias": torch.tensor([0.25])}, folder / "head.safetensors")
    return folder / "head.safetensors"


def test_found_is_a_sum_over_keys_enlarged_and_squashed(tmp_path: Path) -> None:
    weight, bias = read_found_head(head(tmp_path))
    keys = Noise().extract_keys([IMAGE])[0].values
    logits = np.zeros(keys.shape[1:], np.float32)
    for y, x in np.ndindex(*logits.shape):
        logits[y, x] = sum(float(k * w) for k, w in zip(keys[:, y, x], weight, strict=True)) + float(bias)
    expected = 1 / (1 + np.exp(-slowly(logits, 4, IMAGE.size)))
    (found,) = FoundObjectness(Noise(), head(tmp_path)).predict_maps([IMAGE])
    assert_close(found, expected)


@pytest.mark.parametrize("style", ["flat", "bare", "nested"])
def test_a_head_is_read_from_torch_s_files_too(tmp_path: Path, style: str) -> None:
    bare = {"weight": torch.ones(1, 5, 1, 1), "bias": torch.tensor([0.5])}
    state = {"flat": {f"decoder.{k}": v for k, v in bare.items()}, "bare": bare, "nested": {"decoder": bare}}[style]
    torch.save(state, tmp_path / "decoder_weights.pt")
    weight, bias = read_found_head(tmp_path / "decoder_weights.pt")
    assert weight.tolist() == [1.0] * 5 and bias == 0.5


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="fetch it first"):
        read_found_head(tmp_path / "none.pt")
    for state in ({}, {"weight": torch.ones(2, 5, 1, 1), "bias": torch.ones(1)}, {"weight": torch.ones(1, 5, 1, 1)}):
        torch.save(state, tmp_path / "other.pt")
        with pytest.raises(InputError, match=r"expected decoder\.weight \(1, D, 1, 1\)"):
            read_found_head(tmp_path / "other.pt")
    with pytest.raises(InputError, match="reads 9 channels, got 12"):
        FoundObjectness(Noise(), head(tmp_path, 9)).predict_maps([IMAGE])


def test_found_s_seed_is_that_of_the_slow_twin() -> None:
    keys, attention = Noise().extract_keys([IMAGE])[0].values, Noise().extract_attention([IMAGE])[0].values
    heads, patches = 3, keys[0].numel()
    seen = [attention[h].flatten().tolist() for h in range(heads)]
    mean = sum(sum(row) for row in seen) / (heads * patches)
    share = [sum(value > mean for value in row) / patches for row in seen]
    beta = [math.log(sum(q + 1e-10 for q in share) / (q + 1e-10)) for q in share]
    sums = [sum(beta[h] * seen[h][p] for h in range(heads)) for p in range(patches)]
    seed = min(range(patches), key=sums.__getitem__)
    flat = keys.flatten(1)
    described = [torch.cat([beta[h] * flat[4 * h : 4 * h + 4, p] for h in range(heads)]) for p in range(patches)]
    expected = [float(F.cosine_similarity(described[seed], d, dim=0)) > 0.3 for d in described]
    found = find_background_patches(keys, attention)
    # no cosine is within 0.006 of tau, nor the seed's sum within 0.006 of the next, nor an attention within 2 % of the mean
    assert found.flatten().tolist() == expected
    (drawn,) = FoundBackground(Noise()).predict_maps([IMAGE])
    things = 1 - found.numpy().astype(np.float32)
    assert_close(drawn, slowly(things, 4, IMAGE.size))


def sources(folder: Path) -> list[Objectness]:
    paint = torch.tensor([1.0] * 6 + [-1.0]).repeat(2).view(1, 14, 1, 1)
    save_file({"decoder.weight": paint, "decoder.bias": torch.zeros(1)}, folder / "paint.safetensors")
    dino: SelfSupervised = FakeDino()
    return [FoundObjectness(dino, folder / "paint.safetensors"), FoundBackground(dino), TokenCutMap(dino)]


@pytest.mark.parametrize("number", range(3))
def test_objects_of_the_paper_world_are_things(tmp_path: Path, number: int) -> None:
    source, worlds = (
        sources(tmp_path)[number],
        [s for s in draw_paper_scenes() if s.image.id in ("one", "touching", "ell", "off-grid")],
    )
    for scene, found in zip(worlds, source.predict_maps([s.image for s in worlds]), strict=True):
        truth = scene.masks.any(0)
        assert found.shape == scene.image.size and found.min() >= 0 and found.max() <= 1
        thing = found.numpy() > 0.5
        assert (thing & truth).sum() / (thing | truth).sum() > 0.8, scene.image.id


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (9, 7)])
def test_any_size(tmp_path: Path, number: int, size: tuple[int, int]) -> None:
    image = Image(np.full((*size, 3), 128, np.uint8))
    (found,) = sources(tmp_path)[number].predict_maps([image])
    assert found.shape == size and not torch.isnan(found).any()
    assert (found < 0.5).all()


def test_batches_and_provenance(tmp_path: Path) -> None:
    images = [s.image for s in draw_paper_scenes()]
    for source, name in zip(sources(tmp_path), ("found", "found-bkg", "tokencut"), strict=True):
        alone: list[Tensor] = [source.predict_maps([i])[0] for i in images]
        # images are looked at one by one
        assert all(torch.equal(a, b) for a, b in zip(source.predict_maps(images), alone, strict=True))
        assert source.predict_maps([]) == []
        assert source.provenance["objectness"] == name and source.provenance["dino"]["name"] == "fake-dino"
    assert len(FoundObjectness(FakeDino(), tmp_path / "paint.safetensors").provenance["head"]["sha256"]) == 64
