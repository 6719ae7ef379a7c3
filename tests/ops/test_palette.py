"""The colors of a run: told apart by any eye, the same whatever follows, all different."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annofree.ops.palette import BACKGROUND_COLOR, assign_colors, choose_ink, make_palette, to_hex, to_oklab

EYES = ("normal", "protan", "deutan", "tritan")


def luminance(color: tuple[int, ...]) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.array(color) / 255]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)  # WCAG 2


@pytest.mark.parametrize(("count", "bound"), [(2, 0.37), (4, 0.21), (8, 0.12), (12, 0.10), (20, 0.06), (64, 0.03)])
@pytest.mark.parametrize("eye", range(4), ids=EYES)
def test_any_two_of_the_first_differ_for_every_eye(eye: int, count: int, bound: float) -> None:
    """In OKLab, in which 0.02 is just noticed."""
    lab = to_oklab(make_palette(count))[eye]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + np.eye(count)
    assert apart.min() > bound


def test_the_simulation_does_what_it_says() -> None:
    red, green, blue, violet = to_oklab([(190, 50, 50), (115, 105, 50), (60, 90, 220), (120, 60, 225)]).transpose(1, 0, 2)
    normal, protan, _, tritan = np.linalg.norm(red - green, axis=-1)
    assert normal > 0.15 and protan < normal / 2 < tritan
    apart = np.linalg.norm(blue - violet, axis=-1)
    assert apart[1] < apart[0] and apart[2] < apart[0]
    grays = to_oklab(np.repeat(np.arange(0, 256, 15)[:, None], 3, 1))
    assert np.abs(grays[..., 1:]).max() < 1e-3 and np.ptp(grays[..., 0], axis=0).max() < 1e-3  # gray is gray to everyone


@settings(deadline=None)
@given(st.integers(0, 700), st.integers(0, 700))
def test_a_prefix_keeps_its_colors(few: int, many: int) -> None:
    few, many = sorted((few, many))
    assert make_palette(many)[:few] == make_palette(few)


@pytest.mark.parametrize("count", [0, 1, 32, 33, 300, 512, 513, 5000])
def test_all_are_different_and_none_is_near_white_black_or_gray(count: int) -> None:
    colors = make_palette(count)
    assert len(set(colors)) == len(colors) == count
    if count:
        lightness, a, b = to_oklab(colors)[0].T
        assert lightness.min() > 0.4 and lightness.max() < 0.9 and np.hypot(a, b).min() > 0.13
    assert all(type(v) is int and 0 <= v <= 255 for color in colors for v in color)


def test_names_have_colors_by_their_place() -> None:
    names = [f"thing {k}" for k in range(300)]
    assert list(assign_colors(names).items()) == list(zip(names, make_palette(300), strict=True))
    assert assign_colors(["a", "BACKGROUND", "b", "a"]) == {
        "a": make_palette(1)[0],
        "BACKGROUND": BACKGROUND_COLOR,
        "b": make_palette(2)[1],
    }
    assert BACKGROUND_COLOR not in make_palette(5000) and assign_colors([]) == {}


def test_text_on_a_color_can_be_read() -> None:
    for color in make_palette(300):
        assert contrast(color, choose_ink(color)) > 4.5  # level AA
        assert choose_ink(color) in ((0, 0, 0), (255, 255, 255))


def test_css() -> None:
    assert to_hex((0, 10, 255)) == "#000aff"
