"""Label maps beside images that they are not of."""

from __future__ import annotations

import numpy as np
import pytest

from annofree.errors import InputError
from annofree.runs import compare_runs
from annofree.structures import Image, LabelMap


def test_a_map_of_another_size_is_told_with_its_image_and_side() -> None:
    image = Image(np.zeros((8, 6, 3), np.uint8), "a.jpg")
    found = LabelMap(np.zeros((4, 5), np.int32), ("background", "dog"), 0)
    side = compare_runs.Side("the truth", ("dog",), ("a.jpg",))
    with pytest.raises(InputError, match=r"\(8, 6\) for a.jpg in the truth, got \(4, 5\); is it of another image"):
        compare_runs._draw(image, side, found, ("dog",))
