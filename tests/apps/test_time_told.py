"""The time that a command tells is that of the clock on the wall, measured from outside; nowhere else does a test time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pytest

from annofree.apps import IMPORTED
from annofree.apps.cli import process
from annofree.apps.cli.process import (
    exit_now,
    find_program_start,
    is_program,
    read_process_start,
    start_clocks,
    start_command_clock,
)

ANNOFREE = shutil.which("annofree", path=sysconfig.get_path("scripts"))
SLACK = 0.5  # seconds, beside 15 %: processes begin and end on a busy machine


class Seen(NamedTuple):
    seconds: float
    code: int
    out: str
    err: str


def timed(*arguments: object) -> Seen:
    """Run the command in a process of its own, with a stopwatch."""
    assert ANNOFREE is not None
    command = [ANNOFREE, *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return Seen(time.perf_counter() - start, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three tiny images."""
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 255, (64, 96, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / "photos" / f"{seed}.png")
    return tmp_path / "photos"


def timings(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))["timings"]
    return found


def parts(told: dict[str, float]) -> float:
    return sum(value for key, value in told.items() if key.startswith("seconds_") and key != "seconds_total")


def assert_on_the_wall(told: float, seen: float) -> None:
    assert told <= seen + 0.02  # what the kernel's clock ticks
    assert seen - told < 0.15 * seen + SLACK


def test_a_stopwatch_agrees(photos: Path, tmp_path: Path) -> None:
    """A run of three images, one of them torn, and then that one again, repaired."""
    out, torn = tmp_path / "out", photos / "0.png"
    whole = torn.read_bytes()
    torn.write_bytes(b"torn")
    command = ("segment", photos, "--classes", "dog, cat", "--models", "tiny", "--method", "maskclip", "--out", out)
    first = timed(*command, "--task", "instance,semantic,panoptic")
    assert first.code == 1, first.err
    told = timings(out)
    call = told.pop("last_call")
    assert call == pytest.approx(told, abs=0.002) and (call["images"], call["failed"]) == (2, 1)  # one is a sum of stretches
    assert_on_the_wall(told["seconds_total"], first.seconds)
    assert parts(told) == pytest.approx(told["seconds_total"], abs=1e-6)
    for part in ("load", "read", "encode", "instances", "semantic", "draw", "write"):
        assert told[f"seconds_{part}"] > 0, part
    assert told["seconds_other"] < 0.05 * told["seconds_total"] + SLACK
    at_images = told["seconds_total"] - told["seconds_load"]
    assert told["images_per_second_without_loading"] == pytest.approx(2 / at_images, abs=0.01)
    assert " in 2 images; " in first.out and ": loading " in first.out
    assert "loading models: " in first.err and "images: 3 of 3 in " in first.err

    torn.write_bytes(whole)
    second = timed(*command, "--task", "instance,semantic,panoptic", "--retry")
    assert second.code == 0, second.err
    run = timings(out)
    call = run.pop("last_call")
    assert (run["images"], run["failed"], call["images"], call["failed"]) == (3, 0, 1, 0)
    assert_on_the_wall(call["seconds_total"], second.seconds)
    assert_on_the_wall(run["seconds_total"], first.seconds + second.seconds)
    assert parts(run) == pytest.approx(run["seconds_total"], abs=1e-6)
    assert "; this call " in second.out and ", 1 of them now; all calls " in second.out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process began")
def test_a_shell_that_turned_into_the_command_is_not_counted() -> None:
    code = "import time; from annofree.apps.cli import process as p; print(p.read_process_start() == p.IMPORTED)"
    for shell, imported in (('sleep 0.1; exec "$@"', "True\n"), ('exec "$@"', "False\n")):
        command = ["bash", "-c", shell, "-", sys.executable, "-c", code]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == imported


# When a process began


def stat(**changes: object) -> str:
    """A line of /proc/PID/stat, with a name that is hard to read."""
    fields = {str(k): "0" for k in range(1, 53)} | {
        "1": "77",
        "2": "(a) b (c",
        "3": "R",
        **{k[1:]: v for k, v in changes.items()},
    }
    return " ".join(f"({v})" if k == "2" else str(v) for k, v in fields.items())


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], float]:
    """How many seconds ago the process began that has such a line, 5000 s after the start of the machine; imported 3 s ago."""
    monkeypatch.setattr(process, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(time, "clock_gettime", lambda clock: 5000.0)
    monkeypatch.setattr(time, "perf_counter", lambda: 900.0)
    monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.__getitem__)

    def ago(line: str) -> float:
        (tmp_path / "stat").write_text(line, encoding="utf-8")
        return 900.0 - read_process_start(imported=897.0)

    return ago


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process began")
def test_the_kernel_tells_when_a_process_began(told: Callable[[str], float]) -> None:
    assert told(stat(_22=499_500)) == 5.0
    assert told(stat(_22=499_800)) == 3.0  # after the import: a clock that was set
    assert told(stat(_22=499_500, _11=1)) == told(stat(_22=499_500, _13=1)) == 3.0  # a shell that ran something before
    assert told("nonsense") == told("1 (x) R 2 3") == told(stat(_22="many")) == 3.0


def test_without_the_kernel_it_is_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_STAT", tmp_path / "none")
    assert read_process_start() == IMPORTED


def test_a_program_of_somebody_else_is_not_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["annofree", "doctor"])
    before = time.perf_counter()
    assert not is_program() and find_program_start() >= before
    with pytest.raises(SystemExit) as end:
        exit_now(3)  # and not the end of this process
    assert end.value.code == 3


def test_clocks_of_commands_run_since_the_command_began() -> None:
    with start_clocks(time.perf_counter() - 60):
        clock = start_command_clock()
    assert 60 <= clock.elapsed < 600 and clock.part == "load"
    assert start_command_clock().elapsed < 60


def test_exit_handlers_and_the_last_words_are_not_lost(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, sys, threading, time\n"
        "from annofree.apps.cli.process import exit_now\n"
        "atexit.register(lambda: print('handled'))\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('waited for'))).start()\n"
        "print('said')\n"
        "exit_now(int(sys.argv[1]) if sys.argv[1:] else None)\n"
    )
    for arguments, code in ([], 0), (["3"], 3):
        done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (code, "said\nwaited for\nhandled\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_reader_that_goes_away_does_no_harm() -> None:
    assert ANNOFREE is not None
    with subprocess.Popen([ANNOFREE, "models", "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        err = running.stderr.read()
        assert running.wait() in (0, 1, 120, -signal.SIGPIPE) and b"annofree/apps/cli/process" not in err
