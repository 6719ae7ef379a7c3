"""The benchmark of retrieval at a small size: it runs, finds what a sort finds, and stays within its limit."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


def test_it_prints_and_writes_its_figures(benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--rows", "20000", "--dimension", "96", "--names", "6", "--folder", str(tmp_path), "--unique"]
    benchmark.main([*small, "--json", str(tmp_path / "figures.json"), "--limit-gb", "1000"])
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads((tmp_path / "figures.json").read_text())
    assert (figures["rows"], figures["found"], figures["repeated"], figures["checked_names"]) == (20_000, 3000, 0, 2)
    assert figures["rows_per_s"] > 0 and figures["peak_gb"] > 0.05
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]


def test_too_much_memory_stops_it(benchmark: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"at most 0\.01 GB"):
        benchmark.main(["--rows", "600", "--dimension", "8", "--names", "2", "--limit-gb", "0.01", "--folder", str(tmp_path)])


def test_another_answer_stops_it(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = benchmark.Ranking(np.arange(500), np.zeros(500, np.float32))
    monkeypatch.setattr(benchmark, "search", lambda *_: [wrong, wrong])
    with pytest.raises(SystemExit, match="differs from a plain sort"):
        benchmark.main(["--rows", "600", "--dimension", "8", "--names", "2", "--folder", str(tmp_path)])
