"""Images at a detector's size, in one batch."""

import pytest
import torch

from annofree.detectors.preprocessing import compute_working_size, normalize_image, pad_batch, resize_image
from annofree.errors import InputError
from annofree.testing.tolerances import assert_close


@pytest.mark.parametrize(
    ("size", "read"), [((256, 256), (256, 256)), ((100, 300), (114, 341)), ((300, 100), (341, 114)), ((1, 999), (1, 341))]
)
def test_sizes_at_which_pictures_are_read(size: tuple[int, int], read: tuple[int, int]) -> None:
    assert compute_working_size(size, 256, 341) == read


def test_pixels_are_normalised_by_channel() -> None:
    pixels = torch.stack([torch.full((2, 3), v) for v in (0.2, 0.5, 0.8)])
    assert_close(normalize_image(pixels, (0.2, 0.4, 0.6), (1, 0.5, 0.1))[:, 0, 0], torch.tensor([0.0, 0.2, 2.0]))


@pytest.mark.parametrize("pixels", [torch.zeros(2, 3), torch.zeros(4, 5, 5), torch.zeros(3, 5, 5, dtype=torch.uint8)])
def test_other_pictures_are_refused(pixels: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"image \(3, H, W\) of floats"):
        normalize_image(pixels, (0, 0, 0), (1, 1, 1))


def test_a_batch_keeps_pictures_in_the_corner() -> None:
    first, second = torch.ones(3, 33, 10), torch.ones(3, 5, 64)
    both = pad_batch([first, second])
    assert both.shape == (2, 3, 64, 64) and both[0, :, :33, :10].all() and both.sum() == first.sum() + second.sum()


def test_a_picture_at_its_size_stays() -> None:
    pixels = torch.rand(3, 8, 9)
    assert resize_image(pixels, (8, 9)) is pixels and resize_image(pixels, (4, 5)).shape == (3, 4, 5)
