from typing import Any

import numpy as np
import pytest
import torch

from annofree.errors import InputError
from annofree.features.clip import Clip
from annofree.features.controls import STAGES, Control, apply_control
from annofree.features.dino import Dino
from annofree.features.paired_clip import PairedClip
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


@pytest.mark.parametrize("layer", STAGES)
def test_a_stage_is_what_leaves_it_on_the_grid_of_conv4(layer: Control) -> None:
    clip = Clip(find_bundled("tiny-clip"), use={"boundary_side": 128, "boundary_shifts": 2})
    image = picture(60, 90)
    other = apply_control(clip, layer)
    (found,) = other.encode_boundaries([image])
    (conv4,) = clip.encode_boundaries([image])
    assert found.values.shape[1:] == conv4.values.shape[1:] and found.size == image.size
    assert torch.equal(other.encode_dense([image])[0].values, clip.encode_dense([image])[0].values)
    assert other.provenance["boundaries"]["layer"] == layer


def test_a_finer_stage_is_averaged_and_a_block_is_read_as_the_tower_runs() -> None:
    clip, image = Clip(find_bundled("tiny-clip"), use={"boundary_side": 128, "boundary_shifts": 1}), picture(128, 128)
    x = clip._pixels([image], (128, 128))
    v: Any = clip._tower.visual
    with torch.inference_mode():
        cells = v.layer1(v.stem(x))
    (found,) = apply_control(clip, "conv2").encode_boundaries([image])
    assert_close(found.values, torch.nn.functional.avg_pool2d(cells, 4)[0])
    vit = Clip(find_bundled("tiny-clip-vit"), use={"boundary_side": 128})
    (last,) = apply_control(vit, "block-6").encode_boundaries([image])
    with torch.inference_mode():
        tokens = vit._tower._before(vit._pixels([image], (128, 128)), 0)  # type: ignore[union-attr]
    assert_close(last.values.flatten(1).T, tokens[0, 1:])
    (first,) = apply_control(vit, "block-1").encode_boundaries([image])
    assert not torch.allclose(first.values, last.values)


def test_a_second_clip_gives_the_layer_where_there_is_one() -> None:
    image, clues = picture(64, 64), Clip(find_bundled("tiny-clip"))
    pair = PairedClip(clues, Clip(find_bundled("tiny-clip-vit"), use={"boundary_side": 64}))
    other = apply_control(pair, "block-2")
    assert other.encode_boundaries([image])[0].values.shape == (192, 4, 4)
    assert torch.equal(other.encode_image([image]), clues.encode_image([image]))


def test_dino_is_read_on_the_same_grid() -> None:
    clip, image = Clip(find_bundled("tiny-clip"), use={"boundary_side": 64, "boundary_shifts": 2}), picture(32, 48)
    (found,) = apply_control(clip, "dino", dino=Dino(find_bundled("tiny-dino"))).encode_boundaries([image])
    assert found.values.shape[1:] == clip.encode_boundaries([image])[0].values.shape[1:]
    with pytest.raises(InputError, match="expected a DINO for the control dino, got none"):
        apply_control(clip, "dino")


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="expected a layer of tiny-clip among conv2, conv3, conv5, got block-3"):
        apply_control(Clip(find_bundled("tiny-clip")), "block-3")
    with pytest.raises(InputError, match=r"expected a layer of tiny-clip-vit among block-1, .*block-6, got block-7"):
        apply_control(Clip(find_bundled("tiny-clip-vit")), "block-7")
