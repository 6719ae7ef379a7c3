import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.errors import InputError
from annofree.ops.pamr import DILATIONS, apply_pamr, refine_maps
from annofree.testing.tolerances import assert_close


def slow(image: Tensor, maps: Tensor, dilations: tuple[int, ...], iterations: int) -> Tensor:
    """Pixel by pixel: all samples listed, numpy's own deviation, coordinates clamped to the image."""
    values, masks = image.double().numpy(), maps.double().numpy()
    height, width = values.shape[1:]
    for _ in range(iterations):
        new = np.zeros_like(masks)
        for i, j in np.ndindex(height, width):
            stencil = [
                (min(max(i + d * y, 0), height - 1), min(max(j + d * x, 0), width - 1), (y, x) == (0, 0))
                for d in dilations
                for y in (-1, 0, 1)
                for x in (-1, 0, 1)
            ]
            samples = np.stack([values[:, y, x] for y, x, _ in stencil])
            deviation = samples.std(0, ddof=1)
            around = [(y, x) for y, x, center in stencil if not center]
            kappa = np.array(
                [-np.mean(np.abs(values[:, i, j] - values[:, y, x]) / (1e-8 + 0.1 * deviation)) for y, x in around]
            )
            alpha = np.exp(kappa - kappa.max())
            alpha /= alpha.sum()
            new[:, i, j] = sum(a * masks[:, y, x] for a, (y, x) in zip(alpha, around, strict=True))
        masks = new
    return torch.from_numpy(masks)


def scene(height: int, width: int, maps: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(3, height, width, generator=generator, dtype=torch.float64),
        torch.rand(maps, height, width, generator=generator, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("height", "width", "dilations", "iterations"),
    [(7, 11, DILATIONS, 3), (13, 5, (1, 2, 4), 10), (6, 6, (1,), 1), (1, 9, (1, 12), 2), (30, 27, DILATIONS, 1)],
)
def test_it_is_the_slow_loop_borders_included(height: int, width: int, dilations: tuple[int, ...], iterations: int) -> None:
    image, maps = scene(height, width)
    expected = slow(image, maps, dilations, iterations)
    assert_close(apply_pamr(image, maps, dilations, iterations), expected)
    single = apply_pamr(image.float(), maps.float(), dilations, iterations)
    assert single.dtype == torch.float32
    assert_close(single, expected)


def test_the_defaults_are_the_published_ones() -> None:
    image, maps = scene(9, 13)
    assert torch.equal(apply_pamr(image, maps), apply_pamr(image, maps, (1, 2, 4, 8, 12, 24), 10))
    assert_close(apply_pamr(image, maps), slow(image, maps, (1, 2, 4, 8, 12, 24), 10))


def test_many_maps_are_each_refined_by_themselves() -> None:
    image, maps = scene(18, 25, maps=40)
    together = apply_pamr(image, maps)
    apart = torch.cat([apply_pamr(image, part) for part in torch.split(maps, 7)])
    assert_close(together, apart)
    assert apply_pamr(image, maps[:0]).shape == (0, 18, 25)


def test_an_image_without_edges_gives_plain_means() -> None:
    _, maps = scene(9, 8)
    gray = torch.full((3, 9, 8), 128.0, dtype=torch.float64)
    edged = F.pad(maps[None], (1, 1, 1, 1), mode="replicate")[0]
    mean = (F.avg_pool2d(edged, 3, 1) * 9 - maps) / 8
    assert_close(apply_pamr(gray, maps, (1,), 1), mean)
    assert apply_pamr(gray.float(), maps.float()).isfinite().all()


def test_one_pixel_and_no_iterations_change_nothing() -> None:
    image, maps = scene(1, 1)
    assert_close(apply_pamr(image, maps), maps)
    image, maps = scene(4, 6)
    assert torch.equal(apply_pamr(image, maps, iterations=0), maps)


def test_the_scale_and_offset_of_a_channel_do_not_matter() -> None:
    image, maps = scene(12, 10)
    scaled = (
        image * torch.tensor([255.0, 4.0, 0.5])[:, None, None].double() + torch.tensor([0.0, -2.0, 7.0])[:, None, None].double()
    )
    # not to the table: 1e-8 is added to the deviation, whatever its scale
    torch.testing.assert_close(apply_pamr(image, maps), apply_pamr(scaled, maps), atol=1e-5, rtol=0)


def test_half_precision_is_refined_in_single() -> None:
    image, maps = scene(9, 9)
    half = apply_pamr(image.half(), maps.half())
    assert half.dtype == torch.float16 and half.isfinite().all()
    assert torch.equal(half, apply_pamr(image.half().float(), maps.half().float()).half())


def test_the_inputs_are_left_alone() -> None:
    image, maps = scene(6, 7)
    before = image.clone(), maps.clone()
    apply_pamr(image, maps)
    assert torch.equal(image, before[0]) and torch.equal(maps, before[1])


def test_a_ragged_mask_moves_to_the_edge_of_the_picture() -> None:
    pixels = np.full((32, 40, 3), 40, np.uint8)
    pixels[:, 20:] = 200
    truth = torch.zeros(32, 40)
    truth[:, 20:] = 1
    ragged = truth.clone()
    ragged[::2, 17:20] = 1
    ragged[1::2, 20:23] = 0
    found = refine_maps(pixels, ragged[None])[0] > 0.5
    assert int((ragged.bool() != truth.bool()).sum()) == 96
    assert torch.equal(found, truth.bool()), "values are within 0.04 of 0 and of 1"


def _corner_aligned(values: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    for axis, n in enumerate(size):
        at = np.linspace(0, values.shape[axis] - 1, n)
        low = np.floor(at).astype(int).clip(max=max(values.shape[axis] - 2, 0))
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        high = (low + 1).clip(max=values.shape[axis] - 1)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values


def test_the_picture_is_shrunk_with_aligned_corners() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (31, 45, 3), np.uint8)
    _, maps = scene(8, 12)
    small = torch.from_numpy(_corner_aligned(pixels / 255, (8, 12))).permute(2, 0, 1)
    assert_close(refine_maps(pixels, maps), apply_pamr(small, maps), dtype=torch.float32, depth="network")
    assert refine_maps(pixels, maps[:, :1, :1]).shape == (3, 1, 1)


@pytest.mark.parametrize(
    ("image", "maps", "options", "message"),
    [
        ((3, 4, 5), (2, 5, 4), {}, "one size"),
        ((3, 4, 5), (4, 5), {}, "one size"),
        ((3, 0, 5), (2, 0, 5), {}, "one size"),
        ((3, 4, 5), (2, 4, 5), {"dilations": ()}, "dilations"),
        ((3, 4, 5), (2, 4, 5), {"dilations": (1, 0)}, "dilations"),
        ((3, 4, 5), (2, 4, 5), {"iterations": -1}, "iterations"),
    ],
)
def test_what_cannot_be_refined_is_refused(
    image: tuple[int, ...], maps: tuple[int, ...], options: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        apply_pamr(torch.zeros(image), torch.zeros(maps), **options)  # type: ignore[arg-type]


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="floats"):
        apply_pamr(torch.zeros(3, 4, 5), torch.zeros(1, 4, 5, dtype=torch.long))
    with pytest.raises(InputError, match="maps"):
        refine_maps(np.zeros((4, 5, 3), np.uint8), torch.zeros(4, 5))
