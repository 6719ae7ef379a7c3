import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from annofree.ops.grids import fit_size, resize_maps, resize_nearest, shift_images, stitch_maps
from annofree.testing.tolerances import assert_close

few = settings(max_examples=60, deadline=None)
sides = st.integers(1, 9)


@few
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([64, 192, 256]), st.sampled_from([16, 32]))
def test_a_fitted_size_is_in_strides_and_keeps_the_aspect(height: int, width: int, short: int, stride: int) -> None:
    sizes = dict(zip("hw", fit_size((height, width), short, stride), strict=True))
    assert all(n % stride == 0 and n >= stride for n in sizes.values())
    assert min(sizes.values()) == short  # a multiple of the stride here
    exact = short * max(height, width) / min(height, width)
    assert abs(max(sizes.values()) - min(exact, 4 * short)) <= stride / 2 + 1e-6  # halfway, rounding decides
    if height != width:
        assert (sizes["h"] >= sizes["w"]) == (height > width) or sizes["h"] == sizes["w"]


def test_a_short_side_below_the_stride_still_gives_a_cell() -> None:
    assert fit_size((10, 10), 8, 32) == (32, 32)
    assert fit_size((10, 100), 64, 16, longest=2.0) == (64, 128)


@few
@given(sides, sides, sides, sides)
def test_nearest_is_the_obvious_loop(height: int, width: int, h: int, w: int) -> None:
    maps = torch.arange(2 * height * width).view(2, height, width)
    found = resize_nearest(maps, (h, w))
    assert found.shape == (2, h, w)
    for k, i, j in np.ndindex(2, h, w):
        assert found[k, i, j] == maps[k, int(i * height / h + 1e-9), int(j * width / w + 1e-9)]
    assert torch.equal(resize_nearest(maps[0], (h, w)), found[0])


@settings(max_examples=20, deadline=None)
@given(sides, sides, sides, sides)
def test_resized_is_bilinear_between_cell_centres(height: int, width: int, h: int, w: int) -> None:
    maps = torch.rand(2, height, width, generator=torch.Generator().manual_seed(100 * height + width))
    found = resize_maps(maps, (h, w))
    assert found.shape == (2, h, w)

    def sample(position: float, count: int) -> tuple[int, int, float]:
        at = min(max(position, 0.0), count - 1.0)
        low = int(at)
        return low, min(low + 1, count - 1), at - low

    for i, j in np.ndindex(h, w):
        y0, y1, v = sample((i + 0.5) * height / h - 0.5, height)
        x0, x1, u = sample((j + 0.5) * width / w - 0.5, width)
        top = (1 - u) * maps[:, y0, x0] + u * maps[:, y0, x1]
        bottom = (1 - u) * maps[:, y1, x0] + u * maps[:, y1, x1]
        assert_close(found[:, i, j], (1 - v) * top + v * bottom)


def test_resized_to_its_own_size_is_the_same_tensor() -> None:
    maps = torch.rand(2, 3, 4)
    assert resize_maps(maps, (3, 4)) is maps


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_stitched_interleaves_as_the_obvious_loop(factor: int) -> None:
    maps = torch.rand(factor**2 * 2, 3, 4, 5)
    found = stitch_maps(maps, factor)
    assert found.shape == (2, 3, 4 * factor, 5 * factor)
    for b, i, j in np.ndindex(2, 4 * factor, 5 * factor):
        copy = (i % factor) * factor + j % factor
        assert torch.equal(found[b, :, i, j], maps[copy * 2 + b, :, i // factor, j // factor])


def test_one_copy_is_the_image_itself() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert shift_images(images, 4, 1) is images
    assert torch.equal(stitch_maps(images, 1), images)


@pytest.mark.parametrize("factor", [2, 4])
def test_stitched_cells_are_evenly_spaced(factor: int) -> None:
    """Average pooling stands for a network: on a ramp, the value of a cell is the place that it looks at."""
    stride, (height, width) = 8, (32, 48)

    def network(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, stride)

    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    ramps = torch.stack([torch.stack([y, x]), torch.stack([100 + y, 100 + x])])  # two images of two channels
    found = stitch_maps(network(shift_images(ramps, stride, factor)), factor)
    assert found.shape == (2, 2, height // stride * factor, width // stride * factor)
    step = stride / factor
    rows, columns = ((torch.arange(n) + 0.5) * step for n in found.shape[-2:])
    inner = slice(factor, -factor)  # the outer cells of moved copies look at repeated edges
    for offset, image in ((0, found[0]), (100, found[1])):
        expected_y = (offset + rows)[:, None].expand(-1, len(columns))
        expected_x = (offset + columns)[None].expand(len(rows), -1)
        assert_close(image[0][inner, inner], expected_y[inner, inner])
        assert_close(image[1][inner, inner], expected_x[inner, inner])
        assert (image[0].diff(dim=0) > 0).all() and (image[1].diff(dim=1) > 0).all()


def test_edges_are_repeated_when_moved() -> None:
    image = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    copies = shift_images(image, 4, 2)  # moved by -1 and +1 px
    assert [c[0, 0].tolist() for c in copies] == [[0, 0, 1, 2], [1, 2, 3, 3]] * 2


@pytest.mark.parametrize("full", [1, 2, 31, 62, 427, 480, 640])
def test_nearest_of_float32_products_is_that_of_torch(full: int) -> None:
    row = torch.arange(full, dtype=torch.float32)[None]
    others = 0
    for count in range(1, 130):
        expected = F.interpolate(row[None], size=count, mode="nearest")[0]
        assert torch.equal(resize_nearest(row, (1, count), "float32"), expected)
        others += int((resize_nearest(row, (1, count)) != expected).sum())
    assert others or full != 2, "whole numbers are another rule"
