"""Views are pasted where they say, from the places they say, in other light."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.testing.tolerances import assert_close
from annofree.training.augment import photometric
from annofree.training.augment.dino_views import Paster, find_calmest
from annofree.training.augment.photometric import PhotometricChange


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 6) -> Tensor:
    """A grey that tells the image, and a busy square of 40 px in red."""
    images = torch.zeros(count, 3, 128, 128, dtype=torch.uint8) + torch.arange(10, 10 + count, dtype=torch.uint8).view(
        -1, 1, 1, 1
    )
    images[:, 0, 40:80, 56:96] = torch.randint(0, 256, (count, 40, 40), generator=generator(), dtype=torch.uint8)
    return images


def test_calm_and_busy_windows_are_found() -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (3, 3, 40, 48), dtype=np.uint8))
    for busiest in (False, True):
        found = find_calmest(images, 16, busiest=busiest)
        for image, corner in zip(images.numpy().astype(float), found.tolist(), strict=True):
            gray, best = image.mean(0), {}
            for y in range(0, 25, 8):
                for x in range(0, 33, 8):
                    across = [abs(gray[j, i + 1] - gray[j, i]) for j in range(y, y + 16) for i in range(x, x + 16) if i < 47]
                    down = [abs(gray[j + 1, i] - gray[j, i]) for j in range(y, y + 16) for i in range(x, x + 16) if j < 39]
                    best[y, x] = sum(across) + sum(down)
            # exactly: the sums of windows of noise are whole levels apart
            assert tuple(corner) == (max if busiest else min)(best, key=lambda at: best[at])


def test_views_show_the_ground_where_nothing_is_pasted_and_the_layer_where_it_is() -> None:
    pairs = Paster(pictures(), generator()).paste_pairs(8, 32)
    assert pairs.pixels.shape == (2, 8, 3, 32, 32) and pairs.pasted.shape == (2, 8, 32, 32)
    assert float(pairs.pixels.min()) >= 0 and float(pairs.pixels.max()) <= 1
    red = pairs.pixels[:, :, 0] - pairs.pixels[:, :, 1]
    bare = F.max_pool2d(pairs.pasted, 9, 1, 4) == 0  # nor in a shadow
    gray = pairs.pixels[:, :, 1] * 255
    assert_close(red[bare], torch.zeros_like(red[bare]), message="grounds come from calm places")
    assert_close(gray[bare], gray[bare].round())
    assert float(gray[bare].round().min()) >= 10
    assert float(red[pairs.pasted == 1].abs().mean()) > 0.1, "blobs come from busy places"
    assert bool((pairs.pasted.flatten(2).amax(2) > 0).any())


def test_ground_is_the_share_of_a_patch_that_is_left() -> None:
    pairs = Paster(pictures(), generator()).paste_pairs(4, 32)
    patches = 1 - pairs.pasted.view(2, 4, 4, 8, 4, 8).mean((3, 5)).flatten(2)
    assert_close(pairs.measure_ground(4), patches)


def test_places_lead_to_the_same_spot_of_the_other_view() -> None:
    pairs = Paster(pictures(), generator(1)).paste_pairs(16, 64)
    places = pairs.locate_patches(8)
    inside = (places.abs() < 0.95).all(2)
    ours = F.adaptive_avg_pool2d(pairs.pasted[0], 8).flatten(1)
    soft = F.avg_pool2d(pairs.pasted[1][:, None], 7, 1, 3)
    theirs = F.grid_sample(soft, places[:, :, None], mode="bilinear", align_corners=False)[:, 0, :, 0]
    apart = float((ours - theirs)[inside].abs().mean())
    assert apart < 0.06 and float((ours - theirs.flip(0))[inside].abs().mean()) > 3 * apart


def test_views_follow_from_the_generator() -> None:
    one, same, other = (Paster(pictures(), generator(seed)).paste_pairs(3, 32).pixels for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    lit = [PhotometricChange(generator())(one[0]) for _ in range(2)]
    assert torch.equal(*lit) and not torch.allclose(lit[0], one[0], atol=0.05)


def test_colours_turn_about_grey() -> None:
    one, zero = torch.ones(1), torch.zeros(1)
    assert_close(photometric._color_matrices(one, zero)[0], torch.eye(3))
    assert_close(photometric._color_matrices(zero, one)[0], torch.full((3, 3), 1 / 3))
    turned = photometric._color_matrices(one * 1.3, one * 0.7)[0]
    assert_close(turned @ torch.ones(3), torch.ones(3))
    third = photometric._color_matrices(one, one * 2 * np.pi / 3)[0]  # red to green to blue
    assert_close(third, torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]))


def test_clouds_are_added_alike_to_whatever_is_in_a_view() -> None:
    plain = torch.full((40, 3, 32, 32), 0.5)
    shaped = plain.clone()
    shaped[:, :, 8:20, 8:20] += 0.05
    clouded, other = (PhotometricChange(generator()).add_clouds(x * 0.1 + 0.45) for x in (plain, shaped))
    inside = (clouded > 0) & (clouded < 1) & (other > 0) & (other < 1)
    assert_close((other - clouded)[inside], 0.1 * (shaped - plain)[inside])
    reach = (clouded - 0.5).abs().amax((1, 2, 3))
    assert float(reach.max()) <= 0.3 and float(reach.min()) < 0.1 < 0.15 < float(reach.max()), "some are thick, some thin"
