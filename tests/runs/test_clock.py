"""A clock whose parts add up, by seconds that are set."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from annofree.runs import clock as module
from annofree.runs.clock import PARTS, StageTimer, Timings, skip_timing


class Wall:
    """The clock on the wall."""

    seconds = 1000.0

    def perf_counter(self) -> float:
        return self.seconds


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    hung = Wall()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=hung.perf_counter))
    return hung


def counted(clock: StageTimer) -> dict[str, float]:
    return {part: seconds for part, seconds in clock.seconds.items() if seconds}


def test_it_is_in_one_part_at_any_moment(wall: Wall) -> None:
    clock = StageTimer.started(at=995.0)
    wall.seconds += 2  # seven of loading
    clock.switch("other")
    with clock.count("write"):
        wall.seconds += 1
        with clock.count("draw"):
            wall.seconds += 10
        wall.seconds += 3
    wall.seconds += 0.5
    assert clock.elapsed == 21.5
    clock.stop()
    wall.seconds += 99
    assert counted(clock) == {"load": 7, "write": 4, "draw": 10, "other": 0.5}
    assert clock.total == clock.elapsed == 21.5 and not clock.running


def test_what_raises_is_counted(wall: Wall) -> None:
    clock = StageTimer.started()
    with pytest.raises(KeyboardInterrupt), clock.count("encode"):
        wall.seconds += 4
        raise KeyboardInterrupt
    assert clock.part == "load" and counted(clock) == {"encode": 4}


def test_laps_share_all_that_there_is(wall: Wall) -> None:
    clock = StageTimer.started()
    laps = []
    for seconds in (3, 0, 5):
        with clock.count("encode"):
            wall.seconds += seconds
        wall.seconds += 1
        laps.append(clock.take_lap())
    assert [lap["total"] for lap in laps] == [4, 1, 6] and [lap["encode"] for lap in laps] == [3, 0, 5]
    assert all(lap.keys() == {"total", *PARTS} for lap in laps)
    told, summed = clock.summarize(2), Timings.summed(2, 0, laps)
    assert told == summed and told.total == 11


def test_a_clock_that_nobody_started_counts_nothing(wall: Wall) -> None:
    clock = StageTimer()
    with clock.count("read"), skip_timing("read"):
        wall.seconds += 9
    assert clock.total == clock.elapsed == 0 and not counted(clock)


def test_it_starts_anew(wall: Wall) -> None:
    clock = StageTimer.started()
    wall.seconds += 5
    clock.stop()
    clock.start()
    wall.seconds += 1
    assert clock.take_lap()["total"] == 1 and counted(clock) == {"load": 1}


def test_the_parts_of_run_json_add_up_to_its_total() -> None:
    seconds = dict(zip(PARTS, (0.00049, 0.1234, 1.00051, 2.7182, 0.33333, 0, 1e-9, 0.7777), strict=True))
    told = Timings(5, 1, sum(seconds.values()) + 0.0123, seconds).as_dict()
    parts = [value for key, value in told.items() if key.startswith("seconds_") and key != "seconds_total"]
    assert sum(parts) == pytest.approx(told["seconds_total"], abs=1e-9)
    assert told["seconds_other"] == pytest.approx(0.0123, abs=0.004)


def test_images_a_second_are_those_after_loading() -> None:
    assert Timings(6, 1, 5.0, {"load": 2.0}).images_per_second == 2.0
    assert Timings(0, 3, 5.0, {"load": 2.0}).images_per_second == 0.0
    assert Timings(3, 0, 2.0, {"load": 2.0}).images_per_second == 0.0
    assert Timings().as_dict()["images_per_second_without_loading"] == 0.0


def test_manifests_of_earlier_versions_are_summed() -> None:
    """They told no loading, and what no part had was in the total alone."""
    told = Timings.summed(2, 0, [{"total": 3.0, "read": 0.5, "encode": 2.0, "instances": 0.25}, {}]).as_dict()
    assert (told["seconds_total"], told["seconds_other"], told["seconds_load"]) == (3.0, 0.25, 0.0)
