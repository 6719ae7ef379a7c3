"""MaskDistill's mask against a twin that follows the released code's facts, token by token, from queries and keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from annofree.errors import InputError
from annofree.fragments.maskdistill import MaskDistillSettings, find_by_affinity, rank_cells

Array = np.ndarray[Any, Any]

HEADS, WIDE, GRID = 6, 4, (7, 9)


def draw_tokens(seed: int) -> tuple[Array, Array]:
    """The class token's query (heads, d) and keys (heads, h * w, d): a block of cells that it looks at, which are alike."""
    rng = np.random.default_rng(seed)
    keys = np.tile(rng.standard_normal((HEADS, 1, 1, WIDE)), (1, *GRID, 1))
    y, x = rng.integers(1, 4, 2)
    keys[:, y : y + 3, x : x + 4] = rng.standard_normal((HEADS, 1, 1, WIDE))
    keys = (keys + 0.5 * rng.standard_normal(keys.shape)).reshape(HEADS, -1, WIDE)
    return keys.reshape(HEADS, *GRID, WIDE)[:, y, x] + rng.standard_normal((HEADS, WIDE)), keys


def grow_slowly(query: Array, keys: Array, share: float = 0.4) -> Array:
    """By raw products, without the rule of half of their sum."""
    count = keys.shape[1]
    seeds = [np.mean([query[head] @ keys[head, i] for head in range(HEADS - 1)]) for i in range(count)]
    affinity = sum(keys[head] @ keys[head].T for head in range(HEADS))
    order = sorted(range(count), key=lambda i: -seeds[i])
    source, votes = order[0], np.zeros(count)
    for i in order[: int(share * count)]:
        if affinity[source, i] > 0:
            votes += affinity[i]
    todo, mask = [(source // GRID[1], source % GRID[1])], np.zeros(GRID, bool)
    while todo:  # four neighbors
        y, x = todo.pop()
        if 0 <= y < GRID[0] and 0 <= x < GRID[1] and not mask[y, x] and votes[y * GRID[1] + x] > 0:
            mask[y, x] = True
            todo += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return mask


def attend(query: Array, keys: Array) -> Array:
    """The softmax over all tokens, the class token's own product of 2.5 among them, (heads, h, w)."""
    products = np.exp(np.einsum("hd,hnd->hn", query, keys) * WIDE**-0.5)
    shares: Array = products / (products.sum(1, keepdims=True) + np.exp(2.5))
    return shares.reshape(HEADS, *GRID)


@pytest.mark.parametrize("seed", range(8))
def test_the_mask_is_that_of_raw_products(seed: int) -> None:
    query, keys = draw_tokens(seed)
    together = keys.transpose(0, 2, 1).reshape(HEADS * WIDE, *GRID).astype(np.float32)
    found = find_by_affinity(together, attend(query, keys).astype(np.float32))
    assert found.any() and (found == grow_slowly(query, keys)).all()


def test_the_last_head_does_not_count_unless_it_is_the_only_one() -> None:
    attention = np.zeros((3, 1, 4), np.float32)
    attention[:2], attention[2] = [0.1, 0.4, 0.2, 0.3], [0.9, 0, 0, 0]
    assert rank_cells(attention).tolist() == [1, 3, 2, 0]
    assert rank_cells(attention, 0)[0] == 0
    assert rank_cells(attention[2:]).tolist() == [0, 1, 2, 3], "of equals, the first"


def test_no_key_at_the_source_gives_no_mask() -> None:
    assert not find_by_affinity(np.zeros((2, 3, 4), np.float32), np.full((2, 3, 4), 0.1, np.float32)).any()


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.5}, {"heads_out": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"expected a share in 0 \.\. 1 and heads_out from 0"):
        MaskDistillSettings(**wrong)
