"""Which fragments belong to a class, and which of them are one instance.

N fragments, K classes, h w cells.  Fragments are measured for all classes in one product, so many classes cost little
more than one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.ops.regions import Connectivity, drop_small, label_components
from annofree.structures import Fragments

__all__ = [
    "as_single_instances",
    "merge_adjacent",
    "number_regions",
    "select_compact",
    "select_fragments_official",
    "select_fragments_paper",
    "sum_over_fragments",
]

_MOST_COMMON = 20


def sum_over_fragments(labels: Tensor, count: int, values: Tensor) -> Tensor:
    """Sum each map of ``values`` (K, h, w) over each of the fragments 1 .. count of ``labels`` (h, w); (K, count)."""
    sums = torch.zeros(len(values), count + 1, dtype=values.dtype, device=values.device)
    return sums.index_add_(1, labels.flatten(), values.flatten(1))[:, 1:]


def select_fragments_paper(
    fragments: Fragments,
    activation: Tensor,
    *,
    min_activation: float = 0.3,
    max_box_ratio: float = 3.0,
    min_cells: int = 0,
) -> Tensor:
    """Keep fragments whose mean activation is at least tau1 and whose box is at most tau2 times their area.

    ``activation`` (K, h, w) in 0 .. 1; returns (K, N) bool.  Zip, Eq. 4: tau1 = 0.3, tau2 = 3; a thin boundary has a
    large box for its area, an object has not.  ``min_cells`` is ours: a boundary that K-means breaks into crumbs has
    compact crumbs, which would bridge what it separates.
    """
    mean = sum_over_fragments(fragments.labels, len(fragments), activation) / fragments.area
    return (mean >= min_activation) & select_compact(fragments, max_box_ratio, min_cells)


def select_compact(fragments: Fragments, max_box_ratio: float, min_cells: int) -> Tensor:
    """Which fragments fill their box and are no crumbs, (N) bool; see ``select_fragments_paper``."""
    return (_box_area(fragments) <= max_box_ratio * fragments.area) & (fragments.area >= min_cells)


def select_fragments_official(fragments: Fragments, active: Tensor) -> Tensor:
    """Keep fragments as the released demo does, for ``active`` (K, h, w) bool; returns (K, N) bool.

    More than 0.3 of a fragment's cells are active, its box is under 3 times its area, and its cluster is among the
    20 most common keys of the map that holds the cluster where active and 0 elsewhere.  So a cluster without an active
    cell is out, and when all 20 clusters and key 0 occur, the rarest is dropped (of equals, the one met last).
    """
    counts = sum_over_fragments(fragments.labels, len(fragments), active.to(torch.int64))
    compact = _box_area(fragments) < 3 * fragments.area
    # in double precision, as Python divides, so that exactly 0.3 stays exactly 0.3
    fraction = counts.double() / fragments.area.double()
    return _common(fragments, active, counts)[:, fragments.cluster] & compact & (fraction > 0.3)


def _common(fragments: Fragments, active: Tensor, counts: Tensor) -> Tensor:
    """Mark for each class (K, clusters + 1) its 20 most common keys, but never key 0; ``counts`` (K, N) active cells."""
    found = counts.new_zeros(len(active), int(fragments.cluster.max()) + 1).index_add_(1, fragments.cluster, counts)
    found[:, 0] = fragments.labels.numel() - found.sum(1)
    common = found > 0
    if found.shape[1] > _MOST_COMMON:
        ranked = found.sort(1, descending=True).values
        last, next_ = ranked[:, _MOST_COMMON - 1], ranked[:, _MOST_COMMON]
        common &= found >= last[:, None]
        clusters = torch.cat([fragments.cluster.new_zeros(1), fragments.cluster])[fragments.labels]
        for k in torch.nonzero((last == next_) & (next_ > 0))[:, 0].tolist():
            common[k] = _common_of_equals(clusters * active[k], found[k])
    common[:, 0] = False
    return common


def _box_area(fragments: Fragments) -> Tensor:
    sides = fragments.boxes[:, 2:] - fragments.boxes[:, :2]
    return sides[:, 0] * sides[:, 1]


def _common_of_equals(keys: Tensor, counts: Tensor) -> Tensor:
    """Mark the 20 most common keys of a map (h, w), given the counts of all keys; of equals, the one met first is first."""
    flat = keys.flatten()
    first = torch.full_like(counts, len(flat))
    first.scatter_reduce_(0, flat, torch.arange(len(flat), device=flat.device), "amin")
    order = sorted(torch.nonzero(counts)[:, 0].tolist(), key=lambda key: (-int(counts[key]), int(first[key])))
    common = torch.zeros_like(counts, dtype=torch.bool)
    common[order[:_MOST_COMMON]] = True
    return common


def merge_adjacent(fragments: Fragments, kept: Tensor, connectivity: Connectivity, min_area: int = 0) -> Tensor:
    """Join the kept fragments (K, N) bool of each class into instances, (K, h, w) int64, numbered from 1 over all classes.

    Kept fragments of a class that touch are one instance (Zip, section 3.3); those under ``min_area`` cells are dropped.
    One class may also be given as (N), for a map (h, w).
    """
    if kept.ndim == 1:
        return merge_adjacent(fragments, kept[None], connectivity, min_area)[0]
    union = torch.cat([kept.new_zeros(len(kept), 1), kept], 1)[:, fragments.labels]
    return number_regions(union, connectivity, min_area)


def as_single_instances(fragments: Fragments, kept: Tensor) -> Tensor:
    """Take each kept fragment (K, N) bool for an instance of its own, (K, h, w) int64, numbered from 1 over all classes."""
    numbers = (kept.flatten().cumsum(0) * kept.flatten()).view(kept.shape)
    return torch.cat([numbers.new_zeros(len(kept), 1), numbers], 1)[:, fragments.labels]


def number_regions(marked: Tensor, connectivity: Connectivity, min_area: int = 0) -> Tensor:
    """Number the connected regions of each map (K, h, w) bool, from 1 over all maps, without those under ``min_area`` cells.

    >>> number_regions(torch.tensor([[[True, False, True]], [[True, True, True]]]), 4).tolist()
    [[[1, 0, 2]], [[3, 3, 3]]]
    """
    count, height, width = marked.shape
    # one sheet, with an empty row between the maps so that they never touch: one call for all classes
    sheet = F.pad(marked.to(torch.uint8), (0, 0, 0, 1)).view(-1, width)
    regions = drop_small(label_components(sheet, connectivity), min_area) if count else sheet.long()
    return regions.view(count, height + 1, width)[:, :height]
