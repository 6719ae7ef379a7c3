"""Clusters of boundary features, and the pieces they fall into."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from skimage.measure import label
from torch import Tensor

from annofree.errors import InputError
from annofree.fragments.clusters import Init, Seeding, cut_fragments, extract_fragments
from annofree.ops.regions import Connectivity
from annofree.structures import FeatureMap, Fragments

INITS = get_args(Init)


def random_maps(seed: int = 0, grid: tuple[int, int] = (17, 23)) -> tuple[FeatureMap, FeatureMap]:
    """Boundary features (5, h, w) and unit tokens (6, 4, 7) of one image."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.nn.functional.normalize(torch.randn(6, 4, 7, generator=generator), dim=0)
    return FeatureMap(torch.randn(5, *grid, generator=generator), (68, 92)), FeatureMap(tokens, (68, 92))


def painted(rows: list[str]) -> tuple[FeatureMap, FeatureMap]:
    """An image of letters: boundary features and tokens are one-hot in the letter, cell by cell."""
    letters = sorted(set("".join(rows)))
    places = torch.tensor([[letters.index(c) for c in row] for row in rows])
    values = torch.nn.functional.one_hot(places, len(letters)).permute(2, 0, 1).float()
    return FeatureMap(values, (8, 8)), FeatureMap(values, (8, 8))


def assert_partition(pieces: Fragments, grid: tuple[int, int]) -> None:
    """Each cell is in one piece, pieces count from 1, and areas, boxes and clusters are theirs."""
    labels = pieces.labels.numpy()
    assert labels.shape == grid
    assert np.unique(labels).tolist() == list(range(1, len(pieces) + 1))
    for number in range(1, len(pieces) + 1):
        rows, columns = np.nonzero(labels == number)
        assert pieces.area[number - 1] == len(rows)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert pieces.boxes[number - 1].tolist() == box
    assert int(pieces.cluster.min()) >= 1


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("init", INITS)
def test_pieces_are_a_partition_of_the_grid(init: Init, connectivity: Connectivity) -> None:
    boundaries, tokens = random_maps()
    pieces = extract_fragments(boundaries, tokens, Seeding(init, clusters=6), connectivity)
    assert_partition(pieces, (17, 23))
    clusters = pieces.cluster[pieces.labels - 1].numpy()
    assert len(np.unique(clusters)) <= 6
    again = label(clusters, connectivity=connectivity // 4)  # no two pieces of a cluster touch
    assert int(again.max()) == len(pieces)


@pytest.mark.parametrize("init", INITS)
def test_the_same_seed_gives_the_same_pieces(init: Init) -> None:
    maps = random_maps()
    one, again = (extract_fragments(*maps, Seeding(init, seed=5), 8) for _ in range(2))
    assert torch.equal(one.labels, again.labels)
    assert torch.equal(one.cluster, again.cluster)


@pytest.mark.parametrize(("init", "differ"), [("linspace", False), ("semantic", False), ("random", True), ("k-means++", True)])
def test_the_seed_is_of_random_and_plusplus(init: Init, differ: bool) -> None:
    boundaries, tokens = random_maps()
    features = boundaries.values.flatten(1).T
    one, other = (Seeding(init, clusters=5, seed=seed).choose_centers(features, tokens, (17, 23)) for seed in (0, 1))
    assert torch.equal(one, other) is not differ


def test_seeding_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    extract_fragments(*random_maps(), Seeding("k-means++"), 8)
    extract_fragments(*random_maps(), Seeding("random"), 8)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("init", INITS)
def test_flat_colours_become_pieces_whatever_the_seeding(init: Init) -> None:
    maps = painted(["aabbaa", "aabbaa", "cccccc", "aabbcc"])
    pieces = extract_fragments(*maps, Seeding(init, clusters=24), 4)
    assert pieces.labels.tolist() == [[1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3], [4, 4, 4, 4, 4, 4], [5, 5, 6, 6, 4, 4]]
    assert pieces.cluster[0] == pieces.cluster[2] == pieces.cluster[4]
    assert pieces.cluster[1] == pieces.cluster[5]
    assert len(set(pieces.cluster.tolist())) == 3


@pytest.mark.parametrize("init", INITS)
def test_more_clusters_than_cells_are_no_error(init: Init) -> None:
    boundaries, tokens = random_maps(grid=(1, 1))
    assert extract_fragments(boundaries, tokens, Seeding(init), 4).labels.tolist() == [[1]]


def test_semantic_seeding_chooses_how_many_by_reach() -> None:
    """Three orthogonal meanings: each is a cosine distance of 1 from the others."""
    boundaries, tokens = painted(["aaaabbbb", "aaaabbbb", "ccccbbbb"])
    features = boundaries.values.flatten(1).T

    def centres(**changes: Any) -> Tensor:
        return Seeding("semantic", **changes).choose_centers(features, tokens, (3, 8))

    assert len(centres(at_least=1, reach=0.5)) == 3
    assert len(centres(at_least=1, reach=1.5)) == 1
    assert len(centres(at_least=1, reach=0.5, clusters=2)) == 2
    assert len(centres(at_least=5, reach=0.5)) == 5
    three = centres(at_least=1, reach=0.5)  # each centre is the mean boundary feature of the cells of one meaning
    assert sorted(map(tuple, three.tolist())) == [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)]


def test_linspace_seeding_takes_even_steps() -> None:
    boundaries, tokens = random_maps()
    features = boundaries.values.flatten(1).T
    assert torch.equal(Seeding(clusters=3).choose_centers(features, tokens, (17, 23)), features[[0, 195, 390]])


def test_an_unknown_init_is_refused() -> None:
    init: Any = "farthest"
    with pytest.raises(InputError, match="unknown init 'farthest'; known: linspace, random, k-means\\+\\+, semantic"):
        extract_fragments(*random_maps(), Seeding(init), 4)


def test_diagonal_neighbours_are_one_piece_only_with_connectivity_8() -> None:
    clusters = torch.tensor([[1, 2], [2, 1]])
    assert len(cut_fragments(clusters, 8)) == 2
    assert len(cut_fragments(clusters, 4)) == 4
    assert cut_fragments(clusters, 8).area.tolist() == [2, 2]
    assert cut_fragments(clusters, 8).boxes.tolist() == [[0, 0, 2, 2], [0, 0, 2, 2]]
