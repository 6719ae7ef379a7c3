"""The benchmark of ZUTIS runs with a narrow network, and its numbers are its own."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

SMALL = ["--small", "--size", "50", "70", "--names", "3", "--queries", "8", "--pictures", "2", "--repeats", "1"]


def test_it_runs_and_tells(benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "zutis.json"
    benchmark.main([*SMALL, "--json", str(written)])
    found = json.loads(written.read_text())
    assert all(s > 0 for s in found["seconds_a_picture"].values()) and found["apart"] < 3e-4
    said = capsys.readouterr().out
    assert "50 x 70 px, 3 names" in said and all(part in said for part in found["seconds_a_picture"])


def test_orders_that_differ_are_noticed(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    right = benchmark.paper_order
    monkeypatch.setattr(benchmark, "paper_order", lambda n, x: tuple(1.1 * part for part in right(n, x)))
    with pytest.raises(SystemExit, match="expected both orders to give the same"):
        benchmark.main(SMALL)
