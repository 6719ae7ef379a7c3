"""Colours of classes: the same whatever else is asked, and told apart with any colour vision."""

import numpy as np
import pytest

from annofree.formats.class_colours import PALETTE, class_colour

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_LMS = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
TO_LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]


@pytest.mark.parametrize("vision", VISION)
def test_any_two_colours_differ_for_every_eye(vision: str) -> None:
    values = np.array(PALETTE) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(VISION[vision]).T, 0, 1)
    lab = np.cbrt(seen @ np.array(TO_LMS).T) @ np.array(TO_LAB).T  # OKLab, in which 0.02 is just noticed
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + np.eye(len(lab))
    assert apart.min() > 0.07


def test_a_name_has_its_colour_whatever_is_asked() -> None:
    names = [f"thing {i}" for i in range(400)]
    colours = {name: class_colour(name) for name in names}
    assert colours == {name: class_colour(name) for name in reversed(names)}
    assert (class_colour("dog"), class_colour("Dog ")) == (class_colour("dog"), class_colour("dog"))
    counts = [list(colours.values()).count(colour) for colour in PALETTE]
    assert sum(counts) == 400 and min(counts) > 25  # none is left out
