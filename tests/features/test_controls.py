import numpy as np
import pytest
import torch

from annofree.features.clip import Clip
from annofree.features.controls import Control, apply_control
from annofree.hub.cards import find_bundled
from annofree.structures import Image, Vocabulary
from annofree.testing.tolerances import assert_close


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(find_bundled("tiny-clip"), use={"boundary_side": 128, "boundary_shifts": 2})


def picture(height: int, width: int) -> Image:
    return Image(np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8))


def test_colours_are_means_of_cells(clip: Clip) -> None:
    image = picture(64, 128)
    (found,) = apply_control(
        Clip(find_bundled("tiny-clip"), use={"boundary_side": 128, "boundary_shifts": 1}), "rgb"
    ).encode_boundaries([image])
    assert found.values.shape == (3, 8, 16) and found.size == (64, 128)
    for i, j in np.ndindex(8, 16):
        cell = image.pixels[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
        assert_close(found.values[:, i, j], cell.mean((0, 1)) / 255)


def test_colours_have_the_grid_of_the_real_features(clip: Clip) -> None:
    images = [picture(50, 77), picture(1, 1), picture(90, 30)]
    for colors, features, image in zip(
        apply_control(clip, "rgb").encode_boundaries(images), clip.encode_boundaries(images), images, strict=True
    ):
        assert colors.values.shape == (3, *features.values.shape[1:])
        assert colors.size == features.size == image.size


def test_random_weights_leave_the_model_as_it_was(clip: Clip) -> None:
    image = picture(64, 64)
    before, (features,) = {k: v.clone() for k, v in clip._model.state_dict().items()}, clip.encode_boundaries([image])
    control = apply_control(clip, "random-weights", seed=3)
    (random,) = control.encode_boundaries([image])
    assert random.values.shape == features.values.shape
    assert torch.isfinite(random.values).all() and float(random.values.std()) > 0
    assert not torch.allclose(random.values, features.values)
    after = clip._model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(clip.encode_boundaries([image])[0].values, features.values)


def test_random_weights_follow_from_their_seed(clip: Clip) -> None:
    image = picture(64, 64)
    state = torch.get_rng_state()
    first, again, other = (
        apply_control(clip, "random-weights", seed=s).encode_boundaries([image])[0].values for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(torch.get_rng_state(), state)  # drawn by a generator of their own


@pytest.mark.parametrize("control", ["rgb", "random-weights"])
def test_a_control_is_the_same_clip_in_all_else_and_says_what_it_is(clip: Clip, control: Control) -> None:
    other, image = apply_control(clip, control), picture(40, 60)
    assert torch.equal(other.encode_image([image]), clip.encode_image([image]))
    assert torch.equal(other.encode_dense([image])[0].values, clip.encode_dense([image])[0].values)
    assert torch.equal(other.encode_text(Vocabulary.of("dog, cat")), clip.encode_text(Vocabulary.of("dog, cat")))
    assert other.provenance == clip.provenance | {"boundaries": control}
    assert "boundaries" not in clip.provenance
