"""With ``--fail-on-skip`` a skip that is not listed fails the run, in one process and with workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.skips import ALLOWED_SKIPS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    ("reason", "options", "code"),
    [(next(iter(ALLOWED_SKIPS)), ["--fail-on-skip"], 0), ("no font", ["--fail-on-skip"], 1), ("no font", [], 0)],
)
def test_a_skip_has_to_be_listed(tmp_path: Path, reason: str, options: list[str], code: int, workers: str) -> None:
    (tmp_path / "test_one.py").write_text(f"import pytest\n\n\ndef test_it():\n    pytest.skip({reason!r})\n", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.skips", "-p", "no:cacheprovider", "-n", workers, *options]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("skips without a listed reason" in done.stdout and "no font" in done.stdout) is bool(code)
