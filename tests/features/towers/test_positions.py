import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from annofree.errors import InputError
from annofree.features.towers.positions import PositionRule, resize_positions
from annofree.testing.tolerances import assert_close


def positions_of(grid: Tensor) -> Tensor:
    """A class token's row of sevens, then the cells of a grid (h, w, C) row by row."""
    return torch.cat([torch.full((1, grid.shape[-1]), 7.0, dtype=grid.dtype), grid.flatten(0, 1)])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys's kernel."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def triangle(distance: float) -> float:
    return max(0.0, 1 - abs(distance))


def weights_by_hand(old: int, new: int, step: float, kernel: Any) -> Any:
    """(new, old) weights: cell i of the new grid looks at (i + 0.5) * step - 0.5; beyond the edge, the edge is repeated."""
    weights = np.zeros((new, old))
    for i in range(new):
        where = (i + 0.5) * step - 0.5
        if kernel is triangle:
            where = max(where, 0.0)
        for tap in range(math.floor(where) - 1, math.floor(where) + 3):
            weights[i, min(max(tap, 0), old - 1)] += kernel(where - tap)
    return weights


def by_hand(grid: Tensor, size: tuple[int, int], kernel: Any, plus: float) -> Any:
    old = grid.shape[:2]
    rows, columns = (weights_by_hand(o, n, o / (n + plus), kernel) for o, n in zip(old, size, strict=True))
    return np.einsum("ia,jb,abc->ijc", rows, columns, grid.numpy())


SIZES = [(7, 7), (3, 9), (2, 5), (1, 1), (6, 4), (8, 1)]


@pytest.mark.parametrize("native", [(4, 4), (3, 5)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("rule", "kernel", "plus"),
    [("bicubic", cubic, 0), ("bilinear", triangle, 0), ("bicubic+0.1", cubic, 0.1), ("bicubic+0.1-always", cubic, 0.1)],
)
def test_by_hand(rule: PositionRule, kernel: Any, plus: float, size: tuple[int, int], native: tuple[int, int]) -> None:
    grid = random(*native, 2)
    found = resize_positions(positions_of(grid), size, rule, native)
    assert found.shape == (1 + size[0] * size[1], 2)
    assert found[0].tolist() == [7.0, 7.0], "the class token's row is kept"
    assert_close(found[1:].reshape(*size, 2), by_hand(grid, size, kernel, plus))


def test_two_cells_to_four() -> None:
    positions = torch.tensor([[9.0], [0.0], [1.0], [0.0], [1.0]])
    assert resize_positions(positions, (1, 4), "bilinear").flatten().tolist() == [9, 0, 0.25, 0.75, 1]
    # at -0.25 the taps are two away, one, and the edge twice: -0.75 * (...) by Keys's kernel
    left = cubic(1.25)
    found = resize_positions(positions, (2, 4), "bicubic")[1:].reshape(2, 4)
    assert_close(found[0], [left, cubic(0.75) + cubic(1.75), cubic(0.25) + cubic(1.25), 1 - left])


@pytest.mark.parametrize("native", [(4, 4), (3, 5)])
def test_at_the_native_grid(native: tuple[int, int]) -> None:
    grid = random(*native, 3)
    positions = positions_of(grid)
    rules: tuple[PositionRule, ...] = ("bicubic", "bilinear", "bicubic+0.1")
    for rule in rules:
        assert torch.equal(resize_positions(positions, native, rule, native), positions)
    moved = resize_positions(positions, native, "bicubic+0.1-always", native)
    assert torch.equal(moved[0], positions[0]) and not torch.allclose(moved[1:], positions[1:], atol=1e-3)
    assert_close(moved[1:].reshape(*native, 3), by_hand(grid, native, cubic, 0.1))


def test_a_grid_of_as_many_cells_but_another_shape_is_resized() -> None:
    positions = positions_of(random(4, 4, 1))
    assert not torch.allclose(resize_positions(positions, (2, 8)), positions)


@pytest.mark.parametrize("rule", ["bicubic", "bilinear", "bicubic+0.1", "bicubic+0.1-always"])
def test_what_is_passed_in_stays_as_it_is(rule: PositionRule) -> None:
    parameter = torch.nn.Parameter(positions_of(random(3, 3, 2)))
    before = parameter.detach().clone()
    resize_positions(parameter, (5, 2), rule).detach().zero_()
    assert torch.equal(parameter, before)


@pytest.mark.parametrize("size", range(1, 60))
def test_the_grid_asked_for_is_given(size: int) -> None:
    positions = positions_of(random(14, 14, 1))
    assert len(resize_positions(positions, (size, 2 * size), "bicubic+0.1")) == 1 + 2 * size**2


def test_errors() -> None:
    with pytest.raises(InputError, match="2 x 2 cells, got 7"):
        resize_positions(torch.zeros(7, 2), (2, 2))
    with pytest.raises(InputError, match="2 x 4 cells, got 10"):
        resize_positions(torch.zeros(10, 2), (2, 2), native=(2, 4))
    unknown: Any = "bicubik"
    with pytest.raises(InputError, match="did you mean 'bicubic'"):
        resize_positions(torch.zeros(5, 2), (2, 2), unknown)
