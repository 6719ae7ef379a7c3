"""One case in a fork of this process: what it said, what it wrote outside of its folder, how much memory it took.

PLACE
├── in/         what the case reads
├── out/        the one place that it may write to
├── beside/     files that belong to somebody else: none may change, and none may be copied
└── home/       the home of models
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["SECRET", "Case", "Outcome", "run_case"]

SECRET = b"a secret of somebody else, 5f1c"
_SECONDS, _BUSY_SECONDS, _MOST_MEMORY = 90.0, 30, 8 << 30
_CODES = (0, 1, 2)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BLOCK = 1 << 20

Counts = tuple[int, int, bool]
"""Objects read, objects named as passed over, and whether more than objects was named, such as a whole file."""


@dataclass(frozen=True)
class Case:
    """One hostile input: ``build`` writes it to PLACE and returns the call; it may write to ``allowed``, and take ``most`` MB.

    Where the call ends well, ``count`` tells what was read of at least and at most ``contained`` objects.
    """

    family: str
    name: str
    build: Callable[[Path], Sequence[str]]
    allowed: tuple[str, ...] = ("out",)
    contained: tuple[int, int] | None = None
    count: Callable[[Path], Counts] | None = None
    most: int = 1024  # MB


@dataclass(frozen=True)
class Outcome:
    """What a case came to: an exit code, None where it ran out of time, and everything that is wrong with it."""

    case: Case
    code: int | None
    said: str
    megabytes: float
    seconds: float
    named: bool
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["refused", "whole", "named"]:
        """Refused, read whole, or read with what was passed over named."""
        return "refused" if self.code not in (0, 1) else "named" if self.named or self.code == 1 else "whole"


def run_case(case: Case, place: Path, seconds: float = _SECONDS) -> Outcome:
    """Build a case in a new folder, call the command line in a fork, and hold what it did against the oracles."""
    for name in ("in", "beside", "home", "scratch"):
        (place / name).mkdir(parents=True)
    for name in ("secret.txt", "secret.png", "secret.json"):
        (place / "beside" / name).write_bytes(SECRET)
    call = [str(argument) for argument in case.build(place)]
    before = _look(place, case.allowed)
    begun = time.monotonic()
    code, said, peak = _call_in_fork(call, place, seconds)
    _import_as(place)
    after = _look(place, case.allowed)
    faults = _judge(code, said)
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    if changed:
        faults["outside writes"] = ", ".join(changed[:5])
    if leaks := [path for name in case.allowed for path in _find_secrets(place / name)]:
        faults["copied secrets"] = ", ".join(leaks[:5])
    if peak > case.most:
        faults["too much memory"] = f"{peak:.0f} MB"
    named = False
    if code in (0, 1) and case.count and case.contained:
        read, told, more = case.count(place)
        named, (least, most) = bool(told or more), case.contained
        if not (read + told <= most if more else least <= read + told <= most):
            faults["silent drops"] = f"contained {case.contained}, read {read}, named {told}{' and more' if more else ''}"
    return Outcome(case, code, said, peak, time.monotonic() - begun, named, faults)


def _judge(code: int | None, said: str) -> dict[str, str]:
    faults = {}
    if code in (None, -signal.SIGXCPU, -signal.SIGKILL):
        faults["timeouts"] = "killed"
    elif "Traceback (most recent" in said or code not in _CODES:
        faults["tracebacks"] = f"exit code {code}: {said.strip().splitlines()[-1][:200] if said.strip() else ''}"
    elif code == 2 and not any(line.startswith(("annofree:", "Error:", "Usage:", "│")) for line in said.splitlines()):
        faults["tracebacks"] = f"exit code 2 without a line that says why: {said[-200:]!r}"
    if found := _CONTROLS.search(said):
        faults["control signs"] = repr(said[max(found.start() - 40, 0) : found.start() + 10])
    return faults


def _call_in_fork(call: Sequence[str], place: Path, seconds: float) -> tuple[int | None, str, float]:
    """The exit code, None where it was killed, what was printed, and how many MB it took more than it began with."""
    log = place.with_name(place.name + ".log")
    child = os.fork()
    if not child:
        _work(call, place, log)
    end, code = time.monotonic() + seconds, None
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            _, _, used = os.wait4(child, 0)
            break
        time.sleep(0.002)
    said = log.read_text(encoding="utf-8", errors="surrogateescape")
    begun, _, text = said.partition("\n")
    return code, text, max(used.ru_maxrss - int(begun or used.ru_maxrss), 0) / 1024


def _work(call: Sequence[str], place: Path, log: Path) -> None:
    """Be the command, in the child, and never come back."""
    code, known = 70, set(sys.modules)
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for stream in (1, 2):
            os.dup2(out, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ |= {"ANNOFREE_HOME": str(place / "home"), "TMPDIR": str(place / "scratch")}
        tempfile.tempdir = str(place / "scratch")
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape", buffering=1)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="surrogateescape", buffering=1)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
        here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (here + _MOST_MEMORY, here + _MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (_BUSY_SECONDS, _BUSY_SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(place / "in")
        code = _call(call)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if more := set(sys.modules) - known:
            place.with_name(place.name + ".modules").write_text("\n".join(sorted(more)), encoding="utf-8")
        os._exit(code)


def _import_as(place: Path) -> None:
    """Import what the fork imported, so that the next one need not."""
    told = place.with_name(place.name + ".modules")
    if told.exists():
        for name in told.read_text(encoding="utf-8").split():
            with suppress(Exception), warnings.catch_warnings(action="ignore"):
                importlib.import_module(name)
        told.unlink()


def _call(call: Sequence[str]) -> int:
    from annofree.apps.cli import main

    sys.argv = ["annofree", *call]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def _look(place: Path, allowed: Sequence[str]) -> dict[str, Any]:
    """Everything below a folder and what it is, but for what lies in ``allowed``, locks, and the scratch folder."""
    seen: dict[str, Any] = {}
    skipped = {str(place / name) for name in (*allowed, "scratch")}
    folders = [str(place)]
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.path in skipped or entry.name == "lock":
                continue
            about = entry.stat(follow_symlinks=False)
            key = os.fsencode(os.path.relpath(entry.path, place)).decode("utf-8", "backslashreplace")
            if entry.is_dir(follow_symlinks=False):
                seen[key] = "folder"
                folders.append(entry.path)
            elif entry.is_symlink():
                seen[key] = str(Path(entry.path).readlink())
            else:
                seen[key] = (about.st_mode, about.st_size, about.st_mtime_ns, _hash(entry.path, about.st_size))
    return seen


def _hash(path: str, size: int) -> str:
    if not Path(path).is_file() or size > 8 * _BLOCK:
        return ""
    try:
        return hashlib.md5(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def _find_secrets(folder: Path) -> list[str]:
    files = (
        path for path in folder.rglob("*") if not path.is_symlink() and path.is_file() and path.stat().st_size < 8 * _BLOCK
    )
    return [str(path.relative_to(folder)) for path in files if SECRET in path.read_bytes()]
