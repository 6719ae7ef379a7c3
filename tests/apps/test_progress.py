"""What is seen of progress, by a clock that is set: plain lines, and on a terminal a line that counts and a bar."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable

import pytest

from annofree.apps.cli import bar, ticking
from annofree.apps.cli.progress import Display, show_progress
from annofree.runs.clock import StageTimer


class Now:
    """A clock that is set."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def tell(self, shown: Display, *steps: tuple[int, float], total: int) -> None:
        """Tell that so many are done after so many more seconds."""
        for done, seconds in steps:
            self.seconds += seconds
            shown(done, total)


@pytest.fixture
def now() -> Now:
    return Now()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    said = capsys.readouterr()
    assert not said.out
    return said.err.splitlines()


# Plain lines


def test_lines_tell_the_pace_and_the_time_that_is_left(now: Now, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("images", batch=4, now=now) as shown:
        now.tell(shown, (0, 0), (4, 90), (8, 10), (12, 10), (16, 10), (100, 210), total=100)
    assert lines(capsys) == [
        "images: 4 of 100, estimating the time left",  # the first batch tells nothing
        "images: 8 of 100, 2.5 s each, 3 min 50 s left",
        "images: 12 of 100, 2.5 s each, 3 min 40 s left",
        "images: 16 of 100, 2.5 s each, 3 min 30 s left",
        "images: 100 of 100 in 5 min 30 s",
    ]


def test_there_is_a_line_in_ten_seconds_at_most_and_one_at_the_end(now: Now, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("steps", now=now) as shown:
        now.tell(shown, (0, 0), *[(k, 0.125) for k in range(1, 1000)], (1000, 0.125), (1000, 0.0), total=1000)
    said = lines(capsys)
    assert len(said) == 13 and said[-1] == "steps: 1000 of 1000 in 2 min 5 s"
    assert said[0] == "steps: 80 of 1000, 8 a second, 1 min 55 s left"


def test_what_an_earlier_call_did_is_no_part_of_the_pace(now: Now, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("steps", now=now) as shown:
        now.tell(shown, (501, 0), (502, 30), (511, 90), total=1201)
    assert lines(capsys)[-1] == "steps: 511 of 1201, 10 s each, 1 h 55 min left"


def test_other_work_has_its_own_end(now: Now, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("images", now=now) as shown:
        now.tell(shown, (0, 0), (1, 3), (2, 3), (0, 50), (1, 4), (2, 4), total=2)
    assert lines(capsys) == ["images: 2 of 2 in 6.0 s", "images: 2 of 2 in 8.0 s"]


def test_where_nothing_is_left_no_time_is_told(now: Now, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("masks", now=now) as shown:
        now.tell(shown, (3, 0), total=3)
    with show_progress("masks", now=now) as shown:
        now.tell(shown, (0, 0), total=0)
    assert lines(capsys) == ["masks: 3 of 3"]


# Loading


def test_loading_is_a_step_of_its_own(now: Now, capsys: pytest.CaptureFixture[str]) -> None:
    clock = StageTimer.started(time.perf_counter() - 75)
    with show_progress("images", clock=clock, now=now) as shown:
        shown.say("note: first")
        shown(0, 2)
        assert clock.part == "other" and 75 <= clock.seconds["load"] < 1000
        now.tell(shown, (2, 3), total=2)
    first, loading, last = lines(capsys)
    assert (first, last) == ("note: first", "images: 2 of 2 in 3.0 s")
    assert re.fullmatch(r"loading models: 1 min \d+ s", loading)


def test_where_loading_is_all_there_is_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("images", clock=StageTimer.started()):
        pass
    with pytest.raises(ZeroDivisionError), show_progress("images", clock=StageTimer.started()):
        raise ZeroDivisionError
    assert lines(capsys) == []


def test_other_work_loads_again(now: Now, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("", now=now) as shown:
        for name in ("one", "two"):
            shown.begin(f"{name}: images", "loading models")
            now.tell(shown, (0, 5), (1, 5), total=1)
    loading = "loading models: 0.0 s"
    assert lines(capsys) == [loading, "one: images: 1 of 1 in 5.0 s", loading, "two: images: 1 of 1 in 5.0 s"]


def test_quiet_says_nothing_but_turns_the_clock(capsys: pytest.CaptureFixture[str]) -> None:
    clock = StageTimer.started()
    with show_progress("steps", quiet=True, clock=clock) as shown:
        shown(0, 1)
        shown(1, 1)
    assert lines(capsys) == [] and clock.part == "other"


# Terminals


class Terminal(io.StringIO):
    """A terminal of a hundred columns."""

    def isatty(self) -> bool:
        return True

    def seen(self) -> list[str]:
        """All that was written over one line or another, without colours."""
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())
        return [re.sub("[━╸╺]+", "━", part).rstrip() for part in re.split(r"[\r\n]+", plain) if part.strip()]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Make the error stream a terminal; to be called in the test itself, for pytest sets that stream before it."""

    def terminal() -> Terminal:
        shown = Terminal()
        monkeypatch.setattr(sys, "stderr", shown)
        return shown

    monkeypatch.setattr(ticking, "_EVERY", 0.001)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return terminal


def until_it_counts(terminal: Terminal) -> None:
    for _ in range(100_000):
        if "…" in terminal.getvalue():
            return
        time.sleep(0.001)
    raise AssertionError("expected a line that counts")


def test_a_bar_has_our_estimate(now: Now, opened: Callable[[], Terminal]) -> None:
    terminal = opened()
    with show_progress("images", batch=4, now=now) as shown:
        for done, seconds in ((0, 0), (4, 90), (8, 10), (12, 10)):
            now.tell(shown, (done, seconds), total=100)
            shown._bar._progress.refresh()  # type: ignore[attr-defined]
            print(f"failed: {done}.png", file=sys.stderr)
        now.tell(shown, (100, 220), total=100)
    seen = terminal.seen()
    for line in ("images 0/100 estimating", "images ━   4/100  estimating", "images ━   8/100 2.5 s each 3 min 50 s left"):
        assert line.split() in [part.split() for part in seen]
    assert seen[-1].split() == ["images", "━", "100/100", "3.3", "s", "each", "in", "5", "min", "30", "s"]
    assert [line for line in seen if line.startswith("failed")] == [f"failed: {n}.png" for n in (0, 4, 8, 12)]


def test_a_line_counts_while_models_load(opened: Callable[[], Terminal]) -> None:
    terminal = opened()
    clock = StageTimer.started(time.perf_counter() - 7500)
    with show_progress("images", clock=clock) as shown:
        until_it_counts(terminal)
        shown.say("note: something to know")
        shown(0, 5)
    assert "\rnote: something to know" in terminal.getvalue()
    loading = [line for line in terminal.seen() if line.startswith("loading")]
    assert len(loading) > 1 and set(loading) == {"loading models … 2 h 5 min"}
    assert re.search(r"\rloading models … 2 h 5 min *\n", terminal.getvalue())


def test_the_line_goes_where_something_ends_loading(opened: Callable[[], Terminal]) -> None:
    terminal = opened()
    with pytest.raises(KeyboardInterrupt), show_progress("images", clock=StageTimer.started()):
        until_it_counts(terminal)
        raise KeyboardInterrupt
    assert re.search(r"\r +\r$", terminal.getvalue()) and "\n" not in terminal.getvalue()


def test_the_line_stands_back_while_downloads_draw(opened: Callable[[], Terminal]) -> None:
    terminal = opened()
    tqdm = pytest.importorskip("tqdm.std").tqdm
    with tqdm(total=1, file=io.StringIO()), show_progress("images", clock=StageTimer.started()):
        time.sleep(0.05)
        assert not terminal.getvalue()


def test_terminals_that_cannot_move_get_lines(
    now: Now, opened: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = opened()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delattr(bar, "Bar")
    with show_progress("images", now=now) as shown:
        now.tell(shown, (0, 0), (2, 3), total=2)
    assert terminal.getvalue() == "images: 2 of 2 in 3.0 s\n"
