"""Numbers that nothing can be counted with are refused in one line, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.cli import Cli

HUGE = "9" * 30
CALLS = [
    ("segment", "photos", "--classes", "dog", "--out", "out", "--limit", HUGE),
    ("segment", "photos", "--classes", "dog", "--out", "out", "--batch-size", HUGE),
    ("segment", "photos", "--classes", "dog", "--out", "out", "--shard", f"{HUGE}/{HUGE}"),
    ("segment", "photos", "--classes", "dog", "--out", "out", "--shard", "1/" + "9" * 5000),
    ("index", "photos", "--out", "out", "--batch", HUGE),
    ("index", "photos", "--out", "out", "--threads", "99999999999"),
    ("retrieve", "index", "--classes", "dog", "--out", "out", "--k", HUGE),
    ("retrieve", "index", "--classes", "dog", "--out", "out", "--min-score", "nan"),
    ("review", "run", "--worst", HUGE),
    ("review", "run", "--min-score", "nan"),
    ("report", "run", "--shown", HUGE),
    ("compare", "run", "other", "--out", "out", "--limit", HUGE),
    ("train", "selfmask", "photos", "--out", "out", "--seed", HUGE),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]} {call[-2]} {call[-1][:6]}")
def test_it_is_one_line(cli: Cli, call: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    said = cli(*call)
    lines = [line for line in said.err.splitlines() if line]
    assert said.code == 2 and "Traceback" not in said.err and lines[-1].startswith(("annofree: expected", "Error: "))
    assert len(lines[-1]) < 300 and not (tmp_path / "out").exists()


def test_a_link_that_leads_to_itself_is_one_line(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    said = cli("segment", "photos", "--classes", "dog", "--models", "tiny", "--out", "loop")
    assert said.code == 2 and said.err.startswith("annofree: expected") and len(said.err.splitlines()) == 1
