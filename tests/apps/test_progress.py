"""Progress where there is no terminal: plain lines with a rate and the time that is left."""

from __future__ import annotations

import itertools

import pytest

from annofree.apps.cli.progress import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which every look takes ten seconds."""
    ticks = itertools.count(0.0, 10.0)
    monkeypatch.setattr("annofree.apps.cli.progress.time.monotonic", lambda: next(ticks))


@pytest.mark.usefixtures("clock")
def test_a_line_tells_the_rate_and_the_time_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("steps") as shown:
        shown(10, 100)
        shown(30, 100)
    assert capsys.readouterr().err.splitlines() == [
        "steps: 10 of 100, 1.0 a second, 90 s left",
        "steps: 30 of 100, 2.0 a second, 35 s left",
    ]


@pytest.mark.usefixtures("clock")
def test_what_an_earlier_run_did_is_no_part_of_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("steps") as shown:
        shown(501, 1201)
        shown(511, 1201)
    assert capsys.readouterr().err.splitlines()[-1] == "steps: 511 of 1201, 1.0 a second, 690 s left"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("steps", quiet=True) as shown:
        shown(1, 1)
    assert capsys.readouterr().err == ""
