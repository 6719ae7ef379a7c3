"""PAMR neighbour by neighbour, beside the obvious way that lays out all 48 neighbours of every map at once.

    uv run python benchmarks/pamr.py --classes 81 --size 112 150

Both are checked against each other before they are timed.  The obvious way holds (K, 48, H, W) floats an iteration; ours
holds a few times (K, H, W).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from annofree.ops.pamr import DILATIONS, apply_pamr
from annofree.testing.timing import Spread, measure_seconds
from annofree.testing.tolerances import assert_close

_AROUND = [k for k in range(9) if k != 4]


def laid_out(maps: Tensor) -> Tensor:
    """All neighbours of maps (K, H, W) and the pixel itself, (K, dilations, 9, H, W)."""
    views = []
    for d in DILATIONS:
        columns = F.unfold(F.pad(maps[:, None], (d, d, d, d), mode="replicate"), 3, dilation=d)
        views.append(columns.view(len(maps), 9, *maps.shape[1:]))
    return torch.stack(views, 1)


def obvious(image: Tensor, maps: Tensor, iterations: int = 10) -> Tensor:
    seen = laid_out(image)
    deviation = seen.flatten(1, 2).std(1)
    likeness = -((seen[:, :, _AROUND] - image[:, None, None]).abs() / (1e-8 + 0.1 * deviation[:, None, None])).mean(0)
    affinities = likeness.flatten(0, 1).softmax(0)
    for _ in range(iterations):
        maps = (laid_out(maps)[:, :, _AROUND].flatten(1, 2) * affinities).sum(1)
    return maps


def typical(work: Callable[[], object], repeats: int) -> float:
    return Spread.of([measure_seconds(work) for _ in range(repeats)]).median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--size", type=int, nargs=2, default=(112, 150), metavar=("H", "W"))
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    image, maps = (torch.rand(k, *asked.size, generator=generator) for k in (3, asked.classes))
    assert_close(apply_pamr(image, maps), obvious(image, maps))
    ours, theirs = (typical(lambda way=way: way(image, maps), asked.repeats) for way in (apply_pamr, obvious))  # type: ignore[misc]
    cells = asked.classes * asked.size[0] * asked.size[1] * 4
    print(
        json.dumps(
            {
                "ours_s": ours,
                "obvious_s": theirs,
                "ratio": theirs / ours,
                "map_mb": cells / 1e6,
                "laid_out_mb": 54 * cells / 1e6,
            }
        )
    )


if __name__ == "__main__":
    main()
