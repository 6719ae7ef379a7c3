"""Aligned RoIAlign beside a slow twin that takes one bilinear sample after the other."""

import math

import pytest
import torch
from torch import Tensor

from annofree.detectors.roi_align import assign_levels, read_boxes, read_masks
from annofree.testing.tolerances import assert_close

STRIDES = (4, 8, 16, 32)


def bilinear(grid: Tensor, y: float, x: float) -> Tensor:
    """A map (C, h, w) at a place; centres of cells are at whole numbers."""
    height, width = grid.shape[1:]
    if y < -1 or x < -1 or y > height or x > width:
        return torch.zeros(len(grid))
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = y - y0, x - x0
    upper = (1 - fx) * grid[:, y0, x0] + fx * grid[:, y0, x1]
    return (1 - fy) * upper + fy * ((1 - fx) * grid[:, y1, x0] + fx * grid[:, y1, x1])


def slow_read(grid: Tensor, box: list[float], cells: int, stride: int, sampling: int) -> Tensor:
    x0, y0, x1, y1 = (v / stride - 0.5 for v in box)  # half a cell: pixels have their centres within them
    out = torch.zeros(len(grid), cells, cells)
    high, wide = (y1 - y0) / cells, (x1 - x0) / cells
    rows, columns = (sampling or max(1, math.ceil(side)) for side in (high, wide))
    for i in range(cells):
        for j in range(cells):
            places = [
                (y0 + (i + (a + 0.5) / rows) * high, x0 + (j + (b + 0.5) / columns) * wide)
                for a in range(rows)
                for b in range(columns)
            ]
            out[:, i, j] = torch.stack([bilinear(grid, y, x) for y, x in places]).mean(0)
    return out


def slow_level(box: list[float], scale: int) -> int:
    side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
    return min(max(math.floor(4 + math.log2(side / scale + 1e-8)), 2), 5) - 2


@pytest.mark.parametrize("sampling", [0, 2])
def test_boxes_are_read_as_the_slow_twin_reads_them(sampling: int) -> None:
    rng = torch.Generator().manual_seed(0)
    levels = {str(i): torch.randn(2, 3, 128 // s, 160 // s, generator=rng) for i, s in enumerate(STRIDES)}
    levels["pool"] = torch.full((2, 3, 2, 3), torch.nan)  # nobody reads from it
    boxes = [
        torch.tensor([[3.0, 5, 20.5, 17], [0, 0, 160, 128], [70, 30.25, 120, 75], [10, 10, 10.5, 10.5]]),
        torch.tensor([[100.0, 40, 160, 128], [20, 20, 45, 50], [1, 2, 99, 120]]),
    ]
    read = read_boxes(levels, boxes, 3, 50, sampling)
    chosen = assign_levels(torch.cat(boxes), 50).tolist()
    assert chosen == [slow_level(box, 50) for box in torch.cat(boxes).tolist()] and set(chosen) == {0, 1, 2, 3}
    expected = [
        slow_read(levels[str(slow_level(box, 50))][i], box, 3, STRIDES[slow_level(box, 50)], sampling)
        for i, some in enumerate(boxes)
        for box in some.tolist()
    ]
    assert_close(read, torch.stack(expected))


def test_no_box_is_read_too() -> None:
    levels = {str(i): torch.randn(1, 3, 64 // s, 64 // s, requires_grad=True) for i, s in enumerate(STRIDES)}
    read = read_boxes(levels, [torch.zeros(0, 4)], 7, 224, 0)
    read.sum().backward()  # type: ignore[no-untyped-call]
    assert read.shape == (0, 3, 7, 7)


def test_a_box_on_whole_cells_reads_those_cells() -> None:
    grid = torch.arange(64.0).view(1, 1, 8, 8)
    levels = {str(i): grid[..., : 8 >> i, : 8 >> i] for i in range(4)}
    read = read_boxes(levels, [torch.tensor([[8.0, 4, 20, 16]])], 3, 224, 1)
    assert torch.equal(read[0, 0], grid[0, 0, 1:4, 2:5])  # weights are 0 and 1


def test_masks_are_cut_out_of_the_matched_object() -> None:
    masks = torch.zeros(2, 12, 12, dtype=torch.bool)
    masks[0, 2:6, 4:10], masks[1, 6:12, 0:6] = True, True
    boxes = torch.tensor([[4.0, 2, 10, 6], [0, 6, 12, 12], [0, 0, 12, 12]])
    read = read_masks(masks, boxes, torch.tensor([0, 1, 0]), 4)
    assert read[0].all() and torch.equal(read[1], torch.tensor([[1.0, 1, 0, 0]] * 4))
    assert torch.equal(read[2] > 0, masks[0].float().unfold(0, 3, 3).unfold(1, 3, 3).mean((2, 3)) >= 0.5)
