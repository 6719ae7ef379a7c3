"""Windows, their crops and the map drawn from them, against torch's unfold, Pillow's resize and torch's interpolation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from torch.nn import functional as F

from annofree.clues.crops import Layout, Tiling, average_tiles, cut, interpolate_weights, lay_tilings
from annofree.errors import InputError
from annofree.testing.tolerances import assert_close

unhurried = settings(deadline=None)


def test_sliding_windows_on_a_square_are_the_unfold_of_the_released_code() -> None:
    canvas = torch.arange(256 * 256).view(256, 256)
    tiles = lay_tilings((256, 256), (0, 1, 2), "sliding")
    assert sum(len(t.boxes) for t in tiles) == 59
    for tiling, window in zip(tiles, (256, 128, 64), strict=True):
        unfolded = canvas.unfold(0, window, window // 2).unfold(1, window, window // 2).reshape(-1, window, window)
        crops = torch.stack([canvas[y0:y1, x0:x1] for x0, y0, x1, y1 in tiling.boxes])
        assert torch.equal(crops, unfolded)


@unhurried
@given(st.integers(8, 300), st.integers(8, 300), st.integers(0, 3), st.sampled_from(["sliding", "partition"]))
def test_windows_cover_the_canvas_from_edge_to_edge(height: int, width: int, scale: int, layout: Layout) -> None:
    (tiling,) = lay_tilings((height, width), [scale], layout)
    window = min(height, width) >> scale if scale else 0
    for spans, length in ((tiling.rows, height), (tiling.columns, width)):
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(after[0] <= before[1] and after[0] > before[0] for before, after in pairwise(spans))
        if scale and layout == "sliding":
            assert {stop - start for start, stop in spans} == {window}
            assert all(after[0] - before[0] <= max(1, window // 2) for before, after in pairwise(spans))
        if scale and layout == "partition":
            assert len(spans) == -(-length // window)
            assert all(before[1] == after[0] for before, after in pairwise(spans))
            sizes = [stop - start for start, stop in spans]
            assert max(sizes) - min(sizes) <= 1 and max(sizes) <= window
    assert len(tiling.boxes) == tiling.grid[0] * tiling.grid[1]


def test_boxes_go_row_by_row() -> None:
    (tiling,) = lay_tilings((4, 8), [1], "partition")
    assert tiling.grid == (2, 4)
    assert tiling.boxes[:5] == [(0, 0, 2, 2), (2, 0, 4, 2), (4, 0, 6, 2), (6, 0, 8, 2), (0, 2, 2, 4)]


@pytest.mark.parametrize("scales", [(), (-1,), (0, 5)])
def test_scales_that_make_no_windows_are_refused(scales: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected scales from 0 on"):
        lay_tilings((16, 40), scales, "sliding")


@pytest.mark.parametrize(("side", "layout"), [(224, "partition"), (30, "sliding"), (64, "sliding")])
def test_crops_are_pillow_s_to_the_grey_level(side: int, layout: Layout) -> None:
    """Pillow's bicubic is what CLIP's image processor resizes by: smaller, larger and at equal size, with hard edges too."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 97, 3), dtype=np.uint8)
    smooth = np.asarray(Picture.fromarray(noise[:5, :7]).resize((97, 64), Picture.Resampling.BICUBIC))
    for pixels in (noise, smooth, np.asarray(noise // 128 * 255, np.uint8)):
        canvas = torch.tensor(pixels).permute(2, 0, 1).float() / 255
        for tiling in lay_tilings((64, 97), (0, 1, 2), layout):
            crops = cut(canvas, tiling, side)
            assert crops.shape == (len(tiling.boxes), 3, side, side)
            for crop, (x0, y0, x1, y1) in zip(crops, tiling.boxes, strict=True):
                pillow = Picture.fromarray(pixels[y0:y1, x0:x1]).resize((side, side), Picture.Resampling.BICUBIC)
                apart = np.abs(crop.permute(1, 2, 0).numpy() * 255 - np.asarray(pillow, np.float32))
                assert apart.max() < 1e-3  # the same whole level, but for the division by 255


def test_parts_of_two_sizes_stay_in_order() -> None:
    canvas = torch.arange(10.0).expand(3, 7, 10) / 10
    (tiling,) = lay_tilings((7, 10), [1], "partition")
    assert {x1 - x0 for x0, _, x1, _ in tiling.boxes} == {2, 3}
    means = cut(canvas, tiling, 1)[:, 0, 0, 0]
    rows = means.view(tiling.grid)
    assert rows.diff(dim=1).min() > 0
    assert_close(rows, rows[:1].expand_as(rows))


@pytest.mark.parametrize("size", [(256, 256), (64, 64), (31, 77), (3, 2)])
def test_tiled_is_torch_s_bilinear(size: tuple[int, int]) -> None:
    tiles = lay_tilings((256, 256), (0, 1, 2), "sliding")
    grids = [torch.randn(5, *t.grid, generator=torch.Generator().manual_seed(i)) for i, t in enumerate(tiles)]
    each = [F.interpolate(g[None], size=size, mode="bilinear", align_corners=False)[0] for g in grids]
    assert_close(average_tiles(grids, tiles, size, "tiled"), torch.stack(each).mean(0))


def test_at_its_own_centre_a_window_has_its_own_value() -> None:
    (tiling,) = lay_tilings((256, 384), [2], "sliding")
    grid = torch.randn(1, *tiling.grid, generator=torch.Generator().manual_seed(0))
    drawn = average_tiles([grid], [tiling], (256, 384), "centres")[0]
    assert tiling.rows[0] == (0, 64) and tiling.columns[1] == (32, 96)
    sampled = average_tiles([grid], [tiling], (4, 6), "centres")[0]  # at 32, 96, 160 ... px
    assert_close(sampled, grid[0, ::2, ::2])
    assert_close(drawn[:32, :32], grid[0, 0, 0].expand(32, 32))


@unhurried
@given(st.integers(1, 9), st.integers(1, 40), st.sampled_from(["tiled", "centres"]))
def test_weights_are_shares_of_at_most_two_neighbours(count: int, full: int, placement: str) -> None:
    spans = [(i * 3, i * 3 + 6) for i in range(count)]
    weights = interpolate_weights(spans, count * 3 + 3, full, "tiled" if placement == "tiled" else "centres")
    assert weights.shape == (full, count) and weights.min() >= 0
    assert_close(weights.sum(1), torch.ones(full))
    assert ((weights > 0).sum(1) <= 2).all()


def test_part_of_the_classes_is_part_of_the_map() -> None:
    tiles = lay_tilings((32, 48), (0, 1), "partition")
    grids = [torch.randn(6, *t.grid, generator=torch.Generator().manual_seed(i)) for i, t in enumerate(tiles)]
    whole = average_tiles(grids, tiles, (20, 30), "centres")
    assert_close(average_tiles([g[2:4] for g in grids], tiles, (20, 30), "centres"), whole[2:4])


def test_a_tiling_is_a_value() -> None:
    assert lay_tilings((8, 8), [1], "sliding") == [Tiling((8, 8), ((0, 4), (2, 6), (4, 8)), ((0, 4), (2, 6), (4, 8)))]
