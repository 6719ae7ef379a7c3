"""One process at a time, among real processes, one of which is killed."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from annofree.errors import InputError
from annofree.io.files.lock import acquire_lock

HOLD = """
import sys, time
from pathlib import Path
from annofree.io.files.lock import acquire_lock
lock = acquire_lock(Path(sys.argv[1]), "taken")
print("held", flush=True)
time.sleep(600)
"""


def test_a_killed_process_locks_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with pytest.raises(InputError, match="taken"):
                acquire_lock(path, "taken")
        finally:
            holder.kill()
    assert holder.returncode == -signal.SIGKILL and path.exists()
    acquire_lock(path, "taken").release()


def test_another_thread_may_let_it_go(tmp_path: Path) -> None:
    held = acquire_lock(tmp_path / "lock", "taken")
    thread = threading.Thread(target=held.release)
    thread.start()
    thread.join()
    acquire_lock(tmp_path / "lock", "taken").release()


@pytest.mark.parametrize("problem", [NotImplementedError(), OSError(errno.ENOLCK, "no locks")], ids=["system", "disk"])
def test_without_locks_nobody_is_kept_out(problem: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileLock, **how: object) -> None:
        raise problem

    monkeypatch.setattr(FileLock, "acquire", refuse)
    acquire_lock(tmp_path / "lock", "taken")


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileLock, **how: object) -> None:
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(InputError, match="cannot be taken: denied"):
        acquire_lock(tmp_path / "lock", "taken")
