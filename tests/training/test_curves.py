from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.structures import BoolArray
from annofree.testing.tolerances import assert_close
from annofree.training.engine.curves import choose_ticks, draw_curves, plot_log, smooth_values


def lines(count: int = 200) -> list[dict[str, float]]:
    return [{"step": 10 * i, "loss": 3.0 / (i + 1), "lr": 1e-5, "seconds": i} for i in range(1, count + 1)]


def strong(image: PIL.Image.Image) -> BoolArray:
    red, green, blue = np.moveaxis(np.asarray(image), -1, 0)
    found: BoolArray = (red == 20) & (green == 90) & (blue == 170)
    return found


def test_a_falling_loss_is_drawn_from_the_top_left_to_the_bottom_right() -> None:
    image = draw_curves(lines())
    assert image.size == (920, 250)
    ys, xs = np.nonzero(strong(image)[:, :460])
    assert ys[xs == xs.min()].mean() < 60 < 190 < ys[xs == xs.max()].mean()
    assert xs.min() < 70 and xs.max() > 435
    ys, xs = np.nonzero(strong(image)[:, 460:])  # the rate, all the same, runs through the middle
    assert np.ptp(ys) <= 2 and 110 < ys.mean() < 140


def test_one_line_and_numbers_that_are_none() -> None:
    assert strong(draw_curves(lines(1))).any()
    gap = [*lines(3), {"step": 40, "loss": float("nan")}]
    assert strong(draw_curves(gap)).any()
    with pytest.raises(InputError, match="at least one line"):
        draw_curves([])


def test_smoothing_is_the_written_out_mean() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = smooth_values(values, share=0.2)
    for i in range(50):
        reach = min(5, i, 49 - i)
        assert_close(found[i], values[i - reach : i + reach + 1].mean())


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1e-6, 5e-5), (-3, 12), (2.47, 4.4), (10, 20_000)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = choose_ticks(low, high)
    assert 2 <= len(found) <= 7
    inside = (np.array(found) - low) / (high - low)
    assert inside.min() > -1e-9 and inside.max() < 1 + 1e-9  # but for rounding
    assert_close(np.diff(inside), np.full(len(found) - 1, inside[1] - inside[0]))


def test_a_log_becomes_a_png(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step"')
    plot_log(tmp_path / "log.jsonl", tmp_path / "curves.png")
    with PIL.Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG" and image.size == (920, 250)
